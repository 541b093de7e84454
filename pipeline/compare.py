"""``cptsel compare``: selections side by side, by what their manifests say and by the samples they share."""

from collections.abc import Sequence
from itertools import combinations, permutations
from typing import Any

from cptsel.pipeline.artifacts.manifest import Manifest, load_manifest
from cptsel.pipeline.artifacts.origin import open_origin_of_any
from cptsel.pipeline.artifacts.run import EmbeddingRuns
from cptsel.pipeline.config import check_read, check_values
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.engine.threads import one_blas_thread
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.lookup.apart import Far, apart, picks_of, rows_of_far
from cptsel.pipeline.lookup.config import CompareConfig
from cptsel.pipeline.lookup.texts import glance, texts_at_hand
from cptsel.pipeline.reporting.overlap import (
    check_alike,
    groups_table,
    overlap_table,
    overlaps_of,
    phase_of,
    population_warnings,
    selections_table,
    short_names,
    target_warnings,
    tokens_table,
)
from cptsel.pipeline.results import CompareResult
from cptsel.pipeline.summary import Table


@one_blas_thread()
def compare(config: CompareConfig, progress: Progress | None = None) -> CompareResult:
    """Lay selections from one corpus side by side.

    Returns:
        The figures: those of each, overlap of each pair, the mix of groups, and tokens by group; with runs also how
        far the picks of each are from those of the others.

    Raises:
        UsageError: fewer than two manifests, one is none, they are not of one corpus, which may have grown, or have no
            such phase; runs are not those of one of them, or do not hold all picks.
        BadInputError: a file of a run is not the one that was embedded.
        VerificationError: a file of a manifest is not what its checksum says.
    """
    check_values(config)
    check_read(config)
    if len(config.replays) < 2:
        raise UsageError("compare takes two manifests or more; name another REPLAY")
    manifests = [load_manifest(path) for path in config.replays]
    for first, other in combinations(manifests, 2):
        check_alike(first, other, grown=True)
    phases = [phase_of(manifest, config.phase) for manifest in manifests]
    runs = open_origin_of_any(manifests, config.run, config.phase)[1] if config.run else None
    names = short_names([manifest.directory for manifest in manifests])
    pairs = list(combinations(range(len(manifests)), 2))
    overlaps = overlaps_of(manifests, config.phase, pairs, progress)
    tables = [
        selections_table(names, manifests, phases),
        overlap_table(names, manifests, phases, pairs, overlaps),
        groups_table(names, manifests, config.phase),
        tokens_table(names, manifests, phases),
    ]
    warnings = population_warnings(names, manifests) + target_warnings(names, phases)
    if runs is not None:
        told, missing = _distances(names, manifests, runs, config, progress)
        tables, warnings = tables + told, warnings + missing
    totals = max((m.header["totals"] for m in manifests), key=lambda one: one["population_samples"])
    return CompareResult(
        status="done",
        selections=len(manifests),
        phase=config.phase,
        samples=totals["population_samples"],
        tokens=totals["population_tokens"],
        tables=tables,
        warnings=warnings,
    )


def _distances(
    names: Sequence[str],
    manifests: Sequence[Manifest],
    runs: EmbeddingRuns,
    config: CompareConfig,
    progress: Progress | None,
) -> tuple[list[Table], list[str]]:
    """How far the picks of each are from those of each other, and the farthest with their texts; what is missing."""
    picks = [picks_of(manifest, config.phase) for manifest in manifests]
    pairs = list(permutations(range(len(manifests)), 2))
    means: list[list[Any]] = []
    tables, warnings = [], dict[str, None]()
    for done, (a, b) in enumerate(pairs, 1):
        if picks[a] and picks[b]:
            found = apart(runs, picks[a], picks[b], config.farthest)
            means.append([names[a], names[b], found.picks, found.alone, found.mean])
            rows, missing = _farthest(manifests[a], found.farthest, config)
            warnings |= dict.fromkeys(missing)
            columns = ["sample_id", "group", "tokens", "distance", "nearest", "shard", "row", "text"]
            tables.append(Table(title=f"Picks of {names[a]} farthest from {names[b]}", columns=columns, rows=rows))
        if progress:
            progress(done, len(pairs), "pairs")
    columns = ["selection", "to", "samples", "of these alone", "mean distance to the nearest"]
    return [Table(title="Distances by the sketch", columns=columns, rows=means), *tables], list(warnings)


def _farthest(manifest: Manifest, far: list[Far], config: CompareConfig) -> tuple[list[list[Any]], list[str]]:
    """A row for each of some picks of a manifest, and why texts are missing."""
    shards = {row["shard_id"]: row for row in manifest.shards().to_pylist()}
    rows, texts, missing = rows_of_far(manifest, config.phase, far), dict[str, str](), []
    for shard_id in sorted({row["shard_id"] for row in rows.values()}):
        mine = [rows[one.sample_id] for one in far if rows[one.sample_id]["shard_id"] == shard_id]
        read, why = texts_at_hand(manifest, shards[shard_id], mine, config.root)
        texts |= read
        missing += [why] if why else []
    told = []
    for one in far:
        row, text = rows[one.sample_id], texts.get(one.sample_id)
        place = [one.path, row["row_index"], None if text is None else glance(text)]
        told.append([one.sample_id, row["group"], row["n_tokens"], one.distance, one.nearest, *place])
    return told, missing
