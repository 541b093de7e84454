"""Files of token ids, whatever says where their documents lie: how they are cut into blocks and read."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import BinaryIO, ClassVar, NamedTuple

import numpy as np

from cptsel.pipeline.corpus.contents import Content
from cptsel.pipeline.corpus.formats.base import BlockFinder, CorpusFormat, RowLocator, lost, phrase
from cptsel.pipeline.corpus.formats.groups import UNREADABLE
from cptsel.pipeline.corpus.formats.spans import SoughtSpans
from cptsel.pipeline.corpus.opening import opened
from cptsel.pipeline.corpus.types import (
    FIRST_BYTES,
    Block,
    BlockBuilder,
    Companion,
    Damage,
    Document,
    DocumentBlock,
    ReadOptions,
    Reject,
    Shard,
)
from cptsel.pipeline.summary import counted

_AT_ONCE = 1 << 20  # documents whose places are held while blocks are found


class Places(NamedTuple):
    """Where the ids of consecutive documents lie, each in one piece.

    Attributes:
        starts: (n,) int64, first byte in the file.
        counts: (n,) int64, ids.
    """

    starts: np.ndarray
    counts: np.ndarray


class TokenIndex(ABC):
    """What says where the documents of an open file lie.

    Attributes:
        dtype: of the ids, little-endian.
        documents: how many there are.
    """

    dtype: np.dtype
    documents: int

    @abstractmethod
    def places(self, first: int, count: int) -> Places:
        """Of ``count`` documents from ``first`` on. Raises Damage where the index is damaged there."""


def token_blocks(index: TokenIndex, options: ReadOptions) -> tuple[Block, ...]:
    """Blocks of documents, at least one; a block ends with the document that brings it to ``block_bytes``.

    Raises:
        Damage: the index is damaged.
    """
    blocks: list[Block] = []
    first, room = 0, options.block_bytes
    for part in range(0, index.documents, _AT_ONCE):
        counts = index.places(part, min(_AT_ONCE, index.documents - part)).counts
        for row, size in enumerate((counts * index.dtype.itemsize).tolist(), part):
            if row > first and (room <= 0 or row - first == options.block_rows):
                blocks.append(Block(len(blocks), first, row, first, row - first))
                first, room = row, options.block_bytes
            room -= size
    blocks.append(Block(len(blocks), first, index.documents, first, index.documents - first))
    return tuple(blocks)


def read_token_block(
    handle: BinaryIO, shard: Shard, block: Block, options: ReadOptions, index: TokenIndex
) -> DocumentBlock:
    """Read one block of a file whose index can be used. Ids of documents outside the pool are not touched.

    Raises:
        OSError: the filesystem failed, or the file is not the one of which the inventory was made.
    """
    builder = BlockBuilder(shard, block.block, options)
    end = block.first_row + block.rows
    if end > index.documents or block == UNREADABLE:
        raise OSError(f"{shard.uri}: has changed since it was listed")
    end = end if options.limit is None else max(block.first_row, min(end, options.limit))
    spans, places = SoughtSpans(handle), index.places(block.first_row, end - block.first_row)
    groups = tuple(options.shard_groups.get(name) for name in options.group_by)
    for row, start, count in zip(range(block.first_row, end), *map(np.ndarray.tolist, places), strict=True):
        if not builder.wants(row):
            builder.skip()
            continue
        try:
            ids = _ids(spans, start, count, index.dtype, options)
            size = len(ids) * index.dtype.itemsize
            builder.add(Document(row, None, ids, groups, start, size))
        except Damage as damage:
            builder.add(Reject(row, None, max(0, start), damage.reason, damage.detail, damage.first_bytes))
    return builder.build(last=shard.blocks is None or block.block == len(shard.blocks) - 1)


class IndexedTokens(CorpusFormat):
    """Files of ids with an index beside each; a row is a document."""

    holds_ids: ClassVar[bool] = True

    @abstractmethod
    def index(self, companion: BinaryIO, size: int) -> TokenIndex:
        """The index in an open companion of a file of so many bytes. Raises Damage: unreadable_index."""

    def check(self, companion: str, index: TokenIndex) -> None:
        """Hold an index against what lies beside its file, the companion apart. Raises Damage: unreadable_index."""

    def finder(self, options: ReadOptions, compression: str, companion: Companion | None) -> BlockFinder:
        assert companion is not None
        return _IndexFinder(self, options, companion)

    def read_block(self, handle: BinaryIO, shard: Shard, block: Block, options: ReadOptions) -> DocumentBlock:
        assert shard.companion is not None
        with opened(shard.companion) as companion:
            try:
                index = self.index(companion, shard.bytes)
                if block == UNREADABLE:
                    self.check(shard.companion.uri, index)  # raises what the inventory has met
                    token_blocks(index, options)
                return read_token_block(handle, shard, block, options, index)
            except Damage as damage:
                return unreadable_block(shard, block, options, damage)

    def read_texts(
        self, handle: BinaryIO, uri: str, compression: str, options: ReadOptions, rows: Sequence[RowLocator]
    ) -> Iterator[tuple[int, Content]]:
        """Ids are read by the byte offsets, where they are given, else by the index."""
        from cptsel.pipeline import io

        spans, beside = SoughtSpans(handle), self.companion(uri)
        assert beside is not None
        with io.open_read(beside) as companion:
            row_index = rows[0][0]
            try:
                index = self.index(companion, spans.end(0))
                for row_index, offset, length in rows:
                    yield row_index, _content(spans, index, row_index, offset, length)
            except Damage as damage:
                raise lost(uri, row_index, phrase(damage)) from damage

    def has_offsets(self, compression: str) -> bool:
        return True


class _IndexFinder:
    """Blocks by what the index says of documents."""

    def __init__(self, format: IndexedTokens, options: ReadOptions, companion: Companion) -> None:
        self._format, self._options, self._companion = format, options, companion

    def feed(self, chunk: bytes) -> None:
        pass

    def finish(self, handle: BinaryIO) -> tuple[Block, ...]:
        with opened(self._companion) as companion:
            try:
                index = self._format.index(companion, handle.tell())
                self._format.check(self._companion.uri, index)
                return token_blocks(index, self._options)
            except Damage:
                return (UNREADABLE,)


def unreadable_block(shard: Shard, block: Block, options: ReadOptions, damage: Damage) -> DocumentBlock:
    """The one block, of one reject, of a file whose index can't be used."""
    if block != UNREADABLE:
        raise OSError(f"{shard.uri}: has changed since it was listed") from damage
    builder = BlockBuilder(shard, block.block, options)
    if options.limit is None or options.limit > 0:
        builder.add(Reject(0, None, None, damage.reason, damage.detail, damage.first_bytes, shard.bytes))
    return builder.build(last=True)


def _content(spans: SoughtSpans, index: TokenIndex, row_index: int, offset: int | None, length: int | None) -> Content:
    """Ids of a document by the place that is known of it, else by that of the index, with that which ends it."""
    if offset is None or length is None:
        if row_index >= index.documents:
            raise Damage("unreadable_ids", f"the file has only {counted(index.documents, 'document')}")
        (offset,), (count,) = index.places(row_index, 1)
    else:
        count = length // index.dtype.itemsize
    return read_ids(spans, int(offset), int(count), index.dtype).astype(np.int32)


def _ids(spans: SoughtSpans, start: int, count: int, dtype: np.dtype, options: ReadOptions) -> np.ndarray:
    """Ids of a document, (n,) int32, without that which ends it. Raises Damage where they can't be used."""
    size, rule = count * dtype.itemsize, options.tokens
    if size > options.max_line_bytes:
        raise Damage("document_too_long", f"{size} bytes; the cap is {options.max_line_bytes}")
    ids = read_ids(spans, start, count, dtype)
    if len(ids) and ids[-1] == rule.eod:
        ids = ids[:-1]
    if not len(ids):
        raise Damage("empty_document")
    strange = np.flatnonzero((ids < 0) | (ids >= rule.vocabulary))
    if len(strange):
        place = int(strange[0])
        what = f"{ids[place]} at token {place}; the model has {rule.vocabulary:,}"
        raise Damage("id_out_of_range", what, ids[:FIRST_BYTES].tobytes())
    return ids.astype(np.int32)


def read_ids(spans: SoughtSpans, start: int, count: int, dtype: np.dtype) -> np.ndarray:
    """Ids at a place of a file. Raises Damage: unreadable_ids."""
    size = count * dtype.itemsize
    if count < 0 or start < 0 or start + size > spans.end(0):
        raise Damage("unreadable_ids", f"they would lie from byte {start:,} to {start + size:,} of {spans.end(0):,}")
    return np.frombuffer(spans.at(start, size), dtype)
