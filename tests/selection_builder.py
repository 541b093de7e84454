"""Selections from the small runs of ``run_builder``, made in this process, and what they chose from."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.select import select
from cptsel.pipeline.selection.config import SelectConfig
from cptsel.pipeline.selection.reading.cells import CellReader, read_cells
from cptsel.pipeline.selection.tuning import DEFAULT


def choose(runs, out, make_steps=InlineSteps, tuning=DEFAULT, **options):
    """Select 20 % by language, unless ``options`` say otherwise; returns the summary."""
    paths = tuple(str(path) for path in (runs if isinstance(runs, tuple) else (runs,)))
    config = SelectConfig(runs=paths, out=str(out), **{"budget": "20%", "group_by": "language", **options})
    return select(config, make_steps=make_steps, tuning=tuning)


def choose_in_one_group(runs, out, make_steps=InlineSteps, **options):
    """Select 15 % of all, unless ``options`` say otherwise; returns the summary."""
    return choose(runs, out, make_steps, **{"budget": "15%", "group_by": None, **options})


def read_samples(out) -> pa.Table:
    manifest = load_manifest(str(out))
    tables = []
    for name in manifest.sample_files().values():
        table = io.read_parquet(manifest.path(name))
        plain = [pa.string() if pa.types.is_dictionary(f.type) else f.type for f in table.schema]
        tables.append(table.cast(pa.schema([pa.field(f.name, t) for f, t in zip(table.schema, plain, strict=True)])))
    return pa.concat_tables(tables)


def population(run, **options):
    """All atoms of a run: names, groups, and columns in one order, with vectors for matching."""
    runs = open_runs([str(run)])
    reader = CellReader(runs.schema, **{"group_by": "language", **options})
    cells = [cell for shard in runs.shards for cell in read_cells(shard, reader, "match", validation=True)]
    return {
        "id": np.concatenate([cell.names for cell in cells]),
        "group": np.concatenate([[cell.group] * len(cell) for cell in cells]),
        "g": np.concatenate([cell.vectors for cell in cells]).astype(np.float64),
        "v": np.concatenate([cell.validation for cell in cells]).astype(np.float64),
        **{name: np.concatenate([cell.columns[name] for cell in cells]) for name in ("mass", "n_tokens")},
    }


def data_bytes(out) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(Path(out).rglob("*.parquet"))}


def ids(out, phase=0) -> set[str]:
    """The sample_ids of a phase."""
    rows = read_samples(out)
    return set(rows.filter(pc.equal(rows["phase"], phase))["sample_id"].to_pylist())


def header_of(out):
    """``manifest.json``."""
    return load_manifest(str(out)).header


def losses(run):
    """Loss a token of every sample, by sample_id."""
    runs = open_runs([str(run)])
    cells = [cell for shard in runs.shards for cell in read_cells(shard, CellReader(runs.schema))]
    return {
        name: float(loss)
        for cell in cells
        for name, loss in zip(cell.names, cell.columns["loss_sum"] / cell.columns["n_tokens"], strict=True)
    }


def candidates(run, group_by="language", similarity="euclidean"):
    """All samples of a run by sample_id: (group, n_tokens, mass, pool_prob, vector, shard)."""
    runs = open_runs([str(run)])
    reader = CellReader(runs.schema, group_by, similarity)
    found = {}
    for shard in runs.shards:
        for cell in read_cells(shard, reader, "cover"):
            values = (cell.n_tokens.tolist(), cell.mass.tolist(), cell.columns["pool_prob"].tolist(), cell.vectors)
            for sample, *row in zip(cell.names, *values, strict=True):
                found[sample] = (cell.group, *row, shard.shard_id)
    return found
