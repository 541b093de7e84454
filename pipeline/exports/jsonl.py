"""JSON lines, compressed with zstd: a play a line."""

import json
from collections.abc import Iterable
from typing import ClassVar

import zstandard

from cptsel.pipeline.exports.base import ExportFormat, Record

LEVEL = 9  # of zstd, one thread: equal lines give equal bytes


class Jsonl(ExportFormat):
    """One JSON object a play."""

    name: ClassVar[str] = "jsonl"
    summary: ClassVar[str] = "JSON lines, zstd-compressed, repeats expanded, files in order"
    suffix: ClassVar[str] = ".jsonl.zst"

    def write(self, path: str, records: Iterable[Record]) -> tuple[str, int]:
        return write_lines(path, map(to_line, records))


def to_line(record: Record) -> bytes:
    """A record as one line."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def write_lines(path: str, lines: Iterable[bytes]) -> tuple[str, int]:
    """Write lines, compressed; SHA-256 in hex and size of the file."""
    from cptsel.pipeline import io
    from cptsel.pipeline.artifacts import outputs

    compressor = zstandard.ZstdCompressor(level=LEVEL, threads=0, write_checksum=True)
    with io.atomic_writer(path) as handle, compressor.stream_writer(handle, closefd=False) as stream:
        for line in lines:
            stream.write(line)
    return outputs.hash_file(path)


def read_lines(data: bytes) -> list[bytes]:
    """The lines that ``write_lines`` wrote, without their ends."""
    with zstandard.ZstdDecompressor().stream_reader(data) as stream:
        return stream.read().split(b"\n")[:-1]
