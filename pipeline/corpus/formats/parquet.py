"""Parquet shards: row groups read by themselves, value by value, so that damage costs no more than it has to."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from cptsel.pipeline.corpus.formats.base import BlockFinder, CorpusFormat, RowLocator, lost, phrase
from cptsel.pipeline.corpus.rows import read_record
from cptsel.pipeline.corpus.types import (
    FIRST_BYTES,
    Block,
    BlockBuilder,
    Damage,
    Document,
    DocumentBlock,
    ReadOptions,
    Reject,
    Shard,
)

_MAGIC = b"PAR1"
_BATCH_ROWS = 1024
_ARROW_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError)  # all of them come out of damaged files
_VALUE_ERRORS = (pa.ArrowException, ValueError, OverflowError, KeyError)  # bad UTF-8, dates far away, no such time zone
UNREADABLE = Block(0, 0, 0, 0, 1)
"""The one block of a file without a usable footer: one row, which is a reject."""


class Parquet(CorpusFormat):
    """Parquet files; a block is some row groups."""

    name: ClassVar[str] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def finder(self, block_bytes: int, compression: str) -> BlockFinder:
        return _RowGroups(block_bytes)

    def read_block(self, handle: BinaryIO, shard: Shard, block: Block, options: ReadOptions) -> DocumentBlock:
        return read_parquet_block(handle, shard, block, options)

    def read_texts(
        self, handle: BinaryIO, uri: str, compression: str, options: ReadOptions, rows: Sequence[RowLocator]
    ) -> Iterator[tuple[int, str]]:
        """Only the row groups that hold a row are read."""
        return _parquet_texts(handle, uri, options, rows)


class _RowGroups:
    """Blocks by the footer."""

    def __init__(self, block_bytes: int) -> None:
        self._block_bytes = block_bytes

    def feed(self, chunk: bytes) -> None:
        pass

    def finish(self, handle: BinaryIO) -> tuple[Block, ...]:
        return parquet_blocks(handle, self._block_bytes)


class ParquetShard:
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
        self._source = _Source(handle)
        try:
            source = pa.PythonFile(self._source, mode="r")
            self._file = pq.ParquetFile(source, page_checksum_verification=True)  # where the writer stored checksums
            self._names = list(self._file.schema_arrow.names)
        except _ARROW_ERRORS as error:
            self._source.check()
            raise Damage("unreadable_parquet", _first_line(error), head) from error
        try:
            self.group_rows, self.group_bytes = _counts(self._file.metadata)
        except _ARROW_ERRORS as error:
            raise Damage("unreadable_parquet", _first_line(error), head) from error

    def records(self, group: int, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Rows of a row group with the top-level columns that ``fields`` need; a value may be a Damage.

        Raises:
            Damage: unreadable_row_group; some rows may have come before.
            OSError: the filesystem failed.
        """
        tops = {field.split(".")[0] for field in fields}.union(fields)
        columns = [name for name in dict.fromkeys(self._names) if name in tops]
        rows, found = self.group_rows[group], 0
        if not columns:
            yield from ({} for _ in range(rows))
            return
        try:
            batches = self._file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False)
            for batch in batches:
                values = [_values(batch.column(batch.schema.names.index(name))) for name in columns]
                found += batch.num_rows
                for row in zip(*values, strict=True):
                    yield dict(zip(columns, row, strict=True))
        except _ARROW_ERRORS as error:
            self._source.check()
            raise Damage("unreadable_row_group", f"row group {group}: {_first_line(error)}") from error
        if found != rows:
            raise Damage("unreadable_row_group", f"row group {group}: {found} rows where the footer says {rows}")


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
    if sum(rows) != metadata.num_rows:
        raise ValueError(f"the row groups have {sum(rows)} rows together, but the file says {metadata.num_rows}")
    return rows, sizes


def parquet_blocks(handle: BinaryIO, block_bytes: int) -> tuple[Block, ...]:
    """Blocks of a Parquet file: row groups joined up to ``block_bytes`` uncompressed bytes, at least one."""
    try:
        shard = ParquetShard(handle)
    except Damage:
        return (UNREADABLE,)
    blocks: list[Block] = []
    start = first_row = rows = size = 0
    for group, (more_rows, more_bytes) in enumerate(zip(shard.group_rows, shard.group_bytes, strict=True)):
        if group > start and size + more_bytes > block_bytes:
            blocks.append(Block(len(blocks), start, group, first_row, rows))
            start, first_row, rows, size = group, first_row + rows, 0, 0
        rows += more_rows
        size += more_bytes
    blocks.append(Block(len(blocks), start, len(shard.group_rows), first_row, rows))
    return tuple(blocks)


def read_parquet_block(handle: BinaryIO, shard: Shard, block: Block, options: ReadOptions) -> DocumentBlock:
    """Read one block of a Parquet file. A damaged row group makes each of its rows a reject.

    Raises:
        OSError: the filesystem failed, or the file is not the one of which the inventory was made.
    """
    builder = BlockBuilder(shard.shard_id, block.block)
    last = shard.blocks is None or block.block == len(shard.blocks) - 1
    try:
        parquet = ParquetShard(handle)
    except Damage as damage:
        if block != UNREADABLE:
            raise OSError(f"{shard.uri}: has changed since it was listed") from damage
        if options.limit is None or options.limit > 0:
            builder.add(replace(_reject(0, damage, damage.first_bytes), bytes_lost=shard.bytes))
        return builder.build(last)
    if sum(parquet.group_rows[block.start : block.end]) != block.rows:
        raise OSError(f"{shard.uri}: has changed since it was listed")
    first_row = block.first_row
    for group in range(block.start, block.end):
        rows = parquet.group_rows[group]
        wanted = rows if options.limit is None else max(0, min(rows, options.limit - first_row))
        for row in _read_group(parquet, group, first_row, options) if wanted else []:
            if row.row_index < first_row + wanted:
                builder.add(row)
        first_row += rows
    return builder.build(last)


def _read_group(parquet: ParquetShard, group: int, first_row: int, options: ReadOptions) -> list[Document | Reject]:
    rows: list[Document | Reject] = []
    fields = [options.text_field, *([options.id_field] if options.id_field is not None else []), *options.group_by]
    try:
        for row_index, record in enumerate(parquet.records(group, fields), first_row):
            try:
                rows.append(read_record(record, row_index, options, None, None))
            except Damage as damage:
                rows.append(_reject(row_index, damage, _first_bytes(record.get(options.text_field))))
    except Damage as damage:  # what Arrow read of the group before it noticed is not to be trusted either
        return [_reject(first_row + index, damage, b"") for index in range(parquet.group_rows[group])]
    return rows


def _parquet_texts(
    handle: BinaryIO, uri: str, options: ReadOptions, rows: Sequence[RowLocator]
) -> Iterator[tuple[int, str]]:
    wanted = [row_index for row_index, _, _ in rows]
    position = 0
    try:
        parquet = ParquetShard(handle)
        for group, end in enumerate(accumulate(parquet.group_rows)):
            if position == len(wanted):
                return
            if wanted[position] >= end:
                continue
            records = parquet.records(group, [options.text_field])
            for row_index, record in enumerate(records, end - parquet.group_rows[group]):
                while position < len(wanted) and wanted[position] == row_index:
                    yield row_index, read_record(record, row_index, options, None, None).text
                    position += 1
    except Damage as damage:
        raise lost(uri, wanted[position], phrase(damage)) from damage
    if position < len(wanted):
        raise lost(uri, wanted[position], f"the file has only {sum(parquet.group_rows)} rows")


def _reject(row_index: int, damage: Damage, first_bytes: bytes) -> Reject:
    return Reject(row_index, None, None, damage.reason, damage.detail, damage.first_bytes or first_bytes)


def _first_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value[:FIRST_BYTES].encode(errors="surrogatepass")[:FIRST_BYTES]
    return value[:FIRST_BYTES] if isinstance(value, bytes) else b""


def _values(column: pa.Array) -> list[Any]:
    """Python values of a column, one by one where Arrow can't convert all of them at once."""
    try:
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.string())  # Python's dates hold less than Arrow's
        return column.to_pylist()
    except _VALUE_ERRORS:
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return Damage("bad_utf8", f"{error.reason} at byte {error.start} of the value", bytes(error.object))
    except _VALUE_ERRORS as error:
        return Damage("unreadable_value", _first_line(error))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


class _Source(io.RawIOBase):
    """A file that remembers whether the filesystem failed, which Arrow reports like damage in the file."""

    def __init__(self, handle: BinaryIO) -> None:
        super().__init__()
        self._handle = handle
        self._failure: Exception | None = None

    def check(self) -> None:
        """Raise the failure of the filesystem, if there was one."""
        if self._failure is not None:
            raise OSError(f"can't be read: {self._failure}") from self._failure

    def read(self, size: int | None = -1) -> bytes:
        try:
            return self._handle.read(-1 if size is None else size)
        except Exception as error:
            self._failure = error
            raise

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._handle.seek(offset, whence)

    def tell(self) -> int:
        return self._handle.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
