"""Every method of the table, in every scope, holds what a manifest promises; what residuals say is true."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from run_builder import ROWS, build_run, reseal_run
from selection_builder import choose, data_bytes, population, read_samples

from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.config import VerifyConfig
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.selection.methods import MATCH, METHODS
from cptsel.pipeline.selection.reading.cells import CellReader, read_cells
from cptsel.pipeline.selection.tuning import Tuning
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


CASES = [
    (method, scope)
    for method in METHODS
    for scope in ("shard", "global")
    if not (scope == "global" and METHODS[method].implies.get("unit") == "batch")
]


@pytest.mark.parametrize(("method", "scope"), CASES)
@pytest.mark.parametrize("budget", ["20%", "2400 tokens"])
def test_every_method_keeps_what_a_manifest_promises(run, later, tmp_path, method, scope, budget):
    if method == "full" and budget != "20%":
        pytest.skip("full has no budget")
    out = tmp_path / "replay"
    options = {"budget": budget, **NEEDS.get(method, {})}
    choose(runs_of(method, run, later), out, method=method, scope=scope, **options)
    verify(VerifyConfig(replay=str(out)))  # weights of every group and phase, repeats, ranks, counts
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


@pytest.mark.parametrize("alpha", [1.0, 0.0])
def test_residuals_are_those_of_all_vectors(run, tmp_path, alpha):
    choose(run, tmp_path / "replay", method="gradmatch", group_alpha=alpha)
    header, rows, everything = load_manifest(str(tmp_path / "replay")).header, read_samples(tmp_path / "replay"), None
    everything = population(run)
    weight = dict(zip(rows["sample_id"].to_pylist(), rows["weight"].to_pylist(), strict=True))
    w = np.array([weight.get(name, 0.0) for name in everything["id"]])
    target_mass = {group["group"]: group["target_mass"] for group in header["groups"]}
    mass = {name: everything["mass"][everything["group"] == name].sum() for name in target_mass}
    a = everything["mass"] / everything["n_tokens"]
    a = a * np.array([target_mass[name] / mass[name] for name in everything["group"]])
    for key, x in (("residual", everything["g"]), ("validation_residual", everything["v"])):
        expected = np.linalg.norm(a @ x - w @ x) / np.linalg.norm(a @ x)
        assert header["phases"][0][key] == pytest.approx(expected, rel=1e-5)
    assert header["phases"][0]["target_norm"] == pytest.approx(np.linalg.norm(a @ everything["g"]), rel=1e-5)


def test_the_residual_of_random_picks_is_their_mean(run, tmp_path):
    """Root mean square over many uniform choices of as many samples of each group, each standing for n/m rows."""
    choose(run, tmp_path / "replay", method="uniform", budget="20%")
    header, everything = load_manifest(str(tmp_path / "replay")).header, population(run)
    a = everything["mass"] / everything["n_tokens"]
    rows = a[:, None] * everything["g"]
    target, rng, squares = rows.sum(axis=0), np.random.default_rng(0), []
    for _ in range(2000):
        total = np.zeros(rows.shape[1])
        for group in header["groups"]:
            mine, m = np.flatnonzero(everything["group"] == group["group"]), group["selected_samples"]
            total += rows[rng.choice(mine, m, replace=False)].sum(axis=0) * (len(mine) / m)
        squares.append(((target - total) ** 2).sum())
    expected = np.sqrt(np.mean(squares)) / np.linalg.norm(target)
    assert header["phases"][0]["random_residual"] == pytest.approx(expected, rel=0.05)


def test_matching_beats_random_picks_on_what_it_never_saw(run, tmp_path):
    figures = {}
    for method in ("uniform", "gradmatch"):
        choose(run, tmp_path / method, method=method, scope="global")
        figures[method] = load_manifest(str(tmp_path / method)).header["phases"][0]
    assert figures["gradmatch"]["validation_residual"] < 0.5 * figures["uniform"]["validation_residual"]
    assert figures["gradmatch"]["validation_residual"] < 0.5 * figures["gradmatch"]["random_validation_residual"]


@pytest.mark.parametrize("method", ["gradmatch", "gradient-coreset"])
def test_tolerance_is_of_the_gradient(run, tmp_path, method):
    """A cell whose picks stop short of its budget misses at most that share of its own gradient."""
    options = {"method": method, "budget": "90%", "tolerance": 0.2, "group_by": None}
    choose(run, tmp_path / "replay", **options)
    (group,) = load_manifest(str(tmp_path / "replay")).header["groups"]
    assert group["selected_samples"] < group["budget"]
    assert group["method_residual"] <= 0.2 + 1e-6


def test_everything_has_no_residual(run, tmp_path):
    choose(run, tmp_path / "replay", method="full", budget="100%")
    assert load_manifest(str(tmp_path / "replay")).header["phases"][0]["residual"] < 1e-6
    choose(run, tmp_path / "skipped", method="full", budget="100%", skip_residuals=True)
    assert "residual" not in load_manifest(str(tmp_path / "skipped")).header["phases"][0]


def test_batches_stay_together(run, tmp_path):
    with pytest.raises(UsageError, match="too little for a whole batch of up to 90"):
        choose(run, tmp_path / "replay", method="gradmatch-batch", batch_size=90, group_by=None, budget="1%")
    choose(run, tmp_path / "replay", method="gradmatch-batch", batch_size=4, budget="50%", overwrite=True)
    rows, everything = read_samples(tmp_path / "replay"), population(run)
    runs = open_runs([str(run)])
    chosen, weight = (
        set(rows["sample_id"].to_pylist()),
        dict(zip(*(rows[c].to_pylist() for c in ("sample_id", "weight")), strict=True)),
    )
    assert len(everything["id"]) == sum(ROWS)
    batches = 0
    for shard in runs.shards:
        for cell in read_cells(shard, CellReader(runs.schema, "language")):
            place = list(zip(*(cell.rows[c].to_pylist() for c in ("row_index", "window", "sample_id")), strict=True))
            names = [name for *_, name in sorted(place)]
            for start in range(0, len(names), 4):
                batch = names[start : start + 4]
                assert len(chosen & set(batch)) in (0, len(batch)), "a batch was torn"
                if batch[0] in chosen:
                    batches += 1
                    assert [weight[name] for name in batch] == pytest.approx([weight[batch[0]]] * len(batch))
    assert batches > 3


@pytest.mark.parametrize("method", ["craig", "gradmatch"])
def test_partitions_by_cluster(run, tmp_path, method):
    options = {"tuning": Tuning(training_rows=60)}
    options |= {"method": method, "scope": "global", "partition": "cluster", "partitions": 3}
    choose(run, tmp_path / "replay", **options)
    choose(run, tmp_path / "again", **options)
    verify(VerifyConfig(replay=str(tmp_path / "replay")))
    assert data_bytes(tmp_path / "replay") == data_bytes(tmp_path / "again")
    whole = choose(run, tmp_path / "whole", method=method, scope="global")["totals"]
    parts = load_manifest(str(tmp_path / "replay")).header
    assert parts["totals"]["selected_samples"] == pytest.approx(whole["selected samples"], abs=3)
    if method == "craig":
        assert parts["selection"]["report"]["mean_distance"] <= 1.1 * whole["mean distance"]


@pytest.mark.parametrize("method", ["craig", "kmedoids"])
def test_partitions_of_little_mass_offer_enough(tmp_path, method):
    """Most samples of a partition may be short: its share of the mass is then less than its share of the samples."""
    run = build_run(tmp_path / "run", rows=(600, 600))
    for path in (run / "embeddings").iterdir():
        table = pq.read_table(path)
        place = table.schema.get_field_index("n_tokens")
        heap = np.asarray(table["direction"].combine_chunks().flatten()).reshape(table.num_rows, -1)[:, 0] > 0
        values = pa.array(np.where(heap, 1, 200).astype(np.int32))
        pq.write_table(table.set_column(place, table.schema.field(place), values), path)
    reseal_run(run)
    options = {"scope": "global", "partition": "cluster", "partitions": 6, "group_by": None, "budget": "90%"}
    choose(run, tmp_path / "replay", method=method, **options)
    assert load_manifest(str(tmp_path / "replay")).header["totals"]["selected_samples"] == 1080


@pytest.mark.parametrize("method", ["uniform", "craig", "gradmatch", "gradient-coreset"])
@pytest.mark.parametrize("rows", [(1,), (2, 1)])
def test_tiny_runs(tmp_path, method, rows):
    run = build_run(tmp_path / "run", rows=rows)
    choose(run, tmp_path / "replay", method=method, budget="100%", group_by=None)
    verify(VerifyConfig(replay=str(tmp_path / "replay")))
    assert load_manifest(str(tmp_path / "replay")).header["totals"]["selected_samples"] == sum(rows)


def test_an_unknown_method_is_refused_by_name(run, tmp_path):
    with pytest.raises(UsageError, match="--method best: must be one of uniform"):
        choose(run, tmp_path / "replay", method="best")
