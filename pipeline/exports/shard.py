"""One shard's part of an export: read its texts once, write a file for each visit."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import parse_table, read_data_file
from cptsel.pipeline.corpus.documents import read_texts
from cptsel.pipeline.errors import VerificationError
from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.lines import to_line, write_lines
from cptsel.pipeline.exports.plan import ExportTask, Visit, check_shard
from cptsel.pipeline.hashing import content_hash

STEP = "export"
PIECES = "pieces"
PART_RANKS = 8192  # of a curriculum in one file of the export, so that a worker can hold them

_COLUMNS = [
    "sample_id", "doc_key", "doc_id", "row_index", "byte_offset", "byte_length", "char_start", "char_end", "n_tokens",
    "content_hash", "weight", "loss_weight", "repeat", "phase", "order_rank", "group",
]  # fmt: skip


@dataclass(frozen=True)
class WriteShard:
    """ExportTask → {"files": [{name, sha256, bytes, lines, tokens}], "excluded": {samples, lines, tokens}}.

    A piece is {name, piece, lines, tokens}, where ``piece`` is the file with its records as JSON lines, each after its
    rank and a tab, whatever the format.
    ``weighs_losses``: whether a line's ``loss_weight`` is that of the manifest, or 1 because something else (repeats,
    draws, nothing) realises the weight.
    """

    format: ExportFormat
    out: str
    work: str
    text_field: str
    exclude: frozenset[str]
    weighs_losses: bool

    def __call__(self, task: ExportTask) -> dict[str, Any]:
        data = read_data_file(task.samples, task.sha256)
        rows = parse_table(data, _COLUMNS).sort_by("order_rank").to_pylist()
        excluded = [row for row in rows if self._is_excluded(row)]
        # A list may name whole documents by their text, so that it takes reading also what is never played.
        kept = [row for row in rows if (row["repeat"] > 0 or self.exclude) and not self._is_excluded(row)]
        listed = self._add_texts(task, kept)
        excluded += [row for row in kept if row["row_index"] in listed]
        kept = [row for row in kept if row["row_index"] not in listed]
        files: list[dict[str, Any]] = []
        left_out = {"samples": len(excluded), "lines": 0, "tokens": 0}
        for visit in task.visits:
            lost = _played(excluded, visit)
            left_out["lines"] += len(lost)
            left_out["tokens"] += sum(row["n_tokens"] for row in lost)
            played = _played(kept, visit)
            if visit.spread:
                files += self._write_pieces(task, visit, played)
            elif played:
                files.append(self._write(task, visit, played))
        io.write_bytes(io.join(self.work, STEP, str(task.shard["shard_id"])), b"")
        return {"files": files, "excluded": left_out}

    def _is_excluded(self, row: dict[str, Any]) -> bool:
        names = (row["doc_id"], row["doc_key"], row["sample_id"], row["content_hash"].hex())
        return not self.exclude.isdisjoint(names)

    def _add_texts(self, task: ExportTask, rows: list[dict[str, Any]]) -> set[int]:
        """Set ``text`` of every row, holding it against ``content_hash``.

        Returns:
            row_index of the documents whose whole text is excluded by its hash, as ``embed`` does.
        """
        listed = set()
        by_document: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            by_document.setdefault(row["row_index"], []).append(row)
        first = {key: by_document[key][0] for key in sorted(by_document)}
        wanted = [(key, row["byte_offset"], row["byte_length"]) for key, row in first.items()]
        check_shard(task.uri)
        shard = task.shard
        for row_index, text in read_texts(task.uri, shard["format"], shard["compression"], self.text_field, wanted):
            if self.exclude and content_hash(text.encode()).hex() in self.exclude:
                listed.add(row_index)
            for row in by_document[row_index]:
                row["text"] = text[row["char_start"] : row["char_end"]]
                if content_hash(row["text"].encode()) != row["content_hash"]:
                    raise VerificationError(
                        f"{task.uri}: row {row_index} is not the text that was embedded (content_hash differs); "
                        "restore the file, and run cptsel verify --sources to see all that changed"
                    )
        return listed

    def _write(self, task: ExportTask, visit: Visit, rows: list[dict[str, Any]]) -> dict[str, Any]:
        records = (self._record(task, visit, row) for row in rows)
        digest, size = self.format.write(io.join(self.out, visit.name), records)
        return {"name": visit.name, "sha256": digest, "bytes": size, **_extent(rows)}

    def _write_pieces(self, task: ExportTask, visit: Visit, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for part, mine in groupby(rows, key=lambda row: int(row["order_rank"]) // PART_RANKS):
            name, piece = f"{visit.name}/{part:09d}{self.format.suffix}", list(mine)
            path = io.join(self.work, PIECES, name, str(task.shard["shard_id"]))
            write_lines(path, (b"%d\t" % row["order_rank"] + to_line(self._record(task, visit, row)) for row in piece))
            yield {"name": name, "piece": path, **_extent(piece)}

    def _record(self, task: ExportTask, visit: Visit, row: dict[str, Any]) -> Record:
        """One play; its ``loss_weight`` is what is left to multiply the loss by."""
        return {
            "text": row["text"],
            "id": row["doc_id"],
            "sample_id": row["sample_id"],
            "group": row["group"],
            "weight": row["weight"],
            "loss_weight": row["loss_weight"] if self.weighs_losses else 1.0,
            "repeat": visit.number,
            "shard": task.shard["path"],
            "row": row["row_index"],
        }


def _extent(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {"lines": len(rows), "tokens": sum(row["n_tokens"] for row in rows)}


def _played(rows: list[dict[str, Any]], visit: Visit) -> list[dict[str, Any]]:
    return [row for row in rows if row["phase"] == visit.phase and row["repeat"] >= visit.number]
