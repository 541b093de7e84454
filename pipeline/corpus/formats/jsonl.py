"""JSONL shards: blocks of a plain file, found by a counting pass, and compressed streams, read front to back."""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO, ClassVar

import numpy as np

from cptsel.pipeline.corpus.contents import Content
from cptsel.pipeline.corpus.formats.base import BlockFinder, CorpusFormat, RowLocator, Unseen, lost, phrase
from cptsel.pipeline.corpus.lines import Line, split_lines
from cptsel.pipeline.corpus.rows import parse_line
from cptsel.pipeline.corpus.streams import chunks, decompress, disguise
from cptsel.pipeline.corpus.types import (
    BLOCK_ROWS,
    FIRST_BYTES,
    Block,
    BlockBuilder,
    Companion,
    Damage,
    Document,
    DocumentBlock,
    ReadOptions,
    Shard,
)
from cptsel.pipeline.summary import counted


class Jsonl(CorpusFormat):
    """One JSON object a line; plain, or a compressed stream."""

    name: ClassVar[str] = "jsonl"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".json", ".ndjson")
    compressions: ClassVar[tuple[str, ...]] = ("gzip", "zstd")

    def finder(self, options: ReadOptions, compression: str, companion: Companion | None) -> BlockFinder:
        return BlockCounter(options.block_bytes, options.block_rows) if compression == "none" else Unseen()

    def read_block(self, handle: BinaryIO, shard: Shard, block: Block, options: ReadOptions) -> DocumentBlock:
        return read_plain_block(handle, shard, block, options)

    def read_stream(self, handle: BinaryIO, shard: Shard, options: ReadOptions) -> Iterator[DocumentBlock]:
        return read_stream_blocks(handle, shard, options)

    def reads_forward(self, compression: str) -> bool:
        return True

    def read_texts(
        self, handle: BinaryIO, uri: str, compression: str, options: ReadOptions, rows: Sequence[RowLocator]
    ) -> Iterator[tuple[int, Content]]:
        """Plain files are read at the byte offsets, compressed streams once up to the last row."""
        if self.has_offsets(compression) and all(offset is not None and size is not None for _, offset, size in rows):
            return _plain_texts(handle, uri, options, rows)
        return _stream_texts(handle, uri, compression, options, rows)

    def has_offsets(self, compression: str) -> bool:
        return compression == "none"


class BlockCounter:
    """Block starts and row counts of a plain JSONL file, from one pass over its bytes.

    A block ends at the first line end at or past ``block_bytes`` bytes after its start, or after ``block_rows`` rows,
    as those of a stream do.
    """

    def __init__(self, block_bytes: int, block_rows: int = BLOCK_ROWS) -> None:
        self._block_bytes, self._block_rows = block_bytes, block_rows
        self._blocks: list[Block] = []
        self._head = b""
        self._start = self._first_row = self._rows = 0  # of the block at hand
        self._end = 0  # of what was seen
        self._open = False  # the last line has no newline yet

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file."""
        self._head = (self._head + chunk[:4])[:4]
        at, ends = 0, np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n"))
        while True:
            due = max(at, self._start + self._block_bytes - 1 - self._end)  # where a newline would end the block
            first = int(np.searchsorted(ends, at))
            last = min(int(np.searchsorted(ends, due)), first + self._block_rows - self._rows - 1)
            if last >= len(ends):
                break
            self._rows += last + 1 - first
            at = int(ends[last]) + 1
            self._close(self._end + at)
        self._rows += len(ends) - first
        self._end += len(chunk)
        self._open = not chunk.endswith(b"\n") if chunk else self._open

    def finish(self, handle: BinaryIO | None = None) -> tuple[Block, ...]:
        """All blocks; a single row for a file that is not text at all."""
        if disguise(self._head):
            return (Block(0, 0, self._end, 0, 1),)
        self._rows += self._open
        if self._rows or not self._blocks:
            self._close(self._end)
        return tuple(self._blocks)

    def _close(self, end: int) -> None:
        self._blocks.append(Block(len(self._blocks), self._start, end, self._first_row, self._rows))
        self._start, self._first_row, self._rows = end, self._first_row + self._rows, 0


def read_plain_block(handle: BinaryIO, shard: Shard, block: Block, options: ReadOptions) -> DocumentBlock:
    """Read one block of a plain file.

    Raises:
        OSError: the file is not the one of which the inventory was made.
    """
    builder = BlockBuilder(shard, block.block, options)
    wanted = block.rows if options.limit is None else max(0, min(block.rows, options.limit - block.first_row))
    rows = range(block.first_row, block.first_row + wanted)
    if rows and not any(builder.wants(row_index) for row_index in rows):  # then its bytes are not read
        builder.skip(len(rows))
        return builder.build(last=shard.blocks is None or block.block == len(shard.blocks) - 1)
    lines = plain_lines(handle, block.start, block.end - block.start, options.max_line_bytes)
    for row_index, line in enumerate(itertools.islice(lines, wanted), block.first_row):
        _take(builder, line, row_index, options)
    if builder.rows < wanted or (wanted == block.rows and next(lines, None) is not None):
        raise OSError(f"{shard.uri}: has changed since it was listed (block {block.block} had {block.rows} rows)")
    return builder.build(last=shard.blocks is None or block.block == len(shard.blocks) - 1)


def read_stream_blocks(handle: BinaryIO, shard: Shard, options: ReadOptions) -> Iterator[DocumentBlock]:
    """Read a shard once, front to back, block after block; at least one."""
    number, start, builder = 0, 0, BlockBuilder(shard, 0, options)
    if shard.compression == "none":
        lines = plain_lines(handle, 0, None, options.max_line_bytes)
    else:
        lines = split_lines(decompress(handle, shard.compression), options.max_line_bytes)
    for row_index, line in enumerate(itertools.islice(lines, options.limit)):
        if builder.rows == options.block_rows or (builder.rows and line.offset >= start + options.block_bytes):
            yield builder.build(last=False)
            number, start, builder = number + 1, line.offset, BlockBuilder(shard, number + 1, options)
        _take(builder, line, row_index, options)
    yield builder.build(last=True)


def _take(builder: BlockBuilder, line: Line, row_index: int, options: ReadOptions) -> None:
    """Decode a line that is wanted. One that stands for a broken stream always is: it tells of more than one row."""
    if builder.wants(row_index) or (line.damage is not None and line.damage.reason != "line_too_long"):
        builder.add(parse_line(line, row_index, options))
    else:
        builder.skip()


def plain_lines(handle: BinaryIO, start: int, size: int | None, cap: int) -> Iterator[Line]:
    """Lines of a byte range of a plain file, which begins at a line; a file that is no text is one damaged line."""
    handle.seek(0)
    head = handle.read(FIRST_BYTES)
    if name := disguise(head):
        damage = Damage("wrong_format", f"{name}, not text", bytes_lost=handle.seek(0, os.SEEK_END))
        return iter([Line(0, 0, head, damage)])
    handle.seek(start)
    return split_lines(chunks(handle, size), cap, start)


def _plain_texts(
    handle: BinaryIO, uri: str, options: ReadOptions, rows: Sequence[RowLocator]
) -> Iterator[tuple[int, Content]]:
    for row_index, offset, length in rows:
        assert offset is not None  # for the type checker: read_texts has looked
        assert length is not None
        handle.seek(offset)
        data = handle.read(length)
        if len(data) < length:
            raise lost(uri, row_index, "the file ends before it")
        yield row_index, _line_text(Line(offset, length, data), row_index, uri, options)


def _stream_texts(
    handle: BinaryIO, uri: str, compression: str, options: ReadOptions, rows: Sequence[RowLocator]
) -> Iterator[tuple[int, Content]]:
    lengths = [length for _, _, length in rows if length is not None]
    cap = max(lengths) if len(lengths) == len(rows) else options.max_line_bytes  # no longer line is wanted
    if compression == "none":
        lines = plain_lines(handle, 0, None, cap)
    else:
        lines = split_lines(decompress(handle, compression), cap)
    at = -1
    text: Content = ""
    for row_index, _, _ in rows:
        while at < row_index:
            line = next(lines, None)
            if line is None:
                raise lost(uri, row_index, f"the file has only {counted(at + 1, 'row')}")
            at += 1
            if at == row_index:
                text = _line_text(line, row_index, uri, options)
        yield row_index, text


def _line_text(line: Line, row_index: int, uri: str, options: ReadOptions) -> Content:
    document = parse_line(line, row_index, options)
    if isinstance(document, Document):
        return document.content
    raise lost(uri, row_index, phrase(Damage(document.reason, document.detail)))
