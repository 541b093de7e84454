"""Parquet shards: row groups read by themselves, value by value, so that damage costs no more than it has to."""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cptsel.pipeline.corpus.contents import Content
from cptsel.pipeline.corpus.formats.base import BlockFinder, CorpusFormat, RowLocator
from cptsel.pipeline.corpus.formats.columns import ARROW_ERRORS, Source, column_values, first_line, longest
from cptsel.pipeline.corpus.formats.groups import (
    MOST_ROWS,
    GroupedShard,
    GroupFinder,
    group_texts,
    read_group_block,
)
from cptsel.pipeline.corpus.types import FIRST_BYTES, Block, Companion, Damage, DocumentBlock, ReadOptions, Shard

_MAGIC = b"PAR1"
_BATCH_ROWS = 1024
_BATCH_BYTES = 4 << 20


class Parquet(CorpusFormat):
    """Parquet files; a block is some row groups."""

    name: ClassVar[str] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def finder(self, options: ReadOptions, compression: str, companion: Companion | None) -> BlockFinder:
        return GroupFinder(options, ParquetShard)

    def read_block(self, handle: BinaryIO, shard: Shard, block: Block, options: ReadOptions) -> DocumentBlock:
        return read_group_block(handle, shard, block, options, ParquetShard)

    def read_texts(
        self, handle: BinaryIO, uri: str, compression: str, options: ReadOptions, rows: Sequence[RowLocator]
    ) -> Iterator[tuple[int, Content]]:
        """Only the row groups that hold a row are read."""
        return group_texts(handle, uri, options, rows, ParquetShard)


class ParquetShard(GroupedShard):
    """An open Parquet file.

    Args:
        handle: seekable; must stay open.

    Raises:
        Damage: wrong_format or unreadable_parquet.
        OSError: the filesystem failed.
    """

    def __init__(self, handle: BinaryIO) -> None:
        handle.seek(0)
        head = handle.read(FIRST_BYTES)
        if not head.startswith(_MAGIC) and not _MAGIC.startswith(head):
            raise Damage("wrong_format", "not Parquet", head)
        handle.seek(0)
        self._source = Source(handle)
        try:
            source = pa.PythonFile(self._source, mode="r")
            self._file = pq.ParquetFile(source, page_checksum_verification=True)  # where the writer stored checksums
            schema = self._file.schema
            columns = [schema.column(index) for index in range(len(schema))]
            self._strings = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
            self._names = list(self._file.schema_arrow.names)
        except ARROW_ERRORS as error:
            self._source.check()
            raise Damage("unreadable_parquet", first_line(error), head) from error
        try:
            self.group_rows, self.group_bytes = _counts(self._file.metadata)
        except ARROW_ERRORS as error:
            raise Damage("unreadable_parquet", first_line(error), head) from error

    def records(
        self, group: int, fields: Sequence[str], cap: int, wanted: np.ndarray | None = None
    ) -> Iterator[dict[str, Any]]:
        tops = {field.split(".")[0] for field in fields}.union(fields)
        columns = [name for name in dict.fromkeys(self._names) if name in tops]
        rows, found = self.group_rows[group], 0
        wanted = np.arange(rows) if wanted is None else wanted
        if not columns:
            yield from ({} for _ in wanted)
            return
        try:
            batch_rows = self._batch_rows(group, columns)
            batches = self._file.iter_batches(batch_rows, row_groups=[group], columns=columns, use_threads=False)
            for batch in batches:
                first, last = np.searchsorted(wanted, (found, found + batch.num_rows))
                mine = batch.take(pa.array(wanted[first:last] - found)) if last - first < len(batch) else batch
                found += batch.num_rows
                if mine.num_rows:
                    values = [column_values(mine.column(mine.schema.names.index(name)), cap) for name in columns]
                    for row in zip(*values, strict=True):
                        yield dict(zip(columns, row, strict=True))
        except ARROW_ERRORS as error:
            self._source.check()
            raise Damage("unreadable_row_group", f"row group {group}: {first_line(error)}") from error
        if found != rows:
            raise Damage("unreadable_row_group", f"row group {group}: {found} rows where the footer says {rows}")

    def _batch_rows(self, group: int, columns: list[str]) -> int:
        """How many rows to decode at once: a dictionary makes a few bytes into any number of long strings."""
        mean = self.group_bytes[group] // max(1, self.group_rows[group])
        strings = [path for path in self._strings if path.split(".")[0] in columns or path in columns]
        file = pq.ParquetFile(
            pa.PythonFile(self._source, mode="r"), page_checksum_verification=True, read_dictionary=strings
        )
        first = next(file.iter_batches(1, row_groups=[group], columns=columns, use_threads=False), None)
        most = 0 if first is None else max(map(longest, first.columns), default=0)
        return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, mean, most)))


def _counts(metadata: pq.FileMetaData) -> tuple[list[int], list[int]]:
    """Rows and bytes of the row groups, if all that the footer says of them agrees.

    Arrow believes a row group that says it has fewer rows than it holds, and the others would be lost.

    Raises:
        ValueError: counts that contradict each other.
    """
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    rows, sizes = [group.num_rows for group in groups], [group.total_byte_size for group in groups]
    for number, counts in enumerate(zip(rows, sizes, strict=True)):
        if min(counts) < 0:
            raise ValueError(f"row group {number} says that it has {counts[0]} rows in {counts[1]} bytes")
    if max(rows, default=0) > MOST_ROWS:
        raise ValueError(f"a row group says that it has {max(rows):,} rows; more than {MOST_ROWS:,} are not read")
    if sum(rows) != metadata.num_rows:
        raise ValueError(f"the row groups have {sum(rows)} rows together, but the file says {metadata.num_rows}")
    return rows, sizes
