"""Second step of an export that a curriculum orders over shards: pieces that shards wrote become parts in order."""

from dataclasses import dataclass
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.exports.shard import decompress, write_lines

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
    """MergeTask → {name, sha256, bytes, lines, tokens}. Holds one part's lines."""

    out: str
    work: str

    def __call__(self, task: MergeTask) -> dict[str, Any]:
        numbered = []
        for piece in task.pieces:
            for line in decompress(io.read_bytes(piece)).split(b"\n")[:-1]:
                rank, _, text = line.partition(b"\t")
                numbered.append((int(rank), text + b"\n"))
        numbered.sort()
        digest, size = write_lines(io.join(self.out, task.name), (line for _, line in numbered))
        io.write_bytes(io.join(self.work, STEP, str(task.number)), b"")
        return {"name": task.name, "sha256": digest, "bytes": size, "lines": task.lines, "tokens": task.tokens}


def merge_pieces(out: str, files: list[dict[str, Any]], steps: Steps) -> list[dict[str, Any]]:
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
    return [file for file in files if "piece" not in file] + steps.run(STEP, MergePart(out, steps.work), tasks)
