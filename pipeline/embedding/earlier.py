"""Rows that an earlier run of a smaller pool has already, for ``--grow``."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.corpus.documents import Document
from cptsel.pipeline.corpus.pool import Pool
from cptsel.pipeline.embedding.units import stored_unit, unit_path
from cptsel.pipeline.model.batching import CHUNK_BATCHES


@dataclass(frozen=True)
class EarlierRun:
    """A finished run of a smaller pool of the same corpus, in the same terms.

    Attributes:
        directory: where it lies.
        run: its fingerprint, which its units carry.
        pool: its pool.
    """

    directory: str
    run: str
    pool: Pool

    def rows(self, shard_id: int, block: int) -> pa.Table | None:
        """Rows of a unit; None where it is not whole, so that all of it has to be embedded."""
        if stored_unit(self.directory, self.run, shard_id, block) is None:
            return None
        return io.read_parquet(unit_path(self.directory, "embeddings", shard_id, block))

    def place(self, path: str, document: Document, groups: Sequence[str]) -> float | None:
        """Where a document stood in the earlier pool; None where it was not in."""
        by = self.pool.by
        return self.pool.place(path, document.row_index, None if by is None else document.groups[groups.index(by)])


def chunk_of(tokens_per_batch: int) -> int:
    """Tokens after which a chunk ends."""
    return CHUNK_BATCHES * tokens_per_batch


def tokens_taken_over(directory: str, tokens_per_batch: int) -> tuple[int, int]:
    """Tokens, about, that a larger pool takes over of a finished run, and all that it has, from its small files.

    Of every block these are the chunks that are full, as a chunk that was not is another one in a larger pool. A chunk
    ends with the window that fills it, so it has half a window more than it must, on average.
    """
    units = io.read_parquet(io.join(directory, "units.parquet"), ["tokens", "windows_embedded"])
    tokens, windows = (units[name].to_numpy() for name in ("tokens", "windows_embedded"))
    chunk = chunk_of(tokens_per_batch) + tokens.sum() / max(1, windows.sum()) / 2
    return int((tokens // chunk * chunk).sum()), int(tokens.sum())


@dataclass(frozen=True)
class StoredRows:
    """Rows that are taken over.

    Attributes:
        table: of the earlier run's unit.
        rows: row there by index of the sample in its block.
    """

    table: pa.Table | None = None
    rows: dict[int, int] = field(default_factory=dict)

    def merged(
        self, fresh: pa.Table, indices: Sequence[int], pool_probs: Sequence[float], groups: Sequence[str]
    ) -> pa.Table:
        """These rows among those that were made now, in the order of the samples.

        Args:
            fresh: rows that were made now.
            indices: of their samples.
            pool_probs: of all rows, in the order of the result.
            groups: names of the group columns.
        """
        if self.table is None or not self.rows:
            return fresh
        schema = fresh.schema
        old = self.table.take(pa.array(list(self.rows.values()))).replace_schema_metadata(None)
        both = pa.concat_tables([_plain(fresh, groups), _plain(old.select(schema.names), groups)])
        order = sorted(range(len(both)), key=[*indices, *self.rows].__getitem__)
        both = both.take(pa.array(order))
        both = both.set_column(
            both.column_names.index("pool_prob"), schema.field("pool_prob"), pa.array(pool_probs, pa.float64())
        )
        columns = [both[name].combine_chunks() for name in schema.names]
        return pa.table(
            [pc.dictionary_encode(c) if n in groups else c for n, c in zip(schema.names, columns, strict=True)],
            schema=schema,
        )


def _plain(table: pa.Table, groups: Sequence[str]) -> pa.Table:
    """Group columns as strings: each table has a dictionary of its own."""
    for name in groups:
        place = table.column_names.index(name)
        table = table.set_column(place, pa.field(name, pa.string()), table[name].cast(pa.string()))
    return table
