"""Interference: what a new domain raises the loss of counts for more, by sample and by group."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_builder import ROWS, build_run, reseal_run
from selection_builder import choose, header_of, ids, losses, population, read_samples

from cptsel.pipeline.artifacts.run import open_checkpoints
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.selection.reading.cells import CellReader, read_cells
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify


@pytest.mark.parametrize("method", ["interference", "craig", "gradmatch"])
def test_what_the_new_domain_leaves_alone_counts_for_nothing(run, later, tmp_path, method):
    choose((run, later), tmp_path / "replay", method=method, combine="difference", mass="interference", group_by=None)
    verify(VerifyConfig(directory=str(tmp_path / "replay")))
    before, after = losses(run), losses(later)
    if method != "craig":  # of coverage such a sample may be the pick that others lie near to
        assert all(after[name] > before[name] for name in ids(tmp_path / "replay"))


@pytest.mark.parametrize("scope", ["shard", "global"])
def test_coverage_picks_nothing_that_counts_for_nothing(run, later, tmp_path, scope):
    """Also where the budget asks for more than the samples whose loss rises."""
    options = {"method": "craig", "combine": "difference", "mass": "interference", "budget": "90%", "scope": scope}
    choose((run, later), tmp_path / "replay", group_by=None, **options)
    rows = read_samples(tmp_path / "replay")
    rises = sum(cell.mass[cell.mass > 0].size for cell in rising_cells(run, later))
    assert 0 < rows.num_rows <= rises < 0.9 * sum(ROWS)
    assert min(rows["weight"].to_pylist()) > 0
    verify(VerifyConfig(directory=str(tmp_path / "replay")))


@pytest.mark.parametrize(
    ("options", "alpha"),
    [
        ({"method": "craig"}, 0.5),
        ({"method": "kmedoids"}, 0.5),
        ({"method": "craig", "group_alpha": 1.0}, 1.0),
        ({"method": "craig", "mass": "corpus"}, 1.0),
        ({"method": "craig", "group_by": None}, 1.0),
        ({"method": "craig", "group_mass": "interference"}, 1.0),
        ({"method": "uniform"}, 1.0),
    ],
)
def test_coverage_of_what_is_forgotten_shares_by_the_root(run, later, tmp_path, options, alpha):
    common = {"combine": "difference", "mass": "interference", "group_by": "language"}
    options = {**common, **options}
    planned = choose((run, later), tmp_path / "replay", **options, dry_run=True)
    done = choose((run, later), tmp_path / "replay", **options)
    told = (options["mass"], alpha if alpha != 1 else None)
    assert (planned.mass, planned.exponent_of_group_shares) == (done.mass, done.exponent_of_group_shares)
    assert (done.mass or "corpus", done.exponent_of_group_shares) == told
    header = header_of(tmp_path / "replay")
    assert header["selection"]["options"]["group_alpha"] == alpha
    if "group_mass" not in options:
        masses = np.array([group["population_mass"] for group in header["groups"]])
        found = np.array([group["target_mass"] for group in header["groups"]])
        assert found == pytest.approx(masses.sum() * masses**alpha / (masses**alpha).sum())


def rising_cells(run, later):
    runs = open_checkpoints([str(run), str(later)])
    reader = CellReader(runs.schema, combine="difference", rise=True, beta=1.0)
    return [cell for shard in runs.shards for cell in read_cells(shard, reader)]


def test_interference_to_first_order(run, tmp_path):
    new = build_run(tmp_path / "new", rows=(30,), prefix="new/", seed=0)
    choose(run, tmp_path / "replay", method="interference", new=str(new), group_by=None, budget="30 samples")
    mine, its = population(run, group_by=None), population(new)
    mean = its["g"].sum(axis=0) / its["n_tokens"].sum()
    rise = dict(zip(mine["id"], -(mine["g"] @ mean) / mine["n_tokens"], strict=True))
    assert all(rise[name] > 0 for name in ids(tmp_path / "replay"))


def test_groups_by_how_much_they_suffer(run, later, tmp_path):
    choose((run, later), tmp_path / "replay", method="uniform", combine="difference", group_mass="interference")
    before, after, everything = losses(run), losses(later), population(run)
    header = header_of(tmp_path / "replay")
    mass, rise = {}, {}
    for name, group, m in zip(everything["id"], everything["group"], everything["mass"], strict=True):
        mass[group] = mass.get(group, 0.0) + m
        rise[group] = rise.get(group, 0.0) + m * (after[name] - before[name])
    wanted = {group: max(0.0, rise[group]) for group in mass}  # mass · mean rise
    total = sum(wanted.values())
    for group in header["groups"]:
        expected = sum(mass.values()) * wanted[group["group"]] / total
        assert group["target_mass"] == pytest.approx(expected, rel=1e-4)


def test_groups_suffer_alike_by_samples_and_by_batches(run, later, tmp_path):
    for unit in ("sample", "batch"):
        options = {"combine": "difference", "group_mass": "interference", "unit": unit, "budget": "60%"}
        choose((run, later), tmp_path / unit, method="uniform", **options)
    targets = [[g["target_mass"] for g in header_of(tmp_path / unit)["groups"]] for unit in ("sample", "batch")]
    assert targets[0] == pytest.approx(targets[1], rel=1e-9)


def test_no_loss_that_rises(run, tmp_path):
    falling = build_run(tmp_path / "falling", rows=ROWS, pool=True, drift=1e-9)  # losses as good as equal
    for path in (falling / "embeddings").iterdir():
        table = pq.read_table(path)
        place = table.schema.get_field_index("loss_sum")
        values = pa.array(np.full(table.num_rows, 0.5), pa.float32())
        pq.write_table(table.set_column(place, table.schema.field(place), values), path)
    reseal_run(falling)
    with pytest.raises(UsageError, match="no loss that rises along the new domain"):
        choose((run, falling), tmp_path / "a", method="interference", combine="difference")
    with pytest.raises(UsageError, match="--group-mass interference: no group's loss rises"):
        choose((run, falling), tmp_path / "b", method="uniform", combine="difference", group_mass="interference")
