"""Checks of a manifest against the embedding runs it was selected from: every sample is a row of theirs."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline.artifacts.embeddings import read_rows
from cptsel.pipeline.artifacts.manifest import ALL, NO_GROUP, SHARDS, Manifest
from cptsel.pipeline.artifacts.origin import Origin
from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.artifacts.run import EmbeddingRuns
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.summary import counted
from cptsel.schemas.arrow import LOCATOR_COLUMNS

_COMPARED = [*LOCATOR_COLUMNS, "grad_norm"]
_OF_SHARDS = ("path", "format", "compression", "bytes", "sha256", "rows", "companion_bytes", "companion_sha256")


def check_origin(manifest: Manifest, origins: Sequence[Origin], problems: Problems, progress: Progress | None) -> str:
    """Hold shards and samples against the runs. Returns what was looked at.

    Gradient norms are those of the first run of a phase. Where it is not among the runs, as other checkpoints of the
    same samples may be named, all other columns are compared.

    Args:
        manifest: whose files are as they were written.
        origins: of ``open_origins``; one at least.
        problems: takes what is wrong.
        progress: told how far it is.
    """
    for origin in origins:
        _check_shards(manifest, origin.runs, problems)
    if problems.total:
        return "stopped"
    files, samples, without_norms = manifest.sample_files(), 0, 0
    group_by = manifest.header["selection"]["options"].get("group_by")
    of_phase = {phase: origin for origin in origins for phase in origin.phases}
    for done, (shard_id, name) in enumerate(files.items(), 1):
        table = manifest.table(name)
        samples += table.num_rows
        phases = table["phase"].to_numpy()
        for phase in np.unique(phases).tolist():
            origin, rows = of_phase.get(phase, origins[0]), np.flatnonzero(phases == phase)
            has_norms = origin.has_first and phase in origin.phases
            without_norms += 0 if has_norms else len(rows)
            columns = _COMPARED if has_norms else LOCATOR_COLUMNS
            _check_samples(name, table, rows, origin.runs, shard_id, columns, group_by, problems)
        if progress:
            progress(done, len(files), "shards held against their run")
    said = f"{counted(samples, 'sample')}, {counted(origins[0].runs.files, 'shard')}"
    return said + (f"; gradient norms of {without_norms:,} are another run's" if without_norms else "")


def _check_shards(manifest: Manifest, runs: EmbeddingRuns, problems: Problems) -> None:
    rows = manifest.shards().to_pylist()
    if len(rows) != len(runs.shards):
        what = f"has {counted(len(rows), 'row')}, but the runs have {counted(len(runs.shards), 'shard')}"
        problems.add(SHARDS, None, what)
        return
    for number, (row, shard) in enumerate(zip(rows, runs.shards, strict=True)):
        for name in _OF_SHARDS:
            if row.get(name) != shard.source.get(name):
                what = f"{name} is {row.get(name)!r}, but the run has {shard.source.get(name)!r}"
                problems.add(SHARDS, number, what)


def _check_samples(
    name: str,
    table: pa.Table,
    rows: np.ndarray,
    runs: EmbeddingRuns,
    shard_id: int,
    columns: Sequence[str],
    group_by: str | None,
    problems: Problems,
) -> None:
    """Rows (m,) of a samples file are those of the shard, in all columns that a manifest takes over."""
    source = read_rows(runs.shards[shard_id], runs.schema, [*columns, *([group_by] if group_by else [])])
    said = table.take(pa.array(rows))
    place = pc.index_in(said["sample_id"], value_set=source["sample_id"].combine_chunks())
    strange = place.is_null().to_numpy()
    problems.add_rows(name, _among(table, rows[strange]), "its sample_id is none of the run's")
    if strange.any():
        return
    mine = source.take(place)
    groups = mine[group_by].fill_null(NO_GROUP) if group_by else pa.array([ALL] * len(mine))
    pairs = [(column, said[column], mine[column]) for column in columns]
    pairs.append(("group", pc.cast(said["group"], pa.string()), groups))
    for column, written, found in pairs:
        wrong = np.array([a != b for a, b in zip(written.to_pylist(), found.to_pylist(), strict=True)], bool)
        problems.add_rows(name, _among(table, rows[wrong]), f"{column} is not that of the run")


def _among(table: pa.Table, rows: np.ndarray) -> np.ndarray:
    """(n,) bool, which rows of a table are among some."""
    return np.isin(np.arange(table.num_rows), rows)
