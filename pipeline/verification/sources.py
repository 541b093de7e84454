"""Checks of a manifest against its corpus: every shard's bytes, every window's text. By Beam, a shard a task."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.manifest import Manifest, samples_name, source_uri
from cptsel.pipeline.artifacts.problems import KEPT, Problem, Problems
from cptsel.pipeline.config import VerifyConfig
from cptsel.pipeline.corpus.documents import read_texts
from cptsel.pipeline.corpus.formats.registry import FORMATS
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import BadInputError
from cptsel.pipeline.hashing import content_hash
from cptsel.pipeline.verification.scratch import scratch_steps

STEP = "corpus"
_FIND = "restore the file, or pass --root where the corpus lies now"
_COLUMNS = ["row_index", "byte_offset", "byte_length", "char_start", "char_end", "content_hash"]


@dataclass(frozen=True)
class SourceTask:
    """A shard of the corpus with samples: its row of shards.parquet and where it lies now."""

    shard: dict[str, Any]
    uri: str


@dataclass(frozen=True)
class CheckSource:
    """SourceTask → [problems in all, [[file, row, what, mend], ...] of the first]."""

    directory: str
    text_field: str
    work: str

    def __call__(self, task: SourceTask) -> list[Any]:
        problems = Problems()
        if not io.exists(task.uri):
            problems.add(task.uri, None, "is missing", _FIND)
        else:
            digest, size = outputs.hash_file(task.uri)
            if (digest, size) != (task.shard["sha256"], task.shard["bytes"]):
                found = f"{size:,} bytes, SHA-256 {digest[:12]}..."
                problems.add(task.uri, None, f"is not the file that was embedded: {found}", _FIND)
            self._check_texts(task, problems)
        io.write_bytes(io.join(self.work, STEP, str(task.shard["shard_id"])), b"")
        return [problems.total, [astuple(problem) for problem in problems.listed()]]

    def _check_texts(self, task: SourceTask, problems: Problems) -> None:
        """The text of every window has its content hash, found by its row and, where it has one, by its offset."""
        name = samples_name(task.shard["shard_id"])
        table = io.read_parquet(io.join(self.directory, name), _COLUMNS)
        rows: dict[int, list[tuple[int, dict[str, Any]]]] = {}
        for place, row in enumerate(table.to_pylist()):
            rows.setdefault(row["row_index"], []).append((place, row))
        seekable = FORMATS[task.shard["format"]].has_offsets(task.shard["compression"])
        for by_offset in [False, True] if seekable else [False]:
            for row_index, text in _texts(task, self.text_field, rows, by_offset):
                for place, row in rows[row_index]:
                    wrong = text if isinstance(text, BadInputError) else _difference(text, row)
                    if wrong:
                        found = f"at its byte offset: {wrong}" if by_offset else str(wrong)
                        problems.add(name, place, found)


def _texts(
    task: SourceTask, text_field: str, rows: dict[int, list[tuple[int, dict[str, Any]]]], by_offset: bool
) -> Iterator[tuple[int, str | BadInputError]]:
    """Texts of the documents, in order; where one can't be read, its error. Ends after KEPT errors."""
    wanted: list[tuple[int, int | None, int | None]] = []
    for key in sorted(rows):
        row = rows[key][0][1]
        wanted.append((key, row["byte_offset"], row["byte_length"]) if by_offset else (key, None, None))
    shard, done, failures = task.shard, 0, 0
    while done < len(wanted) and failures < KEPT:
        try:
            texts = read_texts(task.uri, shard["format"], shard["compression"], text_field, wanted[done:])
            for row_index, text in texts:
                yield row_index, text
                done += 1
        except BadInputError as error:
            yield wanted[done][0], error
            done, failures = done + 1, failures + 1


def _difference(text: str, row: dict[str, Any]) -> str | None:
    """What is wrong with a document's text for a window, None if nothing is."""
    start, end = row["char_start"], row["char_end"]
    if end > len(text):
        return f"row {row['row_index']} of the corpus has {len(text)} code points, but the window ends at {end}"
    if content_hash(text[start:end].encode()) != row["content_hash"]:
        return f"the text of row {row['row_index']} of the corpus is not what was embedded (content_hash differs)"
    return None


def check_sources(manifest: Manifest, config: VerifyConfig, problems: Problems, progress: Progress | None) -> str:
    """Check all shards that have samples, in parallel. Returns what was looked at."""
    files = manifest.sample_files()
    tasks = [
        SourceTask(shard, source_uri(shard, config.root))
        for shard in manifest.shards().to_pylist()
        if shard["shard_id"] in files
    ]
    with scratch_steps(manifest.directory, config, progress) as steps:
        results = steps.run(STEP, CheckSource(manifest.directory, manifest.text_field, steps.work), tasks)
    for total, kept in results:
        problems.total += total
        problems.kept += [Problem(*entry) for entry in kept]
    return f"{len(results):,} files, {sum(task.shard['bytes'] for task in tasks):,} bytes"
