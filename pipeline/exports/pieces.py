"""Pieces: what one shard gives to a file of the export, as records in lines, and how a file's pieces become its plays.

``export`` merges pieces into files of several shards. ``verify`` makes pieces of what every file is to hold.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.exports.base import Record
from cptsel.pipeline.exports.lines import read_lines, to_line, write_lines
from cptsel.pipeline.exports.plan import PART_PLAYS, ExportTask, Visit

PIECES = "pieces"


@dataclass(frozen=True)
class MergeTask:
    """A file of the export, by name and number, the pieces of each of its parts, and what they hold together."""

    number: int
    name: str
    parts: tuple[tuple[str, ...], ...]
    lines: int
    tokens: int


def played(rows: list[dict[str, Any]], visit: Visit) -> list[dict[str, Any]]:
    """The rows of a samples file that a visit plays, in their order."""
    return [row for row in rows if row["phase"] == visit.phase and row["repeat"] >= visit.number]


def extent(rows: list[dict[str, Any]]) -> dict[str, int]:
    """How many plays and predicted tokens rows are, once each."""
    return {"lines": len(rows), "tokens": sum(row["n_tokens"] for row in rows)}


def facts_of_play(task: ExportTask, visit: Visit, row: dict[str, Any], weighs_losses: bool) -> Record:
    """What a play says beside its text and token ids; its ``loss_weight`` is what is left to multiply the loss by."""
    place = {} if task.first is None else {"index": task.first + row["row_index"]}
    return {
        **place,
        "id": row["doc_id"],
        "sample_id": row["sample_id"],
        "group": row["group"],
        "weight": row["weight"],
        "loss_weight": row["loss_weight"] if weighs_losses else 1.0,
        "repeat": visit.number,
        "shard": task.shard["path"],
        "row": row["row_index"],
    }


def write_pieces(
    work: str, task: ExportTask, visit: Visit, rows: list[dict[str, Any]], record: Callable[[dict[str, Any]], Record]
) -> Iterator[dict[str, Any]]:
    """Write the plays of a visit, each after the visit's place in its part and its rank.

    Args:
        work: directory of the pieces.
        task: the shard.
        visit: one of its visits.
        rows: that it plays, by ``order_rank``.
        record: of a row.

    Yields:
        {name, part, piece, lines, tokens}: of every file that it is in, the file, the part, and the piece's path.
    """
    for part, mine in groupby(rows, key=lambda row: int(row["order_rank"]) // PART_PLAYS if visit.by_rank else 0):
        name, piece = visit.file.format(part=part), list(mine)
        number = [visit.number, part] if visit.by_rank else [visit.part or 0]
        mine_alone = "-".join(map(str, [task.shard["shard_id"], *number, visit.place]))
        path = io.join(work, PIECES, name, mine_alone)
        numbered = ((b"%d\t%d\t" % (visit.place, row["order_rank"]), row) for row in piece)
        write_lines(path, (head + to_line(record(row)) for head, row in numbered))
        yield {"name": name, "part": number, "piece": path, **extent(piece)}


def read_pieces(parts: Sequence[Sequence[str]]) -> Iterator[Record]:
    """Records of parts in order; inside one, which is held, by place of the visit and rank."""
    for pieces in parts:
        numbered = []
        for piece in pieces:
            for line in read_lines(io.read_bytes(piece)):
                place, rank, record = line.split(b"\t", 2)
                numbered.append((int(place), int(rank), record))
        numbered.sort()
        for _, _, record in numbered:
            yield json.loads(record)


def merge_tasks(pieces: list[dict[str, Any]]) -> list[MergeTask]:
    """The files that pieces belong to, by name."""
    by_file: dict[str, dict[tuple[int, ...], list[dict[str, Any]]]] = {}
    for piece in pieces:
        by_file.setdefault(piece["name"], {}).setdefault(tuple(piece["part"]), []).append(piece)
    tasks = []
    for number, (name, parts) in enumerate(sorted(by_file.items())):
        found = [piece for part in parts.values() for piece in part]
        paths = tuple(tuple(piece["piece"] for piece in parts[part]) for part in sorted(parts))
        lines, tokens = (sum(piece[key] for piece in found) for key in ("lines", "tokens"))
        tasks.append(MergeTask(number, name, paths, lines, tokens))
    return tasks
