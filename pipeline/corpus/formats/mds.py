"""MDS shards of MosaicML streaming: a table of offsets, the columns as JSON, then the samples, each by itself.

Version 2 of the format: the number of samples n, n + 1 offsets, all u32; the configuration that also stands in
``index.json``, which is not needed therefore; and for each sample the u32 sizes of those values that have no fixed one,
then all values by column. A sample is read at its offset, and of it the columns that are asked for.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any, BinaryIO, ClassVar

import numpy as np

from cptsel.pipeline.corpus.contents import Content
from cptsel.pipeline.corpus.formats.base import BlockFinder, CorpusFormat, RowLocator, Unseen
from cptsel.pipeline.corpus.formats.groups import (
    MOST_ROWS,
    UNREADABLE,
    GroupedShard,
    GroupFinder,
    blocks_of,
    group_texts,
    read_group_block,
)
from cptsel.pipeline.corpus.formats.spans import Spans, open_spans
from cptsel.pipeline.corpus.streams import disguise
from cptsel.pipeline.corpus.types import Block, Companion, Damage, DocumentBlock, ReadOptions, Reject, Shard

_MOST_CONFIGURATION = 1 << 20
_GROUP_BYTES, _GROUP_ROWS = 1 << 20, 1024
_NUMBERS = {
    "int": "<i8",
    **{f"{kind}{8 * size}": f"<{kind[0]}{size}" for kind in ("int", "uint") for size in (1, 2, 4, 8)},
    **{f"float{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}
_STRINGS = {"str_int": int, "str_float": float, "str_decimal": Decimal}


class Mds(CorpusFormat):
    """MDS shards; a block is some samples. Compressed ones are read front to back."""

    name: ClassVar[str] = "mds"
    suffixes: ClassVar[tuple[str, ...]] = (".mds",)
    compressions: ClassVar[tuple[str, ...]] = ("gzip", "zstd")

    def finder(self, options: ReadOptions, compression: str, companion: Companion | None) -> BlockFinder:
        return GroupFinder(options, MdsShard) if compression == "none" else Unseen()

    def read_block(self, handle: BinaryIO, shard: Shard, block: Block, options: ReadOptions) -> DocumentBlock:
        return read_group_block(handle, shard, block, options, MdsShard)

    def read_stream(self, handle: BinaryIO, shard: Shard, options: ReadOptions) -> Iterator[DocumentBlock]:
        """The rows of an uncompressed shard, and where the stream is damaged one that stands for its end."""
        try:
            opened = MdsShard(handle, shard.compression)
        except Damage as damage:
            yield _unreadable(handle, shard, options, damage)
            return
        blocks = blocks_of(opened, options)
        whole = replace(shard, blocks=blocks)
        for block in blocks:
            found = read_group_block(handle, whole, block, options, lambda _: opened)
            if block is blocks[-1] and (options.limit is None or options.limit > opened.rows):
                found = _closed(found, opened)
            yield found

    def read_texts(
        self, handle: BinaryIO, uri: str, compression: str, options: ReadOptions, rows: Sequence[RowLocator]
    ) -> Iterator[tuple[int, Content]]:
        """Samples are read by their offsets; compressed shards once, up to the last."""
        return group_texts(handle, uri, options, rows, lambda opened: MdsShard(opened, compression))


class MdsShard(GroupedShard):
    """An open MDS shard; a group is some samples.

    A sample that lies outside the file is a reject like any other, as the table counts it. Where the file ends too
    early or too late, a last group of one row says so; of a compressed one, ``damage_at_end`` does.

    Args:
        handle: at its start; must stay open. Seekable where it is not compressed.
        compression: ``none``, ``gzip`` or ``zstd``.

    Attributes:
        rows: samples of the shard.

    Raises:
        Damage: wrong_format or unreadable_mds; of a compressed shard also what is wrong with the stream.
        OSError: the filesystem failed.
    """

    def __init__(self, handle: BinaryIO, compression: str = "none") -> None:
        self._spans: Spans = open_spans(handle, compression)
        count = self._header(0, 4)
        if name := disguise(count):
            raise Damage("wrong_format", f"{name}, not MDS", count)
        self.rows = int.from_bytes(count, "little")
        if self.rows > MOST_ROWS:
            raise Damage("unreadable_mds", f"it says that it has {self.rows:,} samples; at most {MOST_ROWS:,} are read")
        first = 4 + 4 * (self.rows + 1)
        self._offsets = np.frombuffer(self._header(4, first - 4), "<u4").astype(np.int64)
        size = int(self._offsets[0]) - first
        if not 0 < size <= _MOST_CONFIGURATION:
            raise Damage("unreadable_mds", f"its first sample begins at byte {self._offsets[0]:,}", count)
        self._columns = _columns(self._header(first, size))
        self._sized = sum(size is None for _, _, size in self._columns)
        self.group_rows, self.group_bytes = self._groups()
        if compression == "none":
            self.broken = self.damage_at_end()
        if self.broken:
            self.group_rows.append(1)
            self.group_bytes.append(0)

    def damage_at_end(self) -> Damage | None:
        """What is wrong with the end of the file. A compressed one is read up to it, after all samples."""
        last = int(self._offsets[-1])
        end = self._spans.end(last)
        if self._spans.damage is not None:
            return self._spans.damage
        if end > last:
            return Damage("trailing_garbage", f"from byte {last:,} on", bytes_lost=end - last)
        if end < last:
            whole = int(self._offsets[self._offsets <= end].max(initial=0))
            return Damage("truncated_stream", f"it ends at byte {end:,} of {last:,}", bytes_lost=end - whole)
        return None

    def records(
        self, group: int, fields: Sequence[str], cap: int, wanted: np.ndarray | None = None
    ) -> Iterator[dict[str, Any]]:
        if self.broken and group == len(self.group_rows) - 1:
            raise self.broken
        first = sum(self.group_rows[:group])
        names = {field.split(".")[0] for field in fields}.union(fields)
        for row in np.arange(self.group_rows[group]) if wanted is None else wanted:
            try:
                yield self._record(first + int(row), names, cap)
            except Damage as damage:
                yield dict.fromkeys(fields, damage)

    def _record(self, row: int, names: set[str], cap: int) -> dict[str, Any]:
        """The columns of a sample that are asked for. Raises Damage where it is none."""
        place, end = int(self._offsets[row]), int(self._offsets[row + 1])
        room = end - place - 4 * self._sized
        if place < self._offsets[0] or room < 0:
            raise Damage("unreadable_sample", f"it would lie from byte {place:,} to {end:,}")
        given = iter(np.frombuffer(self._span(place, 4 * self._sized), "<u4").tolist())
        sizes = [next(given) if size is None else size for _, _, size in self._columns]
        if sum(sizes) != room:
            raise Damage("unreadable_sample", f"its values take {sum(sizes):,} bytes, and it has {room:,}")
        place += 4 * self._sized
        record: dict[str, Any] = {}
        for (name, encoding, _), size in zip(self._columns, sizes, strict=True):
            if name in names:
                record[name] = (
                    Damage("document_too_long", f"{size} bytes; the cap is {cap}")
                    if size > cap
                    else _decoded(self._span(place, size), encoding)
                )
            place += size
        if room:
            self._span(end - 1, 1)  # all of it is there
        return record

    def _span(self, position: int, size: int) -> bytes:
        try:
            data = self._spans.at(position, size)
        except ValueError as error:  # of a stream, by an offset that lies
            raise Damage("unreadable_sample", str(error)) from error
        if len(data) < size:
            raise Damage("unreadable_sample", f"the file ends before byte {position + size:,}")
        return data

    def _header(self, position: int, size: int) -> bytes:
        data = self._spans.at(position, size)
        if len(data) < size:
            raise self._spans.damage or Damage(
                "unreadable_mds", f"it ends inside its header of {position + size:,} bytes"
            )
        return data

    def _groups(self) -> tuple[list[int], list[int]]:
        """Rows and bytes of runs of samples, about a mebibyte each, however their offsets lie."""
        ends = np.maximum.accumulate(self._offsets)
        rows = _GROUP_BYTES * self.rows // max(1, int(ends[-1] - ends[0]))
        bounds = [*range(0, self.rows, max(1, min(_GROUP_ROWS, rows))), self.rows]
        return np.diff(bounds).tolist(), np.diff(ends[bounds]).tolist()


def _columns(configuration: bytes) -> list[tuple[str, str, int | None]]:
    """Name, encoding and size, where all values have one, of the columns. Raises Damage where they are none."""
    try:
        facts = json.loads(configuration)
        if facts["format"] != "mds":
            raise ValueError(f"format is {facts['format']!r}")
        columns = list(zip(facts["column_names"], facts["column_encodings"], facts["column_sizes"], strict=True))
        for name, encoding, size in columns:
            if not (
                isinstance(name, str)
                and isinstance(encoding, str)
                and (size is None or (isinstance(size, int) and size >= 0))
            ):
                raise ValueError(f"column {name!r} is {encoding!r} of {size!r} bytes")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damage("unreadable_mds", f"its columns: {str(error)[:200]}", configuration) from error
    return columns


def _decoded(data: bytes, encoding: str) -> Any:
    """A value as Python has it; a Damage where it has no text form. Pickles and pictures are never opened."""
    kind = encoding.partition(":")[0]
    if kind == "bytes":
        return data
    if kind in _NUMBERS:
        dtype = np.dtype(_NUMBERS[kind])
        if len(data) != dtype.itemsize:
            return Damage("unreadable_value", f"{len(data)} bytes of {encoding}")
        return np.frombuffer(data, dtype)[0].item()
    if kind not in ("str", "json", *_STRINGS):
        return Damage("unreadable_value", f"its column holds {kind}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return Damage("bad_utf8", f"{error.reason} at byte {error.start} of the value", data)
    try:
        return json.loads(text) if kind == "json" else _STRINGS.get(kind, str)(text)
    except (ValueError, InvalidOperation, RecursionError):
        return Damage("unreadable_value", f"no {kind}", data)


def _unreadable(handle: BinaryIO, shard: Shard, options: ReadOptions, damage: Damage) -> DocumentBlock:
    def fail(_: BinaryIO) -> GroupedShard:
        raise damage

    return read_group_block(handle, replace(shard, blocks=(UNREADABLE,)), UNREADABLE, options, fail)


def _closed(block: DocumentBlock, shard: MdsShard) -> DocumentBlock:
    """The last block of a stream, with one row more where its end is damaged."""
    damage = shard.damage_at_end()
    if damage is None:
        return block
    reject = Reject(
        shard.rows, None, None, damage.reason, damage.detail, damage.first_bytes, bytes_lost=damage.bytes_lost
    )
    return replace(block, rows_read=block.rows_read + 1, rejects=[*block.rejects, reject])
