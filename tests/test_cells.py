"""Cells: every sample in one of them, statistics that are those of their rows, batches that stay together."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from run_builder import ROWS
from selection_builder import choose, population, read_samples

from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.selection.reading.cells import CellReader, cell_statistics, read_cells
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify


@pytest.mark.parametrize("scope", ["shard", "global"])
@pytest.mark.parametrize("method", ["uniform", "craig", "gradmatch-batch"])
def test_batches_stay_together(run, tmp_path, method, scope):
    options = {"method": method, "scope": scope, "unit": "batch"}
    with pytest.raises(UsageError, match="too little for a whole batch of up to 90"):
        choose(run, tmp_path / "replay", batch_size=90, group_by=None, budget="1%", **options)
    choose(run, tmp_path / "replay", batch_size=4, budget="50%", overwrite=True, **options)
    verify(VerifyConfig(directory=str(tmp_path / "replay")))
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


def test_every_sample_is_in_the_cell_of_its_shard_and_group(run):
    runs, seen = open_runs([str(run)]), []
    for shard in runs.shards:
        names = []
        for cell in read_cells(shard, CellReader(runs.schema, "language"), "cover"):
            assert cell.names == sorted(cell.names)
            assert set(cell.rows["group"].to_pylist()) == {cell.group}
            assert set(cell.rows["shard_id"].to_pylist()) == {shard.shard_id}
            assert len(cell) == len(cell.vectors) == len(cell.mass)
            names.append(cell.group)
            seen += cell.names
        assert names == sorted(names)
    assert len(seen) == len(set(seen)) == sum(ROWS)


def test_statistics_are_those_of_the_rows(run, tmp_path):
    """Of whole groups, against sums over the files themselves."""
    runs = open_runs([str(run)])
    found = [cell for shard in runs.shards for cell in cell_statistics(shard, CellReader(runs.schema, "language"))]
    rows = pa.concat_tables(pq.read_table(path) for path in sorted((run / "embeddings").iterdir()))
    language = [name or "(none)" for name in pc.cast(rows["language"], pa.string()).to_pylist()]
    n_tokens, pool_prob, norm = (rows[name].to_numpy() for name in ("n_tokens", "pool_prob", "grad_norm"))
    for group in sorted(set(language)):
        mine = np.array([name == group for name in language])
        cells = [cell for cell in found if cell["group"] == group]
        assert sum(cell["samples"] for cell in cells) == sum(cell["candidates"] for cell in cells) == mine.sum()
        assert sum(cell["tokens"] for cell in cells) == n_tokens[mine].sum()
        assert sum(cell["mass"] for cell in cells) == pytest.approx((n_tokens / pool_prob)[mine].sum())
        assert sum(cell["choice_norm"] for cell in cells) == pytest.approx((norm / pool_prob)[mine].sum(), rel=1e-5)
        assert max(cell["longest"]["tokens"] for cell in cells) == n_tokens[mine].max()
        assert {cell["longest"]["samples"] for cell in cells} == {1}
        assert not any(cell["played"] for cell in cells)


def test_vectors_for_coverage_are_means_and_those_for_matching_sums(run):
    runs = open_runs([str(run)])
    for shard in runs.shards:
        reader = CellReader(runs.schema, "language")
        for mean, whole in zip(read_cells(shard, reader, "cover"), read_cells(shard, reader, "match"), strict=True):
            np.testing.assert_allclose(mean.vectors * mean.n_tokens[:, None], whole.vectors, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(whole.targets[0], whole.weights @ whole.vectors.astype(np.float64), rtol=1e-6)
