"""JSON lines, compressed with zstd: a play a line."""

from collections.abc import Iterable
from typing import ClassVar

from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.lines import to_line, write_lines


class Jsonl(ExportFormat):
    """One JSON object a play."""

    name: ClassVar[str] = "jsonl"
    summary: ClassVar[str] = "JSON lines, zstd-compressed, repeats expanded, files in order"
    suffix: ClassVar[str] = ".jsonl.zst"

    def write(self, path: str, records: Iterable[Record]) -> tuple[str, int]:
        return write_lines(path, map(to_line, records))
