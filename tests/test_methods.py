"""Every method of the table, in every scope, holds what a manifest promises; what residuals say is true."""

import numpy as np
import pyarrow.compute as pc
import pytest
from run_builder import ROWS, build_run
from selection_builder import choose, data_bytes, read_samples

from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.selection.methods import MATCH, METHODS
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify

NEEDS = {
    "temperature": {"group_alpha": 0.5},
    "interference": {"combine": "difference"},
    "full": {"budget": "100%"},
    "mix-review": {"phases": 2, "mix_decay": 0.5},
    "gradmatch-batch": {"batch_size": 3},
}


def runs_of(method, run, later):
    return (run, later) if method == "interference" else run


CASES = [(method, scope) for method in METHODS for scope in ("shard", "global")]


@pytest.mark.parametrize(("method", "scope"), CASES)
@pytest.mark.parametrize("budget", ["20%", "2400 tokens"])
def test_every_method_keeps_what_a_manifest_promises(run, later, tmp_path, method, scope, budget):
    if method == "full" and budget != "20%":
        pytest.skip("full has no budget")
    out = tmp_path / "replay"
    options = {"budget": budget, **NEEDS.get(method, {})}
    choose(runs_of(method, run, later), out, method=method, scope=scope, **options)
    verify(VerifyConfig(directory=str(out)))  # weights of every group and phase, repeats, ranks, counts
    header, rows = load_manifest(str(out)).header, read_samples(out)
    assert set(rows["method"].to_pylist()) == {method}
    unit = header["selection"]["budget"]["unit"]
    for phase in header["phases"]:
        groups = [group for group in header["groups"] if group["phase"] == phase["phase"]]
        off = [group[f"selected_{unit}"] - group["budget"] for group in groups]
        batch = 8 if header["selection"]["options"]["unit"] == "batch" else 1
        if unit == "samples" and batch == 1:
            assert all(o <= 0 for o in off) if METHODS[method].family is MATCH else not any(off)
        else:  # within a sample, or a batch, by group and in all
            longest = batch * (1 if unit == "samples" else pc.max(rows["n_tokens"]).as_py())
            assert max(map(abs, off)) <= longest
            assert abs(sum(off)) <= longest
    assert all(
        np.isfinite(phase["residual"]) and np.isfinite(phase["validation_residual"]) for phase in header["phases"]
    )


@pytest.mark.parametrize(("method", "scope"), [case for case in CASES if case[0] not in ("mix-review", "temperature")])
def test_bytes_do_not_depend_on_blocks(run, later, tmp_path, method, scope):
    other = build_run(tmp_path / "other", rows=ROWS, pool=True, block_rows=1000)
    for source, out in ((run, "a"), (other, "b")):
        choose(runs_of(method, source, later), tmp_path / out, method=method, scope=scope, **NEEDS.get(method, {}))
    assert data_bytes(tmp_path / "a") == data_bytes(tmp_path / "b")


def test_matching_through_beam_is_what_it_is_inline(run, tmp_path):
    for scope, partition in (("shard", "shard"), ("global", "shard"), ("global", "cluster")):
        options = {"method": "gradmatch", "scope": scope, "partition": partition}
        inline, beam = (tmp_path / f"{where}-{scope}-{partition}" for where in ("inline", "beam"))
        choose(run, inline, **options)
        choose(run, beam, Steps, workers=2, **options)
        assert data_bytes(inline) == data_bytes(beam)


@pytest.mark.parametrize("method", ["uniform", "craig", "gradmatch", "gradient-coreset"])
@pytest.mark.parametrize("rows", [(1,), (2, 1)])
def test_tiny_runs(tmp_path, method, rows):
    run = build_run(tmp_path / "run", rows=rows)
    choose(run, tmp_path / "replay", method=method, budget="100%", group_by=None)
    verify(VerifyConfig(directory=str(tmp_path / "replay")))
    assert load_manifest(str(tmp_path / "replay")).header["totals"]["selected_samples"] == sum(rows)


def test_an_unknown_method_is_refused_by_name(run, tmp_path):
    with pytest.raises(UsageError, match="--method best: must be one of uniform"):
        choose(run, tmp_path / "replay", method="best")
