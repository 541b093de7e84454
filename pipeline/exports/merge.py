"""Second step of an export whose files hold plays of several shards: pieces that shards wrote become files in order."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.lines import read_lines
from cptsel.pipeline.exports.shard import described
from cptsel.pipeline.model.vocabulary import Vocabulary

STEP = "merge"


@dataclass(frozen=True)
class MergeTask:
    """A file of the export, by name and number, the pieces of each of its parts, and what they hold together."""

    number: int
    name: str
    parts: tuple[tuple[str, ...], ...]
    lines: int
    tokens: int


@dataclass(frozen=True)
class MergeFile:
    """MergeTask → [{name, sha256, bytes, lines, tokens}, ...]. Holds one part's records."""

    format: ExportFormat
    vocabulary: Vocabulary | None
    out: str
    work: str

    def __call__(self, task: MergeTask) -> list[dict[str, Any]]:
        written = self.format.write(io.join(self.out, task.name), _records(task.parts), self.vocabulary)
        io.write_bytes(io.join(self.work, STEP, str(task.number)), b"")
        return described(self.out, written, task.lines, task.tokens)


def _records(parts: tuple[tuple[str, ...], ...]) -> Iterator[Record]:
    """Records of parts in order; inside one, by place of the visit and rank."""
    for pieces in parts:
        numbered = []
        for piece in pieces:
            for line in read_lines(io.read_bytes(piece)):
                place, rank, record = line.split(b"\t", 2)
                numbered.append((int(place), int(rank), record))
        numbered.sort()
        for _, _, record in numbered:
            yield json.loads(record)


def merge_pieces(
    format: ExportFormat, vocabulary: Vocabulary | None, out: str, files: list[dict[str, Any]], steps: Steps
) -> list[dict[str, Any]]:
    """Files of the export, from what the shards wrote: files as they are, and pieces, which are merged."""
    pieces: dict[str, dict[tuple[int, ...], list[dict[str, Any]]]] = {}
    for file in files:
        if "piece" in file:
            pieces.setdefault(file["name"], {}).setdefault(tuple(file["part"]), []).append(file)
    tasks = []
    for number, (name, parts) in enumerate(sorted(pieces.items())):
        found = [piece for part in parts.values() for piece in part]
        paths = tuple(tuple(piece["piece"] for piece in parts[part]) for part in sorted(parts))
        lines, tokens = (sum(piece[key] for piece in found) for key in ("lines", "tokens"))
        tasks.append(MergeTask(number, name, paths, lines, tokens))
    merged = steps.run(STEP, MergeFile(format, vocabulary, out, steps.work), tasks)
    return [file for file in files if "piece" not in file] + [file for written in merged for file in written]
