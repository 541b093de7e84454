"""The end of a run: counts are checked, what speaks of the whole run is written, and then it is marked done."""

import resource
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.seal import SEAL_COLUMNS, sealed
from cptsel.pipeline.artifacts.writing import commit
from cptsel.pipeline.corpus.shards import Shard
from cptsel.pipeline.embedding.block import check_counts
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.report import check_damage, has_rejects, lost_bytes, read_rejects, summary
from cptsel.pipeline.embedding.units import UnitResult
from cptsel.pipeline.errors import PartialError
from cptsel.pipeline.summary import Summary
from cptsel.schemas import arrow
from cptsel.schemas.headers import RunHeader
from cptsel.schemas.validation import validate

_NOTHING: Mapping[int, Any] = MappingProxyType({})


def finish(
    config: EmbedConfig,
    header: RunHeader,
    shards: list[Shard],
    results: list[UnitResult],
    failures: list[str],
    status: str,
    seconds: float,
) -> Summary:
    """Check the counts, write what speaks of the whole run, and mark it done."""
    _check_complete(shards, results)
    good = [(result, result.counts) for result in results if result.counts is not None]
    totals = {name: sum(counts[name] for _, counts in good) for name in arrow.COUNT_COLUMNS}
    check_counts(totals, config.out)
    units = {
        "shard_id": [result.shard_id for result, _ in good],
        "block": [result.block for result, _ in good],
        **{name: [counts[name] for _, counts in good] for name in arrow.COUNT_COLUMNS},
        **{name: [(result.seal or {})[name] for result, _ in good] for name in SEAL_COLUMNS},
    }
    io.write_parquet(io.join(config.out, "units.parquet"), pa.table(units, schema=arrow.UNITS))
    by_shard: dict[int, dict[str, int]] = {shard.shard_id: dict.fromkeys(arrow.COUNT_COLUMNS, 0) for shard in shards}
    for result, counts in good:
        for name in arrow.COUNT_COLUMNS:
            by_shard[result.shard_id][name] += counts[name]
    lost = lost_bytes(shards, by_shard)
    write_shards(config.out, shards, by_shard, lost)
    rejects = read_rejects(config.out, shards, [result for result, counts in good if has_rejects(counts)])
    if failures:
        raise PartialError(f"{failures[0]} ({len(failures)} shards failed); the others are done: run again to resume")
    check_damage(config, shards, lost, totals, rejects)
    totals["bytes_lost"] = sum(lost.values())
    more = {"rejects": rejects.reasons, "shards_damaged": len(lost)}
    header = sealed(config.out, header | {"totals": totals | more})
    validate(header, "run")
    io.write_json(io.join(config.out, "run.json"), header)
    fresh = sum(counts["n_tokens"] for result, counts in good if result.fresh)
    io.write_json(io.join(config.out, "stats.json"), _stats(config, seconds, fresh))
    commit(config.out)
    return summary(config, status, header, rejects.warnings())


def _check_complete(shards: list[Shard], results: list[UnitResult]) -> None:
    """Raise AssertionError where a block of a readable shard did not report (docs/design.md, Counts)."""
    blocks: dict[int, list[int]] = {shard.shard_id: [] for shard in shards}
    failed = {result.shard_id for result in results if result.error}
    for result in results:
        blocks[result.shard_id].append(result.block)
    for shard in shards:
        found = blocks[shard.shard_id]
        expected = len(found) if shard.blocks is None else len(shard.blocks)
        if shard.shard_id not in failed and (not found or found != list(range(expected))):
            raise AssertionError(f"{shard.uri}: blocks {found} of {expected} reported; please report this")


def write_shards(
    out: str, shards: list[Shard], counts: Mapping[int, dict[str, int]] = _NOTHING, lost: Mapping[int, int] = _NOTHING
) -> None:
    """shards.parquet; ``rows``, ``tokens`` and ``bytes_lost`` are 0 until the run is finished."""
    columns: dict[str, list[Any]] = {
        name: [getattr(shard, name) for shard in shards]
        for name in ("shard_id", "uri", "path", "format", "compression", "bytes", "sha256")
    }
    columns["rows"] = [counts.get(shard.shard_id, {}).get("rows_read", 0) for shard in shards]
    columns["tokens"] = [counts.get(shard.shard_id, {}).get("tokens", 0) for shard in shards]
    columns["bytes_lost"] = [lost.get(shard.shard_id, 0) for shard in shards]
    io.write_parquet(io.join(out, "shards.parquet"), pa.table(columns, schema=arrow.RUN_SHARDS))


def _stats(config: EmbedConfig, seconds: float, tokens: int) -> dict[str, Any]:
    """Time of this call and memory of its largest local process (remote workers report to their runner)."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "format": "cptsel.stats",
        "spec_version": arrow.SPEC_VERSION,
        "seconds": round(seconds, 3),
        "tokens": tokens,
        "tokens_per_second": round(tokens / max(seconds, 1e-9), 1),
        "peak_memory_bytes": peak * 1024,
        "workers": config.workers,
        "threads": config.threads,
    }
