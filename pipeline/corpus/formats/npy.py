"""Flat arrays of token ids, as OLMo has them: ``.npy`` of numpy, or the numbers alone, whose type must be named.

Dolma writes a ``.csv.gz`` beside each, and so does OLMo-core: a line a document, without a header, which begins with
the first of its ids and the one past its last; its name, source and line may follow. Where there is none, each document
ends with the end-of-document id. So the file is searched for that id when the inventory is taken, and each block once
more. Documents are known again by their bytes.
"""

import gzip
import io as bytes_io
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import BinaryIO, ClassVar

import numpy as np

from cptsel.pipeline.corpus.contents import Content
from cptsel.pipeline.corpus.formats.base import BlockFinder, CorpusFormat, RowLocator, lost, phrase
from cptsel.pipeline.corpus.formats.groups import UNREADABLE
from cptsel.pipeline.corpus.formats.spans import SoughtSpans
from cptsel.pipeline.corpus.formats.tokens import (
    Places,
    TokenIndex,
    read_ids,
    read_token_block,
    token_blocks,
    unreadable_block,
)
from cptsel.pipeline.corpus.opening import opened
from cptsel.pipeline.corpus.types import Block, Companion, Damage, DocumentBlock, ReadOptions, Shard

_MAGIC = b"\x93NUMPY"
_HEAD = 1 << 16  # in which a header must end
_AT_ONCE = 1 << 20  # bytes that are searched at a time
_REMEDY = "restore it, or move it away, so that documents are told by the id that ends them"


class Npy(CorpusFormat):
    """``.npy`` files of numpy: one row of whole numbers."""

    name: ClassVar[str] = "npy"
    suffixes: ClassVar[tuple[str, ...]] = (".npy",)
    holds_ids: ClassVar[bool] = True
    needs_offsets: ClassVar[bool] = True
    needs_companion: ClassVar[bool] = False
    raw: ClassVar[str | None] = None  # number type of files without a header

    def companion(self, uri: str) -> str:
        return os.path.splitext(uri)[0] + ".csv.gz"

    def finder(self, options: ReadOptions, compression: str, companion: Companion | None) -> BlockFinder:
        return _EndFinder(options, self.raw, companion)

    def read_block(self, handle: BinaryIO, shard: Shard, block: Block, options: ReadOptions) -> DocumentBlock:
        part = None if block == UNREADABLE else block
        try:
            if shard.companion is None:
                found: TokenIndex = _searched(SoughtSpans(handle), self.raw, options.tokens.eod, part)
            else:
                found = _listed(SoughtSpans(handle), self.raw, shard.companion)
        except Damage as damage:
            return unreadable_block(shard, block, options, damage)
        return read_token_block(handle, shard, block, options, found)

    def read_texts(
        self, handle: BinaryIO, uri: str, compression: str, options: ReadOptions, rows: Sequence[RowLocator]
    ) -> Iterator[tuple[int, Content]]:
        """Ids are read by the byte offsets."""
        spans, row_index = SoughtSpans(handle), rows[0][0]
        try:
            dtype, _ = _layout(spans.at(0, _HEAD), spans.end(0), self.raw)
            for row_index, offset, length in rows:
                if offset is None or length is None:
                    raise Damage("unreadable_ids", "nothing says where they lie")
                yield row_index, read_ids(spans, offset, length // dtype.itemsize, dtype).astype(np.int32)
        except Damage as damage:
            raise lost(uri, row_index, phrase(damage)) from damage

    def has_offsets(self, compression: str) -> bool:
        return True


class NpyUint16(Npy):
    """The same, or without a header: 16-bit numbers."""

    name: ClassVar[str] = "npy-uint16"
    suffixes: ClassVar[tuple[str, ...]] = ()
    raw: ClassVar[str | None] = "<u2"


class NpyUint32(Npy):
    """The same, or without a header: 32-bit numbers."""

    name: ClassVar[str] = "npy-uint32"
    suffixes: ClassVar[tuple[str, ...]] = ()
    raw: ClassVar[str | None] = "<u4"


def _searched(spans: SoughtSpans, raw: str | None, eod: int | None, part: Block | None = None) -> "_Searched":
    """The documents of a file, or of a part of it. Raises Damage: unreadable_index."""
    dtype, start = _layout(spans.at(0, _HEAD), spans.end(0), raw)
    if eod is None:
        what = "the model names no EOS, so nothing tells where documents end; give --eod-token-id"
        raise Damage("unreadable_index", what)
    if part is None:
        return _Searched(spans, dtype, eod, start, spans.end(0))
    return _Searched(spans, dtype, eod, part.start, part.end, part.first_row)


def _layout(head: bytes, size: int, raw: str | None) -> tuple[np.dtype, int]:
    """Number type of a file and where its ids begin.

    Args:
        head: its first bytes.
        size: of the file.
        raw: number type where there is no header; None where there must be one.

    Raises:
        Damage: unreadable_index.
    """
    if not head.startswith(_MAGIC):
        if raw is None:
            what = "there is no header of numpy; say by --format what it is: npy-uint16 or npy-uint32"
            raise Damage("unreadable_index", what, head)
        dtype, start, count = np.dtype(raw), 0, size // np.dtype(raw).itemsize
    else:
        try:
            stream = bytes_io.BytesIO(head)
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
        except (ValueError, SyntaxError) as error:
            raise Damage("unreadable_index", f"its header can't be read: {str(error)[:100]}", head) from error
        if len(shape) != 1 or dtype.kind not in "iu" or dtype != dtype.newbyteorder("<"):
            what = f"it is an array {shape} of {dtype}, and no row of little-endian whole numbers"
            raise Damage("unreadable_index", what, head)
        if raw is not None and dtype != np.dtype(raw):
            raise Damage("unreadable_index", f"its header says {dtype}, and --format {np.dtype(raw)}", head)
        start, count = stream.tell(), shape[0]
    if start + count * dtype.itemsize != size:
        what = f"it has {size - start:,} bytes of ids, and {count:,} ids of {dtype} take {count * dtype.itemsize:,}"
        raise Damage("unreadable_index", what, head)
    return dtype, start


def _listed(spans: SoughtSpans, raw: str | None, companion: Companion) -> "_Listed":
    """The documents of a file by the ``.csv.gz`` beside it. Raises Damage: unreadable_index."""
    dtype, start = _layout(spans.at(0, _HEAD), spans.end(0), raw)
    return _kept(companion, dtype, start, spans.end(0))


@lru_cache(maxsize=1)
def _kept(companion: Companion, dtype: np.dtype, start: int, end: int) -> "_Listed":
    """The documents of the file that was read last: a million lines take two seconds, and every block asks for them."""
    with opened(companion) as handle:
        return _Listed(handle, dtype, start, end)


class _Listed(TokenIndex):
    """An open ``.csv.gz``.

    Args:
        handle: at its start.
        dtype: of the ids.
        start, end: bytes of the file between which they lie.

    Raises:
        Damage: unreadable_index.
    """

    def __init__(self, handle: BinaryIO, dtype: np.dtype, start: int, end: int) -> None:
        places = _places(handle)
        bounds = np.concatenate([np.zeros(1, np.int64), places[:, 1]])
        wrong = np.flatnonzero((places[:, 0] != bounds[:-1]) | (places[:, 1] < places[:, 0]))
        if len(wrong):
            what = f"in line {wrong[0] + 1:,} of the .csv.gz a document does not follow the one before it; {_REMEDY}"
            raise Damage("unreadable_index", what)
        there = (end - start) // dtype.itemsize
        if bounds[-1] != there:
            what = (
                f"the .csv.gz tells of {bounds[-1]:,} ids, and the file has {there:,} of {dtype}: it was cut off, or "
            )
            raise Damage("unreadable_index", f"{what}--format names another type; mend that, or the .csv.gz: {_REMEDY}")
        self.dtype, self.documents, self._start, self._bounds = dtype, len(places), start, bounds

    def places(self, first: int, count: int) -> Places:
        bounds = self._bounds[first : first + count + 1]
        return Places(self._start + bounds[:-1] * self.dtype.itemsize, np.diff(bounds))


def _places(handle: BinaryIO) -> np.ndarray:
    """First id of each document of a ``.csv.gz`` and the one past its last, (n, 2) int64. Raises Damage."""
    import pyarrow as pa
    from pyarrow import csv

    names = ["f0", "f1"]  # as pyarrow calls columns without a header
    found = [np.empty((0, 2), np.int64)]
    try:
        with gzip.open(handle) as lines:
            if not lines.peek(1):
                return found[0]
            read = csv.open_csv(
                lines,
                csv.ReadOptions(autogenerate_column_names=True, use_threads=False),
                csv.ParseOptions(newlines_in_values=True),
                csv.ConvertOptions(include_columns=names, column_types=dict.fromkeys(names, pa.int64())),
            )
            for batch in read:
                if any(column.null_count for column in batch.columns):
                    raise ValueError("a line has no places")
                found.append(np.stack([column.to_numpy() for column in batch.columns], axis=1))
    except (ValueError, KeyError, EOFError, zlib.error, gzip.BadGzipFile) as error:  # ArrowInvalid is a ValueError
        what = f"the .csv.gz does not say where documents lie ({str(error)[:100]}); {_REMEDY}"
        raise Damage("unreadable_index", what) from error
    return np.concatenate(found)


class _Searched(TokenIndex):
    """Documents between two places of a file, which are found by their ends.

    Args:
        spans: of the file.
        dtype: of its ids.
        eod: the id that ends a document.
        start, end: bytes, where a document begins and where one ends.
        first_row: number of the first.
    """

    def __init__(self, spans: SoughtSpans, dtype: np.dtype, eod: int, start: int, end: int, first_row: int = 0) -> None:
        size, found = dtype.itemsize, [np.array([start])]
        for place in range(start, end, _AT_ONCE):
            ids = np.frombuffer(spans.at(place, min(_AT_ONCE, end - place)), dtype)
            found.append(place + size * (np.flatnonzero(ids == eod) + 1))
        bounds = np.concatenate(found)
        if bounds[-1] < end:  # the last document of a file may have no end
            bounds = np.append(bounds, end)
        self.dtype, self.documents = dtype, first_row + len(bounds) - 1
        self.bounds, self._first_row = bounds, first_row

    def places(self, first: int, count: int) -> Places:
        bounds = self.bounds[first - self._first_row :][: count + 1]
        return Places(bounds[:-1], np.diff(bounds) // self.dtype.itemsize)


class _EndFinder:
    """Blocks of documents, which are found by the companion, or by their ends once the file is hashed."""

    def __init__(self, options: ReadOptions, raw: str | None, companion: Companion | None) -> None:
        self._options, self._raw, self._companion = options, raw, companion

    def feed(self, chunk: bytes) -> None:
        pass

    def finish(self, handle: BinaryIO) -> tuple[Block, ...]:
        spans = SoughtSpans(handle)
        try:
            if self._companion is not None:
                return token_blocks(_listed(spans, self._raw, self._companion), self._options)
            found = _searched(spans, self._raw, self._options.tokens.eod)
        except Damage:
            return (UNREADABLE,)
        blocks = []
        for block in token_blocks(found, self._options):
            bounds = found.bounds[[block.first_row, block.first_row + block.rows]].tolist()
            blocks.append(replace(block, start=bounds[0], end=bounds[1]))
        return tuple(blocks)
