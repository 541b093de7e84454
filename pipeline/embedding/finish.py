"""The end of a run: counts are checked, what speaks of the whole run is written, and then it is marked done."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.seal import sealed
from cptsel.pipeline.artifacts.writing import commit
from cptsel.pipeline.corpus.shards import Shard
from cptsel.pipeline.embedding.block import check_counts
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.report import check_damage, is_useless, lost_bytes, read_rejects, summary
from cptsel.pipeline.embedding.results import Results
from cptsel.pipeline.engine.memory import peak_memory_bytes
from cptsel.pipeline.errors import PartialError
from cptsel.pipeline.results import EmbedResult
from cptsel.pipeline.summary import Summary, counted, first_rows
from cptsel.schemas import arrow
from cptsel.schemas.headers import RunHeader
from cptsel.schemas.validation import validate

_OF_FILES = ("shard_id", "uri", "path", "format", "compression", "bytes", "sha256")
_LISTED = 1000  # failed blocks that the summary lists
_NAMED = 5  # failed shards that the sentence names
_NOTHING: Mapping[int, Any] = MappingProxyType({})


def finish(
    config: EmbedConfig,
    header: RunHeader,
    shards: list[Shard],
    results: Results,
    status: str,
    seconds: float,
    keep_cells: Callable[[str, RunHeader], None],
) -> EmbedResult:
    """Check the counts, write what speaks of the whole run, and mark it done.

    Args:
        config: of the run.
        header: ``run.json`` without totals.
        shards: of the corpus.
        results: of all units.
        status: first word of the summary.
        seconds: of this call.
        keep_cells: writes the statistics of cells of a directory and header.
    """
    results.check_complete(shards)
    totals = results.totals()
    check_counts(totals, config.out)
    io.write_parquet(io.join(config.out, "units.parquet"), results.units)
    by_shard = results.by_shard(shards)
    lost = lost_bytes(shards, by_shard)
    write_shards(config.out, shards, by_shard, lost)
    rejects = read_rejects(config.out, shards, results.with_rejects())
    check_failures(config, shards, results)
    check_damage(config, shards, lost, totals, rejects)
    totals["bytes_lost"] = sum(lost.values())
    more = {"rejects": rejects.reasons, "shards_damaged": len(lost)}
    keep_cells(config.out, header)
    header = sealed(config.out, header | {"totals": totals | more})
    validate(header, "run")
    io.write_json(io.join(config.out, "run.json"), header)
    io.write_json(io.join(config.out, "stats.json"), _stats(config, seconds, results))
    commit(config.out, keep_work=bool(config.shard_range))
    useless = [shard.uri for shard in shards if is_useless(by_shard[shard.shard_id])]
    return summary(config, status, header, rejects.warnings(useless))


def check_failures(config: EmbedConfig, shards: Sequence[Shard], results: Results) -> None:
    """Raise PartialError where some shards failed; its summary says why.

    Args:
        config: of the run.
        shards: all of the corpus, by their number.
        results: of those that were embedded.
    """
    if not results.errors:
        return
    paths = list(dict.fromkeys(shards[shard_id].path for shard_id, _, _ in results.errors))
    named = ", ".join(paths[:_NAMED]) + (f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else "")
    rows = [[shards[shard_id].path, block, sentence] for shard_id, block, sentence in results.errors]
    error = PartialError(
        f"{results.failures[0]} ({counted(len(paths), 'shard')} failed: {named}); the others are done: run again to "
        "resume with what failed"
    )
    error.summary = Summary(
        command="embed",
        out=config.out,
        status="partial",
        totals={"shards": len(shards), "shards failed": len(paths)},
        tables=[first_rows("Failed", ["shard", "block", "reason"], rows, _LISTED)],
        warnings=[],
    )
    raise error


def write_shards(
    out: str, shards: list[Shard], counts: Mapping[int, dict[str, int]] = _NOTHING, lost: Mapping[int, int] = _NOTHING
) -> None:
    """shards.parquet; ``rows``, ``tokens`` and ``bytes_lost`` are 0 until the run is finished."""
    rows = [
        {
            **{name: getattr(shard, name) for name in _OF_FILES},
            "rows": counts.get(shard.shard_id, {}).get("rows_read", 0),
            "tokens": counts.get(shard.shard_id, {}).get("tokens", 0),
            "bytes_lost": lost.get(shard.shard_id, 0),
            "companion_bytes": shard.companion and shard.companion.bytes,
            "companion_sha256": shard.companion and shard.companion.sha256,
        }
        for shard in shards
    ]
    table = pa.Table.from_pylist(rows, arrow.with_companions(arrow.RUN_SHARDS, rows))
    io.write_parquet(io.join(out, "shards.parquet"), table)


def _stats(config: EmbedConfig, seconds: float, results: Results) -> dict[str, Any]:
    """Time of this call and memory of its largest local process (remote workers report to their runner)."""
    return {
        "format": "cptsel.stats",
        "spec_version": arrow.SPEC_VERSION,
        "seconds": round(seconds, 3),
        "tokens": results.fresh_tokens,
        "tokens_per_second": results.speed(seconds),
        "peak_memory_bytes": peak_memory_bytes(),
        "workers": config.workers,
        "threads": config.threads,
    } | ({"tokens_taken_over": results.taken_tokens} if config.grow else {})
