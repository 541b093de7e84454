"""What became of all units, in columns: a corpus may have more units than fit into memory as objects."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.ranges import Ledger
from cptsel.pipeline.artifacts.run import run_fingerprint
from cptsel.pipeline.artifacts.seal import SEAL_COLUMNS
from cptsel.pipeline.corpus.shards import Shard
from cptsel.pipeline.embedding.units import RUN_KEY, UnitResult
from cptsel.schemas import arrow
from cptsel.schemas.headers import RunHeader

_AT_ONCE = 4096  # results that are objects at a time


@dataclass(frozen=True)
class Results:
    """What became of the units of a run.

    Attributes:
        units: ``units.parquet``, by shard and block.
        errors: (shard_id, block, sentence) of shards that could not be read, sorted.
        fresh_tokens: that this call embedded.
        taken_tokens: that this call took over from an earlier run.
    """

    units: pa.Table
    errors: list[tuple[int, int, str]]
    fresh_tokens: int
    taken_tokens: int

    @property
    def failures(self) -> list[str]:
        """The sentences of the errors."""
        return [sentence for _, _, sentence in self.errors]

    def speed(self, seconds: float) -> float | None:
        """Tokens that this call embedded a second; None where it embedded none."""
        return round(self.fresh_tokens / max(seconds, 1e-9), 1) if self.fresh_tokens else None

    def totals(self) -> dict[str, int]:
        """Sum of each count over all units."""
        return {name: int(self.units[name].to_numpy().sum()) for name in arrow.COUNT_COLUMNS}

    def by_shard(self, shards: Sequence[Shard]) -> dict[int, dict[str, int]]:
        """Sum of each count over the units of each shard."""
        of = self.units["shard_id"].to_numpy()
        sums = np.zeros((len(arrow.COUNT_COLUMNS), len(shards)), np.int64)
        for row, name in zip(sums, arrow.COUNT_COLUMNS, strict=True):
            np.add.at(row, of, self.units[name].to_numpy())
        return {
            shard.shard_id: dict(zip(arrow.COUNT_COLUMNS, sums[:, shard.shard_id].tolist(), strict=True))
            for shard in shards
        }

    def with_rejects(self) -> Iterator[tuple[int, int]]:
        """(shard_id, block) of the units that rejected anything."""
        found = (self.units["rows_rejected"].to_numpy() > 0) | (self.units["windows_rejected"].to_numpy() > 0)
        names = (self.units[name].to_numpy()[found].tolist() for name in ("shard_id", "block"))
        return zip(*names, strict=True)

    def check_complete(self, shards: Sequence[Shard]) -> None:
        """Raise AssertionError where a block of a readable shard did not report (docs/design.md, Counts)."""
        failed = {shard_id for shard_id, _, _ in self.errors}
        blocks = self.units["block"].to_numpy()
        edges = np.searchsorted(self.units["shard_id"].to_numpy(), np.arange(len(shards) + 1))
        for shard in shards:
            found = blocks[edges[shard.shard_id] : edges[shard.shard_id + 1]]
            expected = len(found) if shard.blocks is None else len(shard.blocks)
            whole = len(found) == expected > 0 and bool((found == np.arange(expected)).all())
            if shard.shard_id not in failed and not whole:
                raise AssertionError(f"{shard.uri}: blocks {found} of {expected} reported; please report this")


def write_range(ledger: Ledger, index: int, results: Results, header: RunHeader) -> None:
    """Mark a range as done, with what became of its units."""
    io.write_parquet(ledger.done(index), results.units, {RUN_KEY: run_fingerprint(header)})


def range_results(ledger: Ledger, indices: Iterable[int], header: RunHeader) -> Results | None:
    """What became of the units of ranges that are done; None where one is not, or is one of another run."""
    run, tables = run_fingerprint(header), [arrow.UNITS.empty_table()]
    for path in map(ledger.done, indices):
        if not io.exists(path):
            return None
        table = io.read_parquet(path)
        if (table.schema.metadata or {}).get(RUN_KEY.encode()) != run.encode():
            return None
        tables.append(table.replace_schema_metadata(None))
    return Results(pa.concat_tables(tables).combine_chunks(), [], 0, 0)


def gather(results: Iterable[UnitResult]) -> Results:
    """Put results into columns, in order, whatever the order in which they come."""
    tables, errors, fresh, taken = [arrow.UNITS.empty_table()], [], 0, 0
    some = iter(results)
    while batch := list(islice(some, _AT_ONCE)):
        errors += [(result.shard_id, result.block, result.error) for result in batch if result.error]
        done = [(result, result.counts) for result in batch if result.counts is not None]
        fresh += sum(counts["tokens"] - result.taken for result, counts in done if result.fresh)
        taken += sum(result.taken for result in batch)
        columns: dict[str, list[Any]] = {
            "shard_id": [result.shard_id for result, _ in done],
            "block": [result.block for result, _ in done],
            **{name: [counts[name] for _, counts in done] for name in arrow.COUNT_COLUMNS},
            **{name: [(result.seal or {})[name] for result, _ in done] for name in SEAL_COLUMNS},
        }
        tables.append(pa.table(columns, schema=arrow.UNITS))
    units = pa.concat_tables(tables).sort_by([("shard_id", "ascending"), ("block", "ascending")])
    return Results(units.combine_chunks(), sorted(errors), fresh, taken)
