"""WebDataset: tar archives in which a sample is members that follow each other and have one key.

``000017.txt`` and ``000017.json`` are of the sample ``000017``: a key goes up to the first dot of a file's name, its
folder counted, and what follows is the extension. Other members are passed over, as the library does: those that are
no regular files or have no extension, and below ``__NAME__/``. The layout is that of POSIX (ustar, pax) and GNU tar;
headers are read here one by one, as Python's ``tarfile`` takes a damaged one for the end of the archive. Plain ones of
regular files, which most are, are taken apart here, several times as fast as by ``tarfile``.
"""

import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar, NamedTuple

from cptsel.pipeline.corpus.contents import Content
from cptsel.pipeline.corpus.formats.base import BlockFinder, CorpusFormat, RowLocator, Unseen, lost, phrase
from cptsel.pipeline.corpus.formats.spans import Spans, open_spans
from cptsel.pipeline.corpus.rows import read_record
from cptsel.pipeline.corpus.streams import disguise
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

_UNIT = tarfile.BLOCKSIZE
_MOST_EXTENDED = 1 << 20  # bytes of a header of names or pax records
_META = re.compile(r"__[^/]*__($|/)")
_PLAIN = re.compile(  # the header of a regular file, as every writer of today makes it
    rb"""
    (?P<name>.{100})
    (?:[0-7]{7}[\0 ]|[0-7]{6}[ ]\0){3}            # mode, uid, gid
    (?P<size>[0-7]{11})[\0 ]
    [0-7]{11}[\0 ]                               # mtime
    (?P<sum>(?P<octal>[0-7]{6})[\0 ]{2})
    0 .{100} .{8} .{64}                          # type, name of a link, magic, names of user and group
    (?:[0-7]{7}[\0 ]|\0{8}){2}                   # device
    (?P<prefix>.{155}) .{12}
    """,
    re.VERBOSE | re.DOTALL,
)
_PAX_RECORD = re.compile(rb"(\d{1,8}) ([^=]+)=")


class WebDataset(CorpusFormat):
    """Tar archives; a block is some samples. Compressed ones are read front to back."""

    name: ClassVar[str] = "webdataset"
    suffixes: ClassVar[tuple[str, ...]] = (".tar",)
    compressions: ClassVar[tuple[str, ...]] = ("gzip", "zstd")

    def finder(self, options: ReadOptions, compression: str, companion: Companion | None) -> BlockFinder:
        return _SampleFinder(options) if compression == "none" else Unseen()

    def read_block(self, handle: BinaryIO, shard: Shard, block: Block, options: ReadOptions) -> DocumentBlock:
        builder = BlockBuilder(shard, block.block, options)
        last = shard.blocks is None or block.block == len(shard.blocks) - 1
        ends = block.end == shard.bytes  # the archive, whose end is always looked at
        wanted = block.rows if options.limit is None else max(0, min(block.rows, options.limit - block.first_row))
        rows = range(block.first_row, block.first_row + wanted)
        if not rows or (not ends and not any(map(builder.wants, rows))):
            builder.skip(len(rows))
            return builder.build(last)
        reader = _Reader(open_spans(handle, "none"), options, builder.wants)
        for sample in reader.samples(block.start, None if ends else block.end, block.first_row):
            if builder.rows == wanted:
                break
            builder.add(reader.row(sample)) if sample.wanted else builder.skip()
        if builder.rows < wanted:
            raise OSError(f"{shard.uri}: has changed since it was listed (block {block.block} had {block.rows} rows)")
        return builder.build(last)

    def read_stream(self, handle: BinaryIO, shard: Shard, options: ReadOptions) -> Iterator[DocumentBlock]:
        number, start, builder = 0, 0, BlockBuilder(shard, 0, options)
        reader = _Reader(open_spans(handle, shard.compression), options, builder.wants)
        for sample in reader.samples():
            if options.limit is not None and sample.row >= options.limit:
                break
            if builder.rows == options.block_rows or (builder.rows and sample.start >= start + options.block_bytes):
                yield builder.build(last=False)
                number, start, builder = number + 1, sample.start, BlockBuilder(shard, number + 1, options)
            builder.add(reader.row(sample)) if sample.wanted else builder.skip()
        yield builder.build(last=True)

    def read_texts(
        self, handle: BinaryIO, uri: str, compression: str, options: ReadOptions, rows: Sequence[RowLocator]
    ) -> Iterator[tuple[int, Content]]:
        """Plain archives are read at the byte offsets, where they are given; others once, up to the last row."""
        wanted = {row_index for row_index, _, _ in rows}
        reader = _Reader(open_spans(handle, compression), options, wanted.__contains__)
        by_offset = self.has_offsets(compression) and all(None not in row for row in rows)
        samples, sample = reader.samples(), None
        for row_index, offset, length in rows:
            if by_offset:
                assert offset is not None
                assert length is not None
                samples, sample = reader.samples(offset, offset + length, row_index), None
            while sample is None or sample.row < row_index:
                before, sample = sample, next(samples, None)
                if sample is None:
                    found = 0 if before is None else before.row + 1
                    only = f"the file has only {counted(found, 'row')}"
                    raise lost(uri, row_index, "there is no sample at its offset" if by_offset else only)
            row = reader.row(sample)
            if isinstance(row, Reject):
                raise lost(uri, row_index, phrase(Damage(row.reason, row.detail)))
            yield row_index, row.content

    def has_offsets(self, compression: str) -> bool:
        return compression == "none"


class _SampleFinder:
    """Blocks by the headers of an archive, which are read once its bytes are hashed; no member is."""

    def __init__(self, options: ReadOptions) -> None:
        self._block_bytes, self._block_rows = options.block_bytes, options.block_rows

    def feed(self, chunk: bytes) -> None:
        pass

    def finish(self, handle: BinaryIO) -> tuple[Block, ...]:
        blocks: list[Block] = []
        start = first_row = row = 0
        spans = open_spans(handle, "none")
        for sample in _Reader(spans, ReadOptions(), lambda _: False).samples():
            row = sample.row
            if row - first_row == self._block_rows or (row > first_row and sample.start >= start + self._block_bytes):
                blocks.append(Block(len(blocks), start, sample.start, first_row, row - first_row))
                start, first_row = sample.start, row
            row += 1
        blocks.append(Block(len(blocks), start, spans.end(start), first_row, row - first_row))
        return tuple(blocks)


class _Member(NamedTuple):
    """A member of an archive: where its first header, its data and what follows begin; no name if it is passed over."""

    name: str | None
    start: int
    data: int
    size: int
    end: int


@dataclass
class _Sample:
    """Members of one key.

    Attributes:
        row: its number in the archive.
        key: theirs.
        start, end: the bytes of the archive that they take.
        wanted: whether it is made into a document or reject.
        members: those whose data was asked for, by extension.
        extensions: of all.
        damage: why it is no document.
    """

    row: int
    key: str
    start: int
    end: int
    wanted: bool
    members: dict[str, bytes | Damage] = field(default_factory=dict)
    extensions: set[str] = field(default_factory=set)
    damage: Damage | None = None


class _Reader:
    """The samples of an archive, front to back, with those members that a document is made of.

    Args:
        spans: of the archive.
        options: how rows are read.
        wants: whether a row is to be decoded, by its number.
    """

    def __init__(self, spans: Spans, options: ReadOptions, wants: Callable[[int], bool]) -> None:
        self._spans, self._options, self._wants = spans, options, wants
        columns = [name for name in options.group_by if name not in options.shard_groups]
        self._fields = [options.text_field, *([] if options.id_field is None else [options.id_field]), *columns]
        self._kept = {"json", *self._fields, *(["txt"] if "text" in self._fields else [])}

    def samples(self, start: int = 0, stop: int | None = None, row: int = 0) -> Iterator[_Sample]:
        """Samples from a place on, where one begins, to a place, or the end of the archive.

        Where the archive is damaged, the sample at hand stands for all that follows: nothing tells whether it has more
        members. What follows the mark of the end is one more.
        """
        position, sample, passed = start, None, False
        while stop is None or position < stop:
            try:
                member = self._member(position)
            except Damage as damage:
                at = position if sample is None else sample.start
                yield self._break(row, at, damage)
                return
            if member is None:
                if sample is not None:
                    yield sample
                    row += 1
                elif passed and start == 0:
                    nothing = Damage("wrong_format", "no member of the archive is named KEY.EXTENSION")
                    yield self._break(row, 0, nothing)
                    return
                try:
                    self._check_end(position + _UNIT)
                except Damage as damage:
                    yield self._break(row, position, damage)
                return
            position = member.end
            key, extension = _split(member.name)
            if not key:
                passed = passed or member.name is not None
                continue
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                    row += 1
                sample = _Sample(row, key, member.start, member.end, self._wants(row))
            sample.end = member.end
            if extension in sample.extensions:
                sample.damage = Damage("duplicate_member", f"two members are named {member.name}"[:200])
            sample.extensions.add(extension)
            if sample.wanted and extension in self._kept:
                sample.members[extension] = self._data(member)
        if sample is not None:
            yield sample

    def row(self, sample: _Sample) -> Document | Reject:
        """A sample as a document, or as a reject that says why it is none."""
        text = sample.members.get("txt", sample.members.get(self._options.text_field, b""))
        first = text[:FIRST_BYTES] if isinstance(text, bytes) else b""
        try:
            if sample.damage is not None:
                raise sample.damage
            record = self._record(sample)
            return read_record(record, sample.row, self._options, sample.start, sample.end - sample.start)
        except Damage as damage:
            first = damage.first_bytes or first
            return Reject(sample.row, None, sample.start, damage.reason, damage.detail, first, damage.bytes_lost)

    def _record(self, sample: _Sample) -> dict[str, Any]:
        """Members by their extension, and the fields of ``json`` where no member has that name."""
        value = _parsed(sample.members.get("json"))
        record: dict[str, Any] = {**value} if isinstance(value, dict) else {}
        record |= {"json": value} if "json" in sample.members else {}
        record |= {name: data for name, data in sample.members.items() if name != "json"}
        if "text" not in sample.members and "txt" in sample.members:
            record["text"] = sample.members["txt"]
        record["__key__"] = sample.key
        if isinstance(value, Damage):
            return dict.fromkeys(self._fields, value) | record
        record.setdefault("id", sample.key)
        return record

    def _break(self, row: int, position: int, damage: Damage) -> _Sample:
        """The row that stands for an archive's bytes from a position on."""
        lost = damage.bytes_lost or self._spans.left(position)
        whole = Damage(damage.reason, damage.detail, damage.first_bytes, lost)
        return _Sample(row, "", position, position, True, damage=whole)

    def _data(self, member: _Member) -> bytes | Damage:
        cap = self._options.max_line_bytes
        if member.size > cap:
            return Damage("document_too_long", f"{member.size} bytes; the cap is {cap}")
        return self._spans.at(member.data, member.size)  # where the archive ends inside it, no header follows

    def _member(self, position: int) -> _Member | None:
        """The member whose first header begins here; None at the mark of the end.

        Raises:
            Damage: the archive is damaged here, or ends without a mark.
        """
        start = position
        known: dict[str, Any] = {}
        while True:
            block = self._span(position, _UNIT)
            if not any(block):
                return None
            if (plain := _plain(block)) is not None:
                name, size = known.get("path", plain[0]), known.get("size", plain[1])
                return _Member(name, start, position + _UNIT, size, position + _UNIT + _padded(size))
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                if info.size < 0 or info.type == tarfile.GNUTYPE_SPARSE:
                    raise tarfile.HeaderError("a sparse member" if info.size >= 0 else "a size below zero")
            except tarfile.HeaderError as error:
                if position == 0:
                    raise Damage("wrong_format", f"{disguise(block[:4]) or str(error)}, not tar", block) from error
                raise Damage("unreadable_tar", f"{error} in the header at byte {position:,}", block) from error
            data = position + _UNIT
            if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME):
                known |= self._extended(info, data)
            if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE, *_GNU_NAMES):
                position = data + _padded(info.size)
                continue
            size = known.get("size", info.size)
            has_data = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
            name = known.get("path", info.name) if info.isreg() else None
            return _Member(name, start, data, size, data + (_padded(size) if has_data else 0))

    def _extended(self, info: tarfile.TarInfo, position: int) -> dict[str, Any]:
        """Name and size of the next member, as far as a header of its own says them."""
        if info.size > _MOST_EXTENDED:
            raise Damage("unreadable_tar", f"a header of {info.size:,} bytes at byte {position:,}")
        data = self._span(position, info.size)
        if info.type == tarfile.GNUTYPE_LONGNAME:
            return {"path": data.partition(b"\0")[0].decode("utf-8", "surrogateescape")}
        found: dict[str, Any] = {}
        while data:
            match = _PAX_RECORD.match(data)
            if match is None or not match.end() < int(match[1]) <= len(data):
                raise Damage("unreadable_tar", f"a pax header that is none at byte {position:,}")
            name, value, data = match[2], data[match.end() : int(match[1]) - 1], data[int(match[1]) :]
            if name == b"path":
                found["path"] = value.decode("utf-8", "surrogateescape")
            elif name == b"size":
                if not value.isdigit():
                    raise Damage("unreadable_tar", f"a pax header with a size that is none at byte {position:,}")
                found["size"] = int(value[:18])
            elif name.startswith(b"GNU.sparse."):
                raise Damage("unreadable_tar", f"a sparse member in the header at byte {position:,}")
        return found

    def _check_end(self, position: int) -> None:
        """Raise Damage where something follows the mark of the end, or a compressed stream is damaged there.

        From the mark's second block on: a stream whose chunk ends in the first has let go of that.
        """
        while data := self._spans.at(position, 1 << 16):
            if any(data):
                place = position + len(data) - len(data.lstrip(b"\0"))
                raise Damage("trailing_garbage", f"after the mark of the end, from byte {place:,} on")
            position += len(data)
        if self._spans.damage is not None:
            raise self._spans.damage

    def _span(self, position: int, size: int) -> bytes:
        data = self._spans.at(position, size)
        if len(data) < size:
            ends = f"the archive ends at byte {position + len(data):,}, without the mark of its end"
            raise self._spans.damage or Damage("truncated_stream", ends)
        return data


_GNU_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


def _plain(block: bytes) -> tuple[str, int] | None:
    """Name and size that a plain header of a regular file gives; None of any other, and where its checksum is wrong."""
    match = _PLAIN.fullmatch(block)
    if match is None or _sum(block) - sum(match["sum"]) + 8 * ord(" ") != int(match["octal"], 8):
        return None
    name, prefix = (_text(match[part]) for part in ("name", "prefix"))
    return f"{prefix}/{name}" if prefix else name, int(match["size"], 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _sum(block: bytes) -> int:
    """Sum of the bytes of a header.

    The lower half of Adler-32 is one more than the sum of the bytes, modulo 65,521, which 256 bytes do not reach.
    """
    half = len(block) // 2
    return (zlib.adler32(block[:half]) & 0xFFFF) + (zlib.adler32(block[half:]) & 0xFFFF) - 2


def _padded(size: int) -> int:
    return -(-size // _UNIT) * _UNIT


def _split(name: str | None) -> tuple[str, str]:
    """Key and extension of a member; no key where it belongs to no sample."""
    if name is None or _META.match(name):
        return "", ""
    folder, slash, file = name.rpartition("/")
    stem, dot, extension = file.partition(".")
    return (folder + slash + stem, extension.lower()) if stem and dot else ("", "")


def _parsed(data: bytes | Damage | None) -> Any:
    """The value of a member ``json``; a Damage where it has none."""
    if data is None or isinstance(data, Damage):
        return data
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError as error:
        return Damage("bad_utf8", f"{error.reason} at byte {error.start} of the member json", data)
    except (ValueError, RecursionError) as error:
        why = f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else "can't be read"
        return Damage("bad_json", f"the member json: {why}", data)
