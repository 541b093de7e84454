"""Partitions by cluster: every sample goes to one, and enough is offered of each."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_builder import build_run, reseal_run
from selection_builder import choose, data_bytes

from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.kernels.budget import parse_budget
from cptsel.pipeline.selection.choose import chooser_of
from cptsel.pipeline.selection.families.base import Settings
from cptsel.pipeline.selection.plan import GroupMix, make_plan
from cptsel.pipeline.selection.reading.cells import CellReader, cell_statistics, read_cells
from cptsel.pipeline.selection.scopes.routing import read_routed, route_by_cluster
from cptsel.pipeline.selection.tuning import Tuning
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify


@pytest.mark.parametrize("method", ["craig", "gradmatch"])
def test_partitions_by_cluster(run, tmp_path, method):
    options = {"tuning": Tuning(training_rows=60)}
    options |= {"method": method, "scope": "global", "partition": "cluster", "partitions": 3}
    choose(run, tmp_path / "replay", **options)
    choose(run, tmp_path / "again", **options)
    verify(VerifyConfig(directory=str(tmp_path / "replay")))
    assert data_bytes(tmp_path / "replay") == data_bytes(tmp_path / "again")
    whole = choose(run, tmp_path / "whole", method=method, scope="global").totals
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


def test_every_sample_goes_to_one_partition_with_its_vectors(run, tmp_path):
    """What is read back of all partitions of a group is the group; counts that went ahead are those of the rows."""
    runs = open_runs([str(run)])
    reader = CellReader(runs.schema, "language")
    statistics = [cell for shard in runs.shards for cell in cell_statistics(shard, reader)]
    plan = make_plan(statistics, parse_budget("20%"), "--budget 20%", GroupMix())
    chooser = chooser_of("craig", Settings(plan.unit, seed=3, phase=0))
    parts = route_by_cluster(runs.shards, plan, reader, chooser, 3, InlineSteps(str(tmp_path / "work"), (), 1, None))
    whole = {}
    for shard in runs.shards:
        for cell in read_cells(shard, reader, "cover"):
            whole |= {name: (cell.group, vector) for name, vector in zip(cell.names, cell.vectors, strict=True)}
    seen = []
    for part in parts:
        cell = read_routed(part)
        assert len(cell) == part.share.samples == part.share.candidates
        assert cell.mass.sum() == pytest.approx(part.share.choice_mass)
        for name, vector in zip(cell.names, cell.vectors, strict=True):
            assert whole[name][0] == part.group
            np.testing.assert_array_equal(vector, whole[name][1])
        seen += cell.names
    assert sorted(seen) == sorted(whole)
    assert len(parts) > len(plan.groups)
