"""Arrow IPC shards, as Hugging Face datasets writes them (``save_to_disk``, its cache): record batches by themselves.

Streams and files (Feather 2) are read alike: a file is a stream after its first eight bytes, with a footer behind it.
Headers of messages are read first, to know where each batch lies and how many rows it has; no library tells that
without reading all of it. The layout is that of the Arrow columnar format: encapsulated messages, Message.fbs.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from cptsel.pipeline.corpus.contents import Content
from cptsel.pipeline.corpus.formats.base import BlockFinder, CorpusFormat, RowLocator
from cptsel.pipeline.corpus.formats.columns import ARROW_ERRORS, Source, column_values, first_line
from cptsel.pipeline.corpus.formats.groups import (
    MOST_ROWS,
    GroupedShard,
    GroupFinder,
    group_texts,
    read_group_block,
)
from cptsel.pipeline.corpus.types import FIRST_BYTES, Block, Companion, Damage, DocumentBlock, ReadOptions, Shard

_FILE = b"ARROW1\0\0"
_CONTINUED = b"\xff\xff\xff\xff"
_SCHEMA, _BATCH = 1, 3  # kinds of messages; 2 is a dictionary
_MOST_HEADER = 64 << 20
_MOST_DECODED = 2 << 30  # of a batch; a few bytes decompress to any number
_ROWS_AT_ONCE = 1024


class Arrow(CorpusFormat):
    """Arrow IPC files; a block is some record batches."""

    name: ClassVar[str] = "arrow"
    suffixes: ClassVar[tuple[str, ...]] = (".arrow", ".feather")

    def finder(self, options: ReadOptions, compression: str, companion: Companion | None) -> BlockFinder:
        return GroupFinder(options, ArrowShard)

    def read_block(self, handle: BinaryIO, shard: Shard, block: Block, options: ReadOptions) -> DocumentBlock:
        return read_group_block(handle, shard, block, options, ArrowShard)

    def read_texts(
        self, handle: BinaryIO, uri: str, compression: str, options: ReadOptions, rows: Sequence[RowLocator]
    ) -> Iterator[tuple[int, Content]]:
        """Only the record batches that hold a row are read."""
        return group_texts(handle, uri, options, rows, ArrowShard)


class _Message(NamedTuple):
    kind: int
    start: int
    body: int  # where it begins
    end: int
    rows: int
    decoded: int  # bytes that the body decompresses to


class ArrowShard(GroupedShard):
    """An open Arrow IPC file or stream; a group is a record batch.

    Where the stream breaks off, the batches before are read, and a last group of one row stands for the rest.

    Args:
        handle: seekable; must stay open.

    Raises:
        Damage: wrong_format or unreadable_arrow.
        OSError: the filesystem failed.
    """

    def __init__(self, handle: BinaryIO) -> None:
        self._source = Source(handle)
        self._size = handle.seek(0, os.SEEK_END)
        handle.seek(0)
        head = handle.read(FIRST_BYTES)
        start = len(_FILE) if head.startswith(_FILE) else 0
        if not head[start:].startswith(_CONTINUED):
            raise Damage("wrong_format", "not Arrow IPC", head)
        messages: list[_Message] = []
        try:
            for message in self._messages(start):
                messages.append(message)
        except ValueError as error:
            lost = self._size - (messages[-1].end if messages else 0)
            self.broken = Damage("truncated_stream", f"after {len(messages)} messages: {first_line(error)}", b"", lost)
        if not messages or messages[0].kind != _SCHEMA:
            raise Damage("unreadable_arrow", "it does not begin with a schema", head)
        try:
            self._schema = pa.ipc.read_schema(self._read(messages[0]))
        except ARROW_ERRORS as error:
            self._source.check()
            raise Damage("unreadable_arrow", first_line(error), head) from error
        if len(messages) > 1 and any(message.kind != _BATCH for message in messages[1:]):
            raise Damage("unreadable_arrow", "it has dictionaries; write it with plain columns", head)
        self._batches = messages[1:]
        self.group_rows = [message.rows for message in self._batches]
        self.group_bytes = [message.decoded for message in self._batches]
        if self.broken:
            self.group_rows.append(1)
            self.group_bytes.append(0)

    def records(
        self, group: int, fields: Sequence[str], cap: int, wanted: np.ndarray | None = None
    ) -> Iterator[dict[str, Any]]:
        if group == len(self._batches) and self.broken:
            raise self.broken
        tops = {field.split(".")[0] for field in fields}.union(fields)
        names = [name for name in dict.fromkeys(self._schema.names) if name in tops]
        wanted = np.arange(self.group_rows[group]) if wanted is None else wanted
        if not names:
            yield from ({} for _ in wanted)
            return
        try:
            if self.group_bytes[group] > _MOST_DECODED:
                raise ValueError(
                    f"it decodes to {self.group_bytes[group]:,} bytes; more than {_MOST_DECODED:,} are not read"
                )
            batch = pa.ipc.read_record_batch(self._read(self._batches[group]), self._schema)
            batch.validate()  # columns are as long as the header says
            columns = [_unmarked(batch.column(self._schema.names.index(name))) for name in names]
            for column in columns:
                column.validate(full=True)
            for start in range(0, len(wanted), _ROWS_AT_ONCE):
                rows = pa.array(wanted[start : start + _ROWS_AT_ONCE])
                values = [column_values(column.take(rows), cap) for column in columns]
                for row in zip(*values, strict=True):
                    yield dict(zip(names, row, strict=True))
        except ARROW_ERRORS as error:
            self._source.check()
            raise Damage("unreadable_row_group", f"record batch {group}: {first_line(error)}") from error

    def _messages(self, start: int) -> Iterator[_Message]:
        """All messages up to the mark of the end. Raises ValueError where there is none, or a header makes no sense."""
        position = start
        while True:
            prefix = self._bytes(position, 8)
            if prefix[:4] != _CONTINUED:
                raise ValueError(f"no message at byte {position}")
            length = int.from_bytes(prefix[4:], "little", signed=True)
            if length == 0:
                self._check_end(position + 8, footed=start > 0)
                return
            if not 0 < length <= _MOST_HEADER:
                raise ValueError(f"a header of {length} bytes at byte {position}")
            kind, rows, size, compressed = _header(self._bytes(position + 8, length))
            body = position + 8 + length
            if size < 0 or body + size > self._size or not 0 <= rows <= MOST_ROWS:
                raise ValueError(f"a message of {rows} rows in {size} bytes at byte {position}")
            decoded = size
            for offset in compressed:
                if not 0 <= offset <= size - 8:
                    raise ValueError(f"a buffer that lies outside its message at byte {position}")
                decoded += max(0, int.from_bytes(self._bytes(body + offset, 8), "little", signed=True))
            yield _Message(kind, position, body, body + size, rows, decoded)
            position = body + size

    def _check_end(self, position: int, footed: bool) -> None:
        """Raise ValueError where more follows than a file's footer: then the mark of the end is no such thing."""
        more = self._size - position
        if footed:
            tail = self._bytes(max(0, self._size - 10), 10)
            more -= int.from_bytes(tail[:4], "little", signed=True) + 10 if tail[4:] == _FILE[:6] else 0
        if more:
            raise ValueError(f"the stream says that it ends at byte {position}, and {more} bytes follow")

    def _bytes(self, position: int, size: int) -> bytes:
        self._source.seek(position)
        data = self._source.read(size)
        if len(data) < size:
            raise ValueError(f"the file ends at byte {position + len(data)}, inside the stream")
        return data

    def _read(self, message: _Message) -> pa.Message:
        return pa.ipc.read_message(pa.py_buffer(self._bytes(message.start, message.end - message.start)))


def _header(data: bytes) -> tuple[int, int, int, list[int]]:
    """What the header of a message says. Raises ValueError where it is none.

    Returns:
        Kind, rows (0 of what is no batch), bytes of the body, and where in it compressed buffers lie: each begins with
        the bytes that it decompresses to.
    """
    try:
        root = struct.unpack_from("<I", data)[0]
        kind_at, header_at, size_at = (_field(data, root, number) for number in (1, 2, 3))
        kind = data[kind_at] if kind_at else 0
        size = struct.unpack_from("<q", data, size_at)[0] if size_at else 0
        rows, compressed = 0, []
        if kind == _BATCH and header_at:
            table = header_at + struct.unpack_from("<I", data, header_at)[0]
            rows_at = _field(data, table, 0)
            rows = struct.unpack_from("<q", data, rows_at)[0] if rows_at else 0
            nodes_at, buffers_at = _field(data, table, 1), _field(data, table, 2)
            nodes = nodes_at + struct.unpack_from("<I", data, nodes_at)[0] if nodes_at else 0
            columns = struct.unpack_from("<I", data, nodes)[0] if nodes else 0
            if (columns and struct.unpack_from("<q", data, nodes + 4)[0] != rows) or (size and not columns):
                raise ValueError(f"a batch of {rows} rows whose columns have another number")
            if _field(data, table, 3) and buffers_at:
                vector = buffers_at + struct.unpack_from("<I", data, buffers_at)[0]
                for number in range(struct.unpack_from("<I", data, vector)[0]):
                    offset, length = struct.unpack_from("<qq", data, vector + 4 + 16 * number)
                    compressed += [offset] if length else []
    except (struct.error, IndexError) as error:
        raise ValueError("a header that is no header") from error
    return kind, rows, size, compressed


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table lies; 0 where it has its default."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0 or 4 + 2 * number >= struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0]
    return table + offset if offset else 0


def _unmarked(column: pa.Array) -> pa.Array:
    """Strings as bytes, whose UTF-8 is looked at one by one."""
    kinds = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    return column.view(kinds[column.type]) if column.type in kinds else column
