"""Records as lines of a compressed file: what ``jsonl`` writes, and the pieces that any format's merge reads."""

import json
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import zstandard

from cptsel.pipeline.exports.base import Record

LEVEL = 9  # of zstd, one thread: equal lines give equal bytes

_CHUNK = 1 << 20


def to_line(record: Record) -> bytes:
    """A record as one line."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def write_lines(path: str, lines: Iterable[bytes]) -> None:
    """Write lines, compressed."""
    from cptsel.pipeline import io

    compressor = zstandard.ZstdCompressor(level=LEVEL, threads=0, write_checksum=True)
    with io.atomic_writer(path) as handle, compressor.stream_writer(handle, closefd=False) as stream:
        for line in lines:
            stream.write(line)


def read_lines(data: bytes) -> list[bytes]:
    """The lines that ``write_lines`` wrote, without their ends."""
    with zstandard.ZstdDecompressor().stream_reader(data) as stream:
        return stream.read().split(b"\n")[:-1]


def parse_line(line: bytes) -> Record:
    """The record of one line, without the line's end.

    Raises:
        ValueError: it is not what ``to_line`` makes of a record.
    """
    record = json.loads(line)
    if not isinstance(record, dict) or to_line(record) != line + b"\n":
        raise ValueError("is not a JSON object as export writes it")
    return record


def stream_lines(path: str) -> Iterator[bytes]:
    """The lines of a file that ``write_lines`` wrote, without their ends, in pieces.

    Raises:
        ValueError: the stream breaks off or is corrupt, something follows it, or the last line has no end.
    """
    from cptsel.pipeline import io

    with io.open_read(path) as handle:
        yield from split_lines(_one_frame(handle))


def _one_frame(handle: BinaryIO) -> Iterator[bytes]:
    """The bytes of a zstd stream of one frame."""
    decoder = zstandard.ZstdDecompressor().decompressobj()
    try:
        while chunk := handle.read(_CHUNK):
            if decoder.eof:
                raise ValueError("has bytes after its zstd stream")
            yield decoder.decompress(chunk)
    except zstandard.ZstdError as error:
        raise ValueError(f"is no whole zstd stream ({error})") from error
    if not decoder.eof:
        raise ValueError("is no whole zstd stream (it breaks off)")
    if decoder.unused_data:
        raise ValueError("has bytes after its zstd stream")


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of bytes that come in pieces, without their ends.

    Raises:
        ValueError: the last line has no end.
    """
    left: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        left.append(first)
        for other in others:
            yield b"".join(left)
            left = [other]
    if any(left):
        raise ValueError("ends inside a line")
