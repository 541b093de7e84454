"""Checks of a manifest against its corpus: every shard's bytes, every window's text or ids. By Beam, a file a task."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.manifest import Manifest, samples_name, source_uri
from cptsel.pipeline.artifacts.problems import KEPT, Problems
from cptsel.pipeline.artifacts.texts import WINDOW_COLUMNS
from cptsel.pipeline.corpus.contents import Content, content_bytes, window_of
from cptsel.pipeline.corpus.documents import read_texts
from cptsel.pipeline.corpus.formats.registry import FORMATS
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import BadInputError
from cptsel.pipeline.hashing import content_hash
from cptsel.pipeline.summary import counted
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verification.scratch import scratch_steps

STEP = "corpus"
_IDENTITY = ("format", "compression", "bytes", "sha256", "companion_bytes", "companion_sha256")
_FIND = "restore the file, or pass --root where the corpus lies now"


_Rows = dict[int, list[tuple[str, int, dict[str, Any]]]]
"""Samples by their row of the corpus: file and row of the manifest, and what that says."""


@dataclass(frozen=True)
class SourceTask:
    """A file of the corpus with samples: where it lies now, and its rows of shards.parquet.

    It has one in every pool of one corpus; they say the same of it.
    """

    uri: str
    shards: list[dict[str, Any]]


@dataclass(frozen=True)
class CheckSource:
    """SourceTask → [problems in all, [[file, row, what, mend], ...] of the first]."""

    directory: str
    text_field: str
    work: str

    def __call__(self, task: SourceTask) -> list[Any]:
        problems, shard = Problems(), task.shards[0]
        format = FORMATS[shard["format"]]
        companion = format.companion(task.uri)
        files = [(task.uri, shard["sha256"], shard["bytes"])]
        if companion is not None and (format.needs_companion or shard.get("companion_sha256")):
            files.append((companion, shard.get("companion_sha256"), shard.get("companion_bytes")))
        there = [_check_file(*file, problems) for file in files]
        if all(there):
            self._check_texts(task, problems)
        io.write_scratch(io.join(self.work, STEP, str(shard["shard_id"])), b"")
        return problems.handed()

    def _check_texts(self, task: SourceTask, problems: Problems) -> None:
        """Every window has its content hash, found by its row and, where it has one, by its offset."""
        rows: _Rows = {}
        for name in (samples_name(shard["shard_id"]) for shard in task.shards):
            table = io.read_parquet(io.join(self.directory, name), WINDOW_COLUMNS)
            for place, row in enumerate(table.to_pylist()):
                rows.setdefault(row["row_index"], []).append((name, place, row))
        format, ways = FORMATS[task.shards[0]["format"]], [False, True]
        if format.needs_offsets or not format.has_offsets(task.shards[0]["compression"]):
            ways = [format.needs_offsets]
        for by_offset in ways:
            for row_index, content in _texts(task, self.text_field, rows, by_offset):
                for name, place, row in rows[row_index]:
                    wrong = content if isinstance(content, BadInputError) else _difference(content, row)
                    if wrong:
                        found = f"at its byte offset: {wrong}" if by_offset else str(wrong)
                        problems.add(name, place, found)


def _check_file(uri: str, sha256: str | None, size: int | None, problems: Problems) -> bool:
    """Whether a file is there, as it is or changed."""
    if not io.exists(uri):
        problems.add(uri, None, "is missing", _FIND)
        return False
    found = outputs.hash_file(uri)
    if found != (sha256, size):
        what = f"is not the file that was embedded: {counted(found[1], 'byte')}, SHA-256 {found[0][:12]}..."
        problems.add(uri, None, what, _FIND)
    return True


def _texts(
    task: SourceTask, text_field: str, rows: _Rows, by_offset: bool
) -> Iterator[tuple[int, Content | BadInputError]]:
    """Contents of the documents, in order; where one can't be read, its error. Ends after KEPT errors."""
    wanted: list[tuple[int, int | None, int | None]] = []
    for key in sorted(rows):
        _, _, row = rows[key][0]
        wanted.append((key, row["byte_offset"], row["byte_length"]) if by_offset else (key, None, None))
    shard, done, failures = task.shards[0], 0, 0
    while done < len(wanted) and failures < KEPT:
        try:
            texts = read_texts(task.uri, shard["format"], shard["compression"], text_field, wanted[done:])
            for row_index, content in texts:
                yield row_index, content
                done += 1
        except BadInputError as error:
            yield wanted[done][0], error
            done, failures = done + 1, failures + 1


def _difference(content: Content, row: dict[str, Any]) -> str | None:
    """What is wrong with a document for a window, None if nothing is."""
    text = isinstance(content, str)
    end = row["char_end"] if text else row["token_start"] + row["token_count"]
    if end is None:
        return f"char_end is null, and row {row['row_index']} of the corpus is a text"
    if end > len(content):
        unit = "code points" if text else "ids"
        return f"row {row['row_index']} of the corpus has {len(content)} {unit}, but the window ends at {end}"
    if content_hash(content_bytes(window_of(content, row))) != row["content_hash"]:
        what = f"text of row {row['row_index']} of the corpus is" if text else f"ids of row {row['row_index']} are"
        return f"the {what} not what was embedded (content_hash differs)"
    return None


def check_sources(manifest: Manifest, config: VerifyConfig, problems: Problems, progress: Progress | None) -> str:
    """Check all files that have samples, in parallel. Returns what was looked at."""
    tasks = _tasks(manifest, config.root)
    with scratch_steps(manifest.directory, config, progress) as steps:
        results = steps.run(STEP, CheckSource(manifest.directory, manifest.text_field, steps.work), tasks)
    for found in results:
        problems.take(*found)
    size = sum(task.shards[0]["bytes"] for task in tasks)
    return f"{counted(len(tasks), 'file')}, {counted(size, 'byte')}"


def _tasks(manifest: Manifest, root: str | None) -> list[SourceTask]:
    files = manifest.sample_files()
    tasks: dict[tuple[Any, ...], SourceTask] = {}
    for shard in manifest.shards().to_pylist():
        if shard["shard_id"] in files:
            uri = source_uri(shard, root)
            identity = (uri, *(shard.get(name) for name in _IDENTITY))
            tasks.setdefault(identity, SourceTask(uri, [])).shards.append(shard)
    return list(tasks.values())
