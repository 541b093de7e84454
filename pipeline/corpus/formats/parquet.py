"""Parquet shards: row groups read by themselves, value by value, so that damage costs no more than it has to."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cptsel.pipeline.corpus.formats.base import BlockFinder, CorpusFormat, RowLocator, lost, phrase
from cptsel.pipeline.corpus.rows import read_record
from cptsel.pipeline.corpus.types import (
    BLOCK_DECODED,
    BLOCK_ROWS,
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
_BATCH_BYTES = 4 << 20
_MOST_ROWS = 1 << 24  # of a row group; more is taken for a damaged footer
_PARTS = 32  # into which a row group is cut at most, as each part decodes all of it
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
            schema = self._file.schema
            columns = [schema.column(index) for index in range(len(schema))]
            self._strings = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
            self._names = list(self._file.schema_arrow.names)
        except _ARROW_ERRORS as error:
            self._source.check()
            raise Damage("unreadable_parquet", _first_line(error), head) from error
        try:
            self.group_rows, self.group_bytes = _counts(self._file.metadata)
        except _ARROW_ERRORS as error:
            raise Damage("unreadable_parquet", _first_line(error), head) from error

    def records(
        self, group: int, fields: Sequence[str], cap: int, wanted: np.ndarray | None = None
    ) -> Iterator[dict[str, Any]]:
        """Rows of a row group with the top-level columns that ``fields`` need; a value may be a Damage.

        Args:
            group: number of the row group.
            fields: columns, or dotted places in them.
            cap: longer strings, in bytes, are a Damage, and are not made.
            wanted: rows of the group, sorted; all by default. Arrow decompresses the others too, as damage anywhere is
                damage of the whole group, however it is cut; values are made of those that are wanted alone.

        Raises:
            Damage: unreadable_row_group; some rows may have come before.
            OSError: the filesystem failed.
        """
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
                    values = [_values(mine.column(mine.schema.names.index(name)), cap) for name in columns]
                    for row in zip(*values, strict=True):
                        yield dict(zip(columns, row, strict=True))
        except _ARROW_ERRORS as error:
            self._source.check()
            raise Damage("unreadable_row_group", f"row group {group}: {_first_line(error)}") from error
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
        longest = 0 if first is None else max(map(_longest, first.columns), default=0)
        return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, mean, longest)))


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
    if max(rows, default=0) > _MOST_ROWS:
        raise ValueError(f"a row group says that it has {max(rows):,} rows; more than {_MOST_ROWS:,} are not read")
    if sum(rows) != metadata.num_rows:
        raise ValueError(f"the row groups have {sum(rows)} rows together, but the file says {metadata.num_rows}")
    return rows, sizes


def parquet_blocks(handle: BinaryIO, block_bytes: int) -> tuple[Block, ...]:
    """Blocks of a Parquet file, at least one: row groups joined, or cut, to ``block_bytes`` uncompressed bytes.

    Where a group is cut, a block is some of its rows, and its ``start`` and ``end`` are those of the group. The last of
    them may have whole groups after it.
    """
    try:
        shard = ParquetShard(handle)
    except Damage:
        return (UNREADABLE,)
    blocks: list[Block] = []
    start = first_row = rows = size = 0
    for group, (more_rows, more_bytes) in enumerate(zip(shard.group_rows, shard.group_bytes, strict=True)):
        if group > start and (size + more_bytes > block_bytes or rows + more_rows > BLOCK_ROWS):
            blocks.append(Block(len(blocks), start, group, first_row, rows))
            start, first_row, rows, size = group, first_row + rows, 0, 0
        most = min(BLOCK_ROWS, max(1, more_rows * block_bytes // max(1, more_bytes)))
        most = max(most, -(-more_rows // _PARTS))
        while more_rows > most and rows == 0:  # a large row group is several blocks
            blocks.append(Block(len(blocks), group, group + 1, first_row, most))
            first_row, more_rows, more_bytes = first_row + most, more_rows - most, 0
        rows += more_rows
        size += more_bytes
    blocks.append(Block(len(blocks), start, len(shard.group_rows), first_row, rows))
    return tuple(blocks)


def read_parquet_block(handle: BinaryIO, shard: Shard, block: Block, options: ReadOptions) -> DocumentBlock:
    """Read one block of a Parquet file. A damaged row group makes each of its rows a reject.

    Raises:
        OSError: the filesystem failed, or the file is not the one of which the inventory was made.
    """
    builder = BlockBuilder(shard, block.block, options)
    last = shard.blocks is None or block.block == len(shard.blocks) - 1
    try:
        parquet = ParquetShard(handle)
    except Damage as damage:
        if block != UNREADABLE:
            raise OSError(f"{shard.uri}: has changed since it was listed") from damage
        if options.limit is None or options.limit > 0:
            builder.add(replace(_reject(0, damage, damage.first_bytes), bytes_lost=shard.bytes))
        return builder.build(last)
    ends = list(accumulate(parquet.group_rows, initial=0))
    end = block.first_row + block.rows
    if block.end >= len(ends) or not ends[block.start] <= block.first_row <= end <= ends[block.end]:
        raise OSError(f"{shard.uri}: has changed since it was listed")
    end = end if options.limit is None else min(end, options.limit)
    room = max(BLOCK_DECODED, options.block_bytes)
    for group in range(block.start, block.end):
        first, stop = max(block.first_row, ends[group]), min(end, ends[group + 1])
        wanted = [row_index for row_index in range(first, stop) if builder.wants(row_index)]
        builder.skip(max(0, stop - first) - len(wanted))
        for row in _read_rows(parquet, group, ends[group], wanted, room, options) if wanted else []:
            room -= _size(row)
            builder.add(row)
    return builder.build(last)


def _size(row: Document | Reject) -> int:
    return len(row.text.encode()) if isinstance(row, Document) else 0


def _read_rows(
    parquet: ParquetShard, group: int, group_row: int, wanted: Sequence[int], room: int, options: ReadOptions
) -> list[Document | Reject]:
    """Some rows of a row group that begins at ``group_row``, all counted in the shard and in order.

    Documents beyond ``room`` bytes of text are rejects, and their texts are not kept.
    """
    rows: list[Document | Reject] = []
    columns = [name for name in options.group_by if name not in options.shard_groups]
    fields = [options.text_field, *([options.id_field] if options.id_field is not None else []), *columns]
    try:
        records = parquet.records(group, fields, options.max_line_bytes, np.asarray(wanted) - group_row)
        for row_index, record in zip(wanted, records, strict=True):
            try:
                document = read_record(record, row_index, options, None, None)
                room -= _size(document)
                if room < 0:
                    what = "the block has no room for it; a larger --block-bytes would hold more"
                    raise Damage("decoded_too_large", what)
                rows.append(document)
            except Damage as damage:
                rows.append(_reject(row_index, damage, _first_bytes(record.get(options.text_field))))
    except Damage as damage:  # what Arrow read of the group before it noticed is not to be trusted either
        return [_reject(row_index, damage, b"") for row_index in wanted]
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
            records = parquet.records(group, [options.text_field], options.max_line_bytes)
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


def _longest(column: pa.Array) -> int:
    """Bytes of the longest string in the dictionaries of a column."""
    if pa.types.is_struct(column.type):
        return max(map(_longest, column.flatten()), default=0)
    if pa.types.is_dictionary(column.type):
        return pc.max(pc.binary_length(column.dictionary)).as_py() or 0
    return 0


def _values(column: pa.Array, cap: int) -> list[Any]:
    """Python values of a column, one by one where Arrow can't convert all of them at once."""
    if _is_text(column.type):
        lengths = pc.binary_length(column).to_pylist()
        if any(length is not None and length > cap for length in lengths):
            return [
                Damage("document_too_long", f"{length} bytes; the cap is {cap}")
                if length is not None and length > cap
                else _value(column[row])
                for row, length in enumerate(lengths)
            ]
    try:
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.string())  # Python's dates hold less than Arrow's
        return column.to_pylist()
    except _VALUE_ERRORS:
        return [_value(scalar) for scalar in column]


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))


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
