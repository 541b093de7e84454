"""Second step of an export that a curriculum orders over shards: pieces that shards wrote become parts in order."""

import json
from dataclasses import dataclass
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.exports.base import ExportFormat
from cptsel.pipeline.exports.lines import read_lines

STEP = "merge"


@dataclass(frozen=True)
class MergeTask:
    """A file of the export, by name and number, its pieces, and what they hold together."""

    number: int
    name: str
    pieces: tuple[str, ...]
    lines: int
    tokens: int


@dataclass(frozen=True)
class MergePart:
    """MergeTask → {name, sha256, bytes, lines, tokens}. Holds one part's records."""

    format: ExportFormat
    out: str
    work: str

    def __call__(self, task: MergeTask) -> dict[str, Any]:
        numbered = []
        for piece in task.pieces:
            for line in read_lines(io.read_bytes(piece)):
                rank, _, record = line.partition(b"\t")
                numbered.append((int(rank), record))
        numbered.sort()
        digest, size = self.format.write(io.join(self.out, task.name), (json.loads(record) for _, record in numbered))
        io.write_bytes(io.join(self.work, STEP, str(task.number)), b"")
        return {"name": task.name, "sha256": digest, "bytes": size, "lines": task.lines, "tokens": task.tokens}


def merge_pieces(format: ExportFormat, out: str, files: list[dict[str, Any]], steps: Steps) -> list[dict[str, Any]]:
    """Files of the export, from what the shards wrote: files as they are, and pieces, which are merged by rank."""
    pieces: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        if "piece" in file:
            pieces.setdefault(file["name"], []).append(file)
    tasks = [
        MergeTask(
            number,
            name,
            tuple(piece["piece"] for piece in pieces[name]),
            sum(piece["lines"] for piece in pieces[name]),
            sum(piece["tokens"] for piece in pieces[name]),
        )
        for number, name in enumerate(sorted(pieces))
    ]
    return [file for file in files if "piece" not in file] + steps.run(STEP, MergePart(format, out, steps.work), tasks)
