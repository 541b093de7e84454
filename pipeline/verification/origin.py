"""Checks of a manifest against the embedding runs it was selected from: every sample is a row of theirs."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline.artifacts.embeddings import read_rows
from cptsel.pipeline.artifacts.manifest import ALL, MANIFEST, NO_GROUP, SHARDS, Manifest
from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.artifacts.run import EmbeddingRuns, RunShard
from cptsel.pipeline.engine.progress import Progress
from cptsel.schemas.arrow import LOCATOR_COLUMNS

_COMPARED = [*LOCATOR_COLUMNS, "grad_norm"]
_OF_SHARDS = ("path", "format", "compression", "bytes", "sha256", "rows", "companion_bytes", "companion_sha256")


def check_origin(manifest: Manifest, runs: EmbeddingRuns, problems: Problems, progress: Progress | None) -> str:
    """Hold shards and samples against the runs. Returns what was looked at.

    Args:
        manifest: whose files are as they were written.
        runs: in the order in which ``select`` was given them; those of later phases may be left out.
        problems: takes what is wrong.
        progress: told how far it is.
    """
    known = {entry.get("run_id") for entry in manifest.header["provenance"]["runs"]}
    for directory, header in zip(runs.directories, runs.headers, strict=True):
        if header.get("run_id") not in known:
            problems.add(MANIFEST, None, f"was not selected from {directory}: its run_id is not among provenance.runs")
    _check_shards(manifest, runs, problems)
    if problems.total:
        return "stopped"
    files, samples = manifest.sample_files(), 0
    group_by = manifest.header["selection"]["options"].get("group_by")
    for done, (shard_id, name) in enumerate(files.items(), 1):
        table = manifest.table(name)
        samples += table.num_rows
        _check_samples(name, table, runs.shards[shard_id], runs, group_by, problems)
        if progress:
            progress(done, len(files), "shards held against their run")
    return f"{samples:,} samples, {len(runs.shards):,} shards"


def _check_shards(manifest: Manifest, runs: EmbeddingRuns, problems: Problems) -> None:
    rows = manifest.shards().to_pylist()
    if len(rows) != len(runs.shards):
        what = f"lists {len(rows):,} shards, but the runs have {len(runs.shards):,}; give all runs, in their order"
        problems.add(SHARDS, None, what)
        return
    for number, (row, shard) in enumerate(zip(rows, runs.shards, strict=True)):
        for name in _OF_SHARDS:
            if row.get(name) != shard.source.get(name):
                what = f"{name} is {row.get(name)!r}, but the run has {shard.source.get(name)!r}"
                problems.add(SHARDS, number, what)


def _check_samples(
    name: str, table: pa.Table, shard: RunShard, runs: EmbeddingRuns, group_by: str | None, problems: Problems
) -> None:
    """Every row is one of the shard's, in all columns that a manifest takes over."""
    source = read_rows(shard, runs.schema, [*_COMPARED, *([group_by] if group_by else [])])
    place = pc.index_in(table["sample_id"], value_set=source["sample_id"].combine_chunks())
    strange = place.is_null().to_numpy()
    problems.add_rows(name, strange, "its sample_id is none of the run's")
    if strange.any():
        return
    mine = source.take(place)
    groups = mine[group_by].fill_null(NO_GROUP) if group_by else pa.array([ALL] * len(mine))
    pairs = [(column, table[column], mine[column]) for column in _COMPARED]
    pairs.append(("group", pc.cast(table["group"], pa.string()), groups))
    for column, said, found in pairs:
        wrong = np.array([a != b for a, b in zip(said.to_pylist(), found.to_pylist(), strict=True)], bool)
        problems.add_rows(name, wrong, f"{column} is not that of the run")
