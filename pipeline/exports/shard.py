"""One shard's part of an export: read its documents once, write a file or a piece of one for each visit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.manifest import parse_table, read_data_file
from cptsel.pipeline.artifacts.texts import check_shard, checked_texts, rows_by_document
from cptsel.pipeline.artifacts.token_ids import TokenIds
from cptsel.pipeline.corpus.contents import Content, content_bytes
from cptsel.pipeline.errors import BadInputError
from cptsel.pipeline.exports.base import ExportFormat, Linked, Record
from cptsel.pipeline.exports.pieces import extent, facts_of_play, played, write_pieces
from cptsel.pipeline.exports.plan import ExportTask, Visit
from cptsel.pipeline.hashing import content_hash

STEP = "export"

COLUMNS = [
    "sample_id", "doc_key", "doc_id", "row_index", "byte_offset", "byte_length", "char_start", "char_end", "n_tokens",
    "token_start", "token_count", "content_hash", "weight", "loss_weight", "repeat", "phase", "order_rank", "group",
]  # fmt: skip


@dataclass(frozen=True)
class WriteShard:
    """ExportTask → {"files": [{name, sha256, bytes, lines, tokens}], "excluded": {samples, lines, tokens}}.

    A piece, of a file that holds plays of several shards, is what ``write_pieces`` says.
    ``token_ids``: how to make them, where plays have them.
    ``weighs_losses``: whether a line's ``loss_weight`` is that of the manifest, or 1 because something else (repeats,
    draws, nothing) realises the weight.
    """

    format: ExportFormat
    out: str
    work: str
    text_field: str
    token_ids: TokenIds | None
    exclude: frozenset[str]
    weighs_losses: bool

    def __call__(self, task: ExportTask) -> dict[str, Any]:
        data = read_data_file(task.samples, task.sha256)
        rows = parse_table(data, COLUMNS).sort_by("order_rank").to_pylist()
        excluded = [row for row in rows if self._is_excluded(row)]
        # A list may name whole documents by their text, so that it takes reading also what is never played.
        kept = [row for row in rows if (row["repeat"] > 0 or self.exclude) and not self._is_excluded(row)]
        listed = self._add_texts(task, kept)
        excluded += [row for row in kept if row["row_index"] in listed]
        kept = [row for row in kept if row["row_index"] not in listed]
        files: list[dict[str, Any]] = []
        left_out = {"samples": len(excluded), "lines": 0, "tokens": 0}
        for visit in task.visits:
            lost = played(excluded, visit)
            left_out["lines"] += len(lost)
            left_out["tokens"] += sum(row["n_tokens"] for row in lost)
            mine = played(kept, visit)
            if visit.part is not None:
                files += write_pieces(self.work, task, visit, mine, partial(self._record, task, visit))
            elif mine:
                files += self._write(task, visit, mine)
        io.write_scratch(io.join(self.work, STEP, str(task.shard["shard_id"])), b"")
        return {"files": files, "excluded": left_out}

    def _is_excluded(self, row: dict[str, Any]) -> bool:
        names = (row["doc_id"], row["doc_key"], row["sample_id"], row["content_hash"].hex())
        return not self.exclude.isdisjoint(names)

    def _add_texts(self, task: ExportTask, rows: list[dict[str, Any]]) -> set[int]:
        """Set ``content`` of every row, holding it against ``content_hash``, and ``input_ids`` where they are written.

        Returns:
            row_index of the documents whose whole text is excluded by its hash, as ``embed`` does.
        """
        listed: set[int] = set()
        by_document = rows_by_document(rows)
        check_shard(task.uri)
        checked = checked_texts(task.uri, task.shard, self.text_field, by_document)
        read = self._listed(checked, listed, task.uri, by_document)
        if self.token_ids is None:
            for _ in read:
                pass
            return listed
        for row, ids in self.token_ids.of_windows(read, by_document, task.uri):
            row["input_ids"] = ids
        return listed

    def _listed(
        self,
        contents: Iterator[tuple[int, Content]],
        listed: set[int],
        uri: str,
        rows: dict[int, list[dict[str, Any]]],
    ) -> Iterator[tuple[int, Content]]:
        """The documents' contents as they come; adds to ``listed`` as ``_add_texts`` returns it."""
        for row_index, content in contents:
            if self.exclude and content_hash(content_bytes(content)).hex() in self.exclude:
                listed.add(row_index)
            if self.format.refers == "index":
                self._check_whole(uri, content, rows[row_index])
            yield row_index, content

    def _check_whole(self, uri: str, content: Content, rows: list[dict[str, Any]]) -> None:
        """Raise BadInputError where a sample is not its whole document."""
        for row in rows:
            if (row["char_start"], row["char_end"]) != (0, len(content)):
                raise BadInputError(
                    f"{uri}: of row {row['row_index']} a window was chosen, and --to {self.format.name} takes whole "
                    "documents alone; use --to hf, or embed with larger --max-tokens"
                )

    def _write(self, task: ExportTask, visit: Visit, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        records = (self._record(task, visit, row) for row in rows)
        vocabulary = None if self.token_ids is None else self.token_ids.vocabulary
        written = self.format.write(io.join(self.out, visit.file), records, vocabulary)
        return described(self.out, written, **extent(rows))

    def _record(self, task: ExportTask, visit: Visit, row: dict[str, Any]) -> Record:
        """One play; without text where the corpus is of token ids."""
        text = {"text": row["content"]} if isinstance(row["content"], str) else {}
        ids = {} if self.token_ids is None else {"input_ids": row["input_ids"]}
        place = {"place": _place(task, row)} if self.format.refers == "place" else {}
        return {**text, **facts_of_play(task, visit, row, self.weighs_losses), **ids, **place}


def _place(task: ExportTask, row: dict[str, Any]) -> dict[str, Any]:
    """Where a play lies in its shard, for formats that point there."""
    source = {"uri": task.uri, "sha256": task.shard["sha256"], "bytes": task.shard["bytes"]}
    return {"source": source, "row": row["row_index"], **{key: row[key] for key in ("token_start", "token_count")}}


def described(out: str, paths: Sequence[str | Linked], lines: int, tokens: int) -> list[dict[str, Any]]:
    """Entries of files that were written together; the first holds the plays."""
    entries = []
    for number, path in enumerate(paths):
        path, digest, size = path if isinstance(path, Linked) else (path, *outputs.hash_file(path))
        extent = {"lines": 0 if number else lines, "tokens": 0 if number else tokens}
        entries.append({"name": path.removeprefix(f"{out}/"), "sha256": digest, "bytes": size, **extent})
    return entries
