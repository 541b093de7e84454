"""Options that do not go together are refused by name."""

from pathlib import Path

import numpy as np
import pytest
from selection_builder import choose

from cptsel.pipeline.chosen.config import FisherConfig
from cptsel.pipeline.config import resolve, to_yaml
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.plan import plan
from cptsel.pipeline.planning.config import PlanConfig
from cptsel.pipeline.select import select
from cptsel.pipeline.selection.config import SelectConfig
from cptsel.pipeline.verification.config import VerifyConfig


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"group_by": None, "group_floor": "1%"}, "--group-floor is about groups; name their column with --group-by"),
        ({"method": "temperature", "group_by": None}, "name their column with --group-by"),
        ({"group_alpha": 0.5, "group_mass": "interference"}, "--group-alpha and --group-mass both set"),
        ({"method": "interference"}, "interference needs to know how losses rise"),
        ({"new": "x"}, "--new is read by interference"),
        ({"combine": "difference"}, "--combine difference takes two runs"),
        ({"unit": "batch", "scope": "global", "partition": "cluster"}, "leave out one of them"),
        ({"partition": "cluster", "scope": "shard"}, "--partition cluster .* needs --scope global"),
        ({"partitions": 3}, "--partitions counts those of --partition cluster"),
        ({"history_mode": "cover"}, "--history-mode is read with --history; leave it out"),
        ({"method": "uniform", "neighbours": 5}, "--neighbours is read by craig and kmedoids; leave it out"),
        ({"method": "gradmatch", "similarity": "euclidean"}, "--similarity is read by craig and kmedoids"),
        ({"method": "kmedoids", "refine": 7}, "--refine is read by craig; leave it out"),
        ({"ridge": 0.5}, "--ridge is read by gradmatch and gradmatch-batch;"),
        ({"method": "gradient-coreset", "ridge": 0.5}, "--ridge is read by gradmatch and gradmatch-batch;"),
        ({"method": "importance", "tolerance": 0.5}, "--tolerance is read by gradmatch"),
        ({"importance": "loss"}, "--importance is read by importance; leave it out"),
        ({"interference_beta": 2.0}, "--interference-beta is read by interference"),
        ({"batch_size": 4}, "--batch-size is read with --unit batch"),
        ({"group_alpha": 0.5, "group_by": None}, "--group-alpha is read with --group-by"),
        ({"history_discount": 0.2}, "--history-discount is read with --history-mode discount"),
        ({"curriculum_order": "descending"}, "--curriculum-order is read with --curriculum"),
        ({"realisation": "loss", "max_repeats": 2}, "--max-repeats is read with --realisation repeat"),
        ({"method": "temperature"}, "--method temperature needs --group-alpha below 1"),
        ({"method": "mix-review", "mix_ratio": 1.0}, "--mix-ratio and --budget 20% both say how much is drawn"),
        ({"method": "uniform", "curriculum": "gain"}, "--method uniform has no gain"),
        ({"curriculum_buckets": 3}, "--curriculum-buckets is read with --curriculum"),
        ({"curriculum": "loss", "realisation": "sampling"}, "leave out --curriculum"),
        ({"realisation": "loss", "replay_tokens": "5K"}, "leave out --replay-tokens"),
        ({"phases": 2}, "--method craig would choose the same in each"),
        ({"phase_budget": "5%"}, "--phase-budget is of later phases; give --phases"),
        ({"phase_budget": "5%", "phases": 2, "phase_run": ("x",)}, "give one"),
        ({"phases": 4, "phase_run": ("x",)}, "with 1 --phase-run there are 2"),
        ({"method": "mix-review", "phase_budget": "5%", "phases": 2}, "mix-review draws every phase afresh"),
        ({"mix_ratio": 2.0, "budget": "5%"}, "--mix-ratio is the replay of mix-review"),
        ({"mix_decay": 0.5}, "--mix-decay is of --method mix-review"),
        ({"method": "full", "budget": "20%"}, "--method full has --budget 100%; leave the option out"),
        ({"method": "full", "budget": "100%", "explore": 0.1}, "--explore sets a part of the budget aside"),
        ({"explore": 1.5}, "--explore 1.5: must be a finite number between 0 and 1"),
        ({"history_discount": 0.0}, "--history-discount 0.0: must be a finite number between 1e-06 and 1"),
        ({"explore": 0.2, "curriculum": "gain"}, "--explore draws at random, and what is drawn has no gain"),
        ({"method": "gradmatch", "tolerance": 1.0}, "--tolerance 1 is reached without a pick"),
        (
            {"method": "interference", "new": "{new}", "phase_run": ("{new}",)},
            "--phase-run selects at later checkpoints, and --new is embedded at the first",
        ),
        ({"curriculum": "length"}, "--curriculum length: must be one of loss, norm, gain"),
        ({"group_floor": "lots"}, "--group-floor: 'lots' is not a budget"),
        ({"group_floor": "10 tokens"}, "--group-floor: --budget 20% counts samples"),
    ],
)
def test_options_that_do_not_go_together(run, tmp_path, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        choose(run, tmp_path / "replay", **options)
    assert not (tmp_path / "replay").exists()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: select(SelectConfig(runs="a/run", out="x")), "runs='a/run': must be a list or tuple of texts"),
        (lambda: embed(EmbedConfig(inputs="a/*", model="m", out="x")), "inputs='a/.*': must be a list or tuple"),
        (lambda: plan(PlanConfig(trainings="a.csv", tokens="20M")), r"tokens='20M': .*, such as \['20M'\]"),
    ],
)
def test_a_text_is_not_taken_for_a_list_of_letters(call, sentence):
    with pytest.raises(UsageError, match=sentence):
        call()


def test_values_from_python_are_taken_as_those_of_yaml():
    made = SelectConfig(
        runs=[Path("a/run")], budget=500, group_cap=np.int64(20), ridge=1, seed=np.int64(3), out=Path("x")
    )
    assert (made.runs, made.budget, made.group_cap, made.seed, made.out) == (("a/run",), "500", "20", 3, "x")
    assert (made.ridge, type(made.ridge), type(made.seed)) == (1.0, float, int)
    same = {"runs": ("a/run",), "budget": "500", "group_cap": "20", "ridge": 1.0, "seed": 3, "out": "x"}
    assert to_yaml(made) == to_yaml(resolve(SelectConfig, None, same))
    assert PlanConfig(trainings="a.csv", tokens=[20_000, "5M"]).tokens == ("20000", "5M")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SelectConfig(runs=["r"], budget=0.05, out="x"), 'budget: 0.05 is not text; a share is written "5%"'),
        (lambda: SelectConfig(runs=["r"], seed="1", out="x"), "seed: '1' is not a whole number"),
        (lambda: SelectConfig(runs=["r"], dry_run=1, out="x"), "dry_run: 1 is not true or false"),
        (lambda: SelectConfig(runs={"r"}, out="x"), "runs: .* is not a list of texts"),
        (lambda: SelectConfig(runs=["r"], out=None), "out has no value; give it text$"),
        (lambda: VerifyConfig(directory=object()), "directory: <object object at .*> is not text"),
        (lambda: FisherConfig(replay="r", model="m", seed=1.5, out="x"), "seed: 1.5 is not a whole number"),
    ],
)
def test_values_from_python_of_another_type_are_refused(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        make()
