"""select: what every manifest must hold, what the scopes must agree on, and what is refused.

Most tests run the steps of a selection as the plain functions they are; those of runners and bytes go through Beam.
"""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from run_builder import ROWS, build_run
from selection_builder import candidates, data_bytes, read_samples
from selection_builder import choose_in_one_group as choose
from threadpoolctl import threadpool_info, threadpool_limits

from cptsel.pipeline import io
from cptsel.pipeline import select as select_pass
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.errors import BadInputError, UsageError
from cptsel.pipeline.select import select
from cptsel.pipeline.selection.config import SelectConfig
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify

CASES = [
    (method, scope, budget, alpha)
    for method in ("uniform", "craig")
    for scope in ("shard", "global")
    for budget, alpha in (("15%", 1.0), ("40 samples", 0.5), ("1600 tokens", 0.0))
]


@pytest.mark.parametrize(("method", "scope", "budget", "alpha"), CASES)
def test_every_manifest_holds_what_it_promises(run, tmp_path, method, scope, budget, alpha):
    out = tmp_path / "replay"
    options = {"group_by": "language", "group_alpha": alpha, "replay_tokens": "2K"}
    options |= {"realisation": "repeat", "max_repeats": 3}
    summary = choose(run, out, method=method, scope=scope, budget=budget, **options)
    verify(VerifyConfig(directory=str(out)))
    header, rows, population = load_manifest(str(out)).header, read_samples(out), candidates(run)
    ids = rows["sample_id"].to_pylist()
    assert len(set(ids)) == len(ids) == summary.totals["selected samples"]
    assert [population[key][0] for key in ids] == rows["group"].to_pylist()
    assert [population[key][1] for key in ids] == rows["n_tokens"].to_pylist()
    assert set(rows["method"].to_pylist()) == {method}
    check_weights(header, rows, population, alpha)
    check_budget(header, rows, population, budget)
    check_repeats(header, rows, replay_tokens=2000, cap=3)
    probability = rows["inclusion_prob"].to_numpy()
    assert (probability == 1).all() if method == "craig" else ((probability > 0) & (probability <= 1)).all()
    assert rows["score"].null_count == (0 if method == "craig" else len(ids))


def test_the_driver_sums_on_one_thread(run, tmp_path, monkeypatch):
    """Sums of more than 10,000 picks, such as those of loss weights, hang on the number of threads of BLAS."""

    def threads():
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    def weigh(*arguments):
        seen.append(threads())
        return weigh_picks(*arguments)

    seen, weigh_picks = [], select_pass.weigh
    monkeypatch.setattr(select_pass, "weigh", weigh)
    with threadpool_limits(2, user_api="blas"):
        choose(run, tmp_path / "replay", method="uniform")
        assert threads() == {2}
    assert seen == [{1}]


def check_weights(header, rows, population, alpha):
    """Σ weight · n = T_g in every group, and T_g is what alpha makes of the masses."""
    mass = {}
    for group, _, sample_mass, *_ in population.values():
        mass[group] = mass.get(group, 0) + sample_mass
    total, powers = sum(mass.values()), {group: value**alpha for group, value in mass.items()}
    weight, n_tokens = rows["weight"].to_numpy(), rows["n_tokens"].to_numpy()
    groups = np.array(rows["group"].to_pylist())
    for entry in header["groups"]:
        target = total * powers[entry["group"]] / sum(powers.values())
        mine = groups == entry["group"]
        assert entry["target_mass"] == pytest.approx(target, rel=1e-9)
        assert weight[mine] @ n_tokens[mine] == pytest.approx(target, rel=1e-9)
    assert rows["loss_weight"].to_numpy() @ n_tokens == pytest.approx(n_tokens.sum(), rel=1e-9)


def check_budget(header, rows, population, budget):
    """Sample budgets to the last one; token budgets within one sample by group, and in all."""
    if not budget.endswith("tokens"):
        assert rows.num_rows == (int(0.15 * len(population)) if budget == "15%" else 40)
        assert sum(entry["budget"] for entry in header["groups"]) == rows.num_rows
        return
    longest = max(row[1] for row in population.values())
    for entry in header["groups"]:
        assert abs(entry["selected_tokens"] - entry["budget"]) <= longest
    assert sum(entry["budget"] for entry in header["groups"]) == 1600
    assert abs(header["totals"]["selected_tokens"] - 1600) <= longest


def check_repeats(header, rows, replay_tokens, cap):
    """repeat_j is within 1 of x_j = min(cap, c_g · w_j), with c_g found by bisection, and so is every running sum."""
    order = np.lexsort((np.array(rows["sample_id"].to_pylist()), np.array(rows["group"].to_pylist())))
    total = sum(entry["target_mass"] for entry in header["groups"])
    weight, n_tokens, repeat = (rows[name].to_numpy()[order] for name in ("weight", "n_tokens", "repeat"))
    groups = np.array(rows["group"].to_pylist())[order]
    for entry in header["groups"]:
        w, n, played = (values[groups == entry["group"]] for values in (weight, n_tokens, repeat))
        target = replay_tokens * entry["target_mass"] / total
        low, high = 0.0, cap / w.min()
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if np.minimum(cap, middle * w) @ n < target else (low, middle)
        x = np.minimum(cap, high * w)
        assert entry["shortfall"] == pytest.approx(max(0.0, target - cap * n.sum()), abs=1e-6)
        assert (np.abs(played - x) < 1 + 1e-6).all()
        assert (np.abs(np.cumsum(played) - np.cumsum(x)) < 1 + 1e-6).all()
        assert played.max() <= cap


@pytest.mark.parametrize("scope", ["shard", "global"])
@pytest.mark.parametrize("method", ["uniform", "craig"])
def test_bytes_do_not_depend_on_how_the_run_was_cut_into_blocks(run, tmp_path, method, scope):
    other = build_run(tmp_path / "other", rows=ROWS, pool=True, block_rows=1000)
    for source, out in ((run, "a"), (other, "b")):
        choose(source, tmp_path / out, method=method, scope=scope, group_by="language")
    assert data_bytes(tmp_path / "a") == data_bytes(tmp_path / "b")


def test_same_bytes_through_beam_with_one_and_two_processes(run, tmp_path):
    choose(run, tmp_path / "inline", method="craig", group_by="language")
    for workers in (1, 2):
        choose(run, tmp_path / str(workers), Steps, method="craig", group_by="language", workers=workers)
    files = [{**data_bytes(tmp_path / out), "m": (tmp_path / out / "manifest.json").read_bytes()} for out in ("1", "2")]
    assert files[0] == files[1]
    assert data_bytes(tmp_path / "inline") == data_bytes(tmp_path / "1")


def test_global_scope_through_beam(run, tmp_path):
    told = []
    for method in ("uniform", "craig"):
        config = SelectConfig(runs=(str(run),), out=str(tmp_path / method), method=method, scope="global", budget="15%")
        select(config, lambda *done: told.append(done))
        verify(VerifyConfig(directory=str(tmp_path / method)))
    last = {what: (done, total) for done, total, what in told}
    assert set(last) == {"statistics", "keys", "candidates", "merged", "assigned", "residuals"}
    assert all(done == total for done, total in last.values())


def test_an_error_in_a_worker_is_the_sentence_it_is(tmp_path):
    run = build_run(tmp_path / "run", rows=(20, 20))
    victim = run / "embeddings" / "000001-00000.parquet"
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(BadInputError, match=r"^[^\n]*000001-00000\.parquet: is not the file that was embedded[^\n]*$"):
        choose(run, tmp_path / "replay", method="uniform")
    assert not (tmp_path / "replay").exists()


def test_int8_runs(tmp_path):
    run = build_run(tmp_path / "run", rows=(50, 40), storage="int8")
    choose(run, tmp_path / "replay", method="craig")
    assert read_samples(tmp_path / "replay").num_rows == 13


def test_union_is_the_selection_from_one_run_of_both(tmp_path):
    first = build_run(tmp_path / "a", rows=(30, 20), prefix="a/")
    second = build_run(tmp_path / "b", rows=(40,), prefix="b/")
    config = SelectConfig(runs=(str(first), str(second)), out=str(tmp_path / "replay"), method="uniform", budget="20%")
    select(config)
    rows = read_samples(tmp_path / "replay")
    assert rows.num_rows == 18
    assert set(rows["shard_id"].to_pylist()) == {0, 1, 2}
    shards = pq.read_table(tmp_path / "replay" / "shards.parquet")
    assert shards["path"].to_pylist() == ["a/000.jsonl", "a/001.jsonl", "b/000.jsonl"]
    assert shards["population_samples"].to_pylist() == [30, 20, 40]
    assert len(load_manifest(str(tmp_path / "replay")).header["provenance"]["runs"]) == 2


def test_an_interrupt_leaves_what_overwrite_would_replace_as_it_was(run, tmp_path):
    choose(run, tmp_path / "replay", method="uniform")
    before = {path: path.read_bytes() for path in (tmp_path / "replay").rglob("*") if path.is_file()}

    class Interrupted(Steps):
        def run(self, what, function, tasks):
            io.write_bytes(io.join(self.work, what, "0"), b"")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose(run, tmp_path / "replay", Interrupted, method="uniform", budget="20%", overwrite=True)
    assert {path: path.read_bytes() for path in (tmp_path / "replay").rglob("*") if path.is_file()} == before


def test_groups(run, tmp_path):
    choose(run, tmp_path / "one", method="uniform")
    assert [entry["group"] for entry in load_manifest(str(tmp_path / "one")).header["groups"]] == ["all"]
    choose(run, tmp_path / "four", method="uniform", group_by="language")
    names = [entry["group"] for entry in load_manifest(str(tmp_path / "four")).header["groups"]]
    assert names == ["(none)", "de", "en", "uk"]  # a null has a name too


def test_replay_tokens_beyond_the_cap_are_a_warning(run, tmp_path):
    summary = choose(
        run, tmp_path / "replay", method="uniform", realisation="repeat", replay_tokens="1M", max_repeats=2
    )
    header = load_manifest(str(tmp_path / "replay")).header
    assert set(read_samples(tmp_path / "replay")["repeat"].to_pylist()) == {2}
    replay = header["weighting"]["replay_tokens"]
    assert replay["realised"] == 2 * header["totals"]["selected_tokens"]
    assert replay["realised"] + replay["shortfall"] == pytest.approx(1_000_000)
    assert any("cap of 2" in warning for warning in summary.warnings)


def test_uneven_weights_are_warned_of_where_they_are_realised(run, tmp_path):
    seen = set()
    for realisation in ("repeat", "none"):
        for budget in ("3 samples", "50%"):
            out = tmp_path / realisation / budget
            options = {"method": "craig", "budget": budget, "neighbours": 200, "similarity": "euclidean"}
            options |= {"group_by": None, "realisation": realisation}
            warned = any("tokens effective" in line for line in choose(run, out, **options).warnings)
            phase = load_manifest(str(out)).header["phases"][0]
            uneven = phase["effective_tokens"] < 0.5 * phase["tokens"]
            assert warned == (uneven and realisation == "repeat")
            seen.add(uneven)
    assert seen == {True, False}


def test_warnings_name_what_weakens_a_selection(tmp_path):
    run = build_run(tmp_path / "run", rows=(60, 3), languages=(None,))
    options = {"method": "craig", "scope": "shard"}
    few = choose(run, tmp_path / "few", budget="3 samples", neighbours=4, group_by="language", **options)
    assert any("--neighbours 4 is low" in warning and "26" in warning for warning in few.warnings)
    assert any("--group-by language: no sample has a value" in warning for warning in few.warnings)
    assert any("1 of 2 cells" in warning for warning in few.warnings)
    enough = choose(run, tmp_path / "enough", budget="21 samples", neighbours=60, **options)
    assert enough.warnings == []


def test_dry_run_writes_nothing(run, tmp_path):
    for method, scope in (("uniform", "global"), ("craig", "shard")):
        summary = choose(run, tmp_path / "replay", method=method, scope=scope, group_by="language", dry_run=True)
        assert summary.status == "dry-run"
        assert summary.totals["samples"] == sum(ROWS)
        assert sum(row[-1] for row in summary.tables[0].rows) == int(0.15 * sum(ROWS))
        assert not (tmp_path / "replay").exists()
    json.dumps(summary.as_dict())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "best"}, "--method best: must be one of uniform, full"),
        ({"scope": "world"}, "--scope world"),
        ({"similarity": "dot"}, "--similarity dot"),
        ({"neighbours": 0}, "--neighbours 0: must be at least 1"),
        ({"refine": -1}, "--refine -1"),
        ({"seed": -1}, "--seed -1: must be between 0 and 2147483647"),
        ({"seed": 2**31}, "--seed 2147483648"),
        ({"max_repeats": 0}, "--max-repeats 0: must be between 1 and 32767"),
        ({"group_alpha": float("nan")}, "--group-alpha nan"),
        ({"group_alpha": -1.0}, "--group-alpha -1.0"),
        ({"budget": "much"}, "--budget: 'much' is not a budget"),
        ({"replay_tokens": "5%"}, "--replay-tokens: '5%' is not a number of tokens"),
        ({"group_by": "domain"}, "--group-by domain: .* has no such group column; it has language"),
        ({"budget": "300 samples"}, "only 280 samples can be selected; 100% selects all"),
        ({"budget": "1 sample", "group_by": "language"}, r"group '\(none\)' gets no sample.*ask for more"),
        ({"budget": "20 tokens", "group_by": "language"}, "gets no sample"),
        ({"workers": 0}, "--workers 0"),
    ],
)
def test_what_is_refused_and_leaves_no_trace(run, tmp_path, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        choose(run, tmp_path / "replay", **options)
    assert not (tmp_path / "replay" / "manifest.json").exists()


def test_output_directories(run, tmp_path):
    out = tmp_path / "replay"
    choose(run, out, method="uniform")
    before = data_bytes(out)
    with pytest.raises(UsageError, match="pass --overwrite or another --out"):
        choose(run, out, method="uniform", seed=1)
    with pytest.raises(UsageError, match="only 280 samples can be selected"):  # an impossible budget costs no manifest
        choose(run, out, method="uniform", budget="999 samples", overwrite=True)
    assert data_bytes(out) == before
    load_manifest(str(out))
    choose(run, out, method="uniform", seed=1, overwrite=True)
    assert data_bytes(out) != before
    (out / "_SUCCESS").unlink()  # as a killed call leaves it: the same call begins anew
    choose(run, out, method="uniform")
    assert data_bytes(out) == before
    with pytest.raises(UsageError, match=r"did not write|was written by|is the input itself"):
        choose(run, run, method="uniform", overwrite=True)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="choose another --out"):
        choose(run, foreign, method="uniform", overwrite=True)
    assert (foreign / "thesis.tex").read_text() == "years of work"
