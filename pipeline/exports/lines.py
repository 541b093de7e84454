"""Records as lines of a compressed file: what ``jsonl`` writes, and the pieces that any format's merge reads."""

import json
from collections.abc import Iterable

import zstandard

from cptsel.pipeline.exports.base import Record

LEVEL = 9  # of zstd, one thread: equal lines give equal bytes


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
