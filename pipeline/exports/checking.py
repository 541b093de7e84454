"""Checks of an export by itself: its header, its page and indexes, and every play of its files, read back."""

import csv
import math
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import zstandard

from cptsel import __version__
from cptsel.pipeline import io
from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.exports import page
from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.datasets import EXPORT, FORMAT, datasets
from cptsel.pipeline.exports.mixing import is_blend, mixed_paths, mixes_of, wrong_mix
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.hashing import content_hash
from cptsel.pipeline.summary import counted
from cptsel.schemas.arrow import SPEC_VERSION
from cptsel.schemas.headers import ExportHeader
from cptsel.schemas.validation import validate

STEP = "plays"
MEND = "export again"

#: What reading a damaged file may raise, in Python and the libraries that formats read by.
UNREADABLE = (
    ValueError, TypeError, LookupError, EOFError, OSError, OverflowError, MemoryError, RecursionError, struct.error,
    zlib.error, csv.Error, tarfile.TarError, zstandard.ZstdError, pa.ArrowException,
)  # fmt: skip

_PLAY = np.dtype([("sample", "<u8", 2), ("repeat", "<i4")])  # a play by name: hash of its sample_id, and its number
_DATASET = re.compile(r"data(/phase-\d+)?(/epoch-\d+)?")
_KINDS = {
    "text": "a text",
    "id": "a name or nothing",
    "sample_id": "a name",
    "group": "a name",
    "weight": "a number that is not negative",
    "loss_weight": "a number that is not negative",
    "repeat": "a number from 1 on",
    "shard": "a name",
    "row": "a number from 0 on",
    "index": "a number from 0 on",
    "input_ids": "token ids",
}


@dataclass(frozen=True)
class ReadTask:
    """A file of plays: its place among them, its name, and what ``export.json`` says that it holds."""

    number: int
    name: str
    lines: int
    tokens: int


@dataclass(frozen=True)
class ReadFile:
    """ReadTask → [problems in all, the first of them, whether tokens were counted].

    Leaves the names of its plays in ``work``, where the format keeps them.
    """

    format: ExportFormat
    directory: str
    work: str

    def __call__(self, task: ReadTask) -> list[Any]:
        problems, names = Problems(), bytearray()
        lines = tokens = 0
        ids = not self.format.writes_text
        for record in read_checked(self.format, self.directory, task.name, problems):
            ids = "input_ids" in record
            tokens += len(record.get("input_ids", ()))
            lines += 1
            if "sample_id" in record:
                names += hash_of(record["sample_id"]) + struct.pack("<i", record.get("repeat", 0))
        if not problems.total:
            if lines > task.lines or (lines < task.lines and not (self.format.joins and lines)):
                problems.add(task.name, None, f"holds {counted(lines, 'play')}, but {EXPORT} says {task.lines:,}", MEND)
            # Where nothing stands before a window, its first token is not predicted.
            elif ids and not self.format.refers and task.tokens not in (tokens, tokens - lines):
                problems.add(task.name, None, f"holds {tokens:,} token ids, but {EXPORT} says {task.tokens:,}", MEND)
        io.write_scratch(io.join(self.work, STEP, str(task.number)), bytes(names))
        return [*problems.handed(), ids]


def hash_of(sample_id: str) -> bytes:
    """16 bytes that stand for a sample_id, whatever a damaged file has in its place."""
    return content_hash(sample_id.encode())


def _plays_read(work: str, number: int) -> np.ndarray:
    """What ``ReadFile`` left of the plays of a file, in their order."""
    return np.frombuffer(io.read_bytes(io.join(work, STEP, str(number))), _PLAY)


def samples_read(work: str, count: int) -> set[bytes]:
    """``hash_of`` the samples that so many files play, once ``check_plays`` has read them."""
    return {sample.tobytes() for number in range(count) for sample in _plays_read(work, number)["sample"]}


def read_checked(format: ExportFormat, directory: str, name: str, problems: Problems) -> Iterator[Record]:
    """The plays of a file, until one is not what the format keeps of a play.

    That, and what can't be read, is a problem at the number of the play.
    """
    number = 0
    try:
        for record in format.read(io.join(directory, name)):
            if wrong := _wrong_field(format, record):
                problems.add(name, number, wrong, MEND)
                return
            yield record
            number += 1
    except UNREADABLE as error:
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        problems.add(name, None, f"can't be read behind its first {counted(number, 'play')}: {detail}", MEND)


def _wrong_field(format: ExportFormat, record: Record) -> str | None:
    """What a play has or lacks that the format's plays do not."""
    expected = set(format.keeps) | (set() if format.writes_text else {"input_ids"})
    if format.writes_ids and "input_ids" in record and "text" not in record:  # as of a corpus of token ids
        expected.discard("text")
    if missing := sorted(expected - set(record)):
        return f"has no {missing[0]}"
    if strange := sorted(set(record) - expected - ({"input_ids"} if format.writes_ids else set())):
        return f"has a field {strange[0]!r}, which is none of a play"
    found = next((name for name, value in record.items() if not _is_valid(name, value)), None)
    return None if found is None else f"{found} is {str(record[found])[:60]!r}, not {_KINDS[found]}"


def _is_valid(name: str, value: Any) -> bool:
    if name in ("weight", "loss_weight"):
        return isinstance(value, float) and math.isfinite(value) and value >= 0
    if name == "repeat":
        return type(value) is int and 1 <= value < 1 << 31
    if name in ("row", "index"):
        return type(value) is int and value >= 0
    if name == "input_ids":
        return isinstance(value, list) and len(value) > 0 and all(type(id) is int and id >= 0 for id in value)
    return isinstance(value, str) or (name == "id" and value is None)


def read_header(directory: str, problems: Problems) -> ExportHeader | None:
    """``export.json``, or None where it can't be read; what is wrong with it goes to ``problems``.

    Raises:
        UsageError: it is of a version that this release can't read.
    """
    path = io.join(directory, EXPORT)
    if not io.exists(path):
        problems.add(EXPORT, None, "is missing")
        return None
    try:
        found = io.read_json(path)
        version = found.get("spec_version") if isinstance(found, dict) else None
    except UsageError:
        problems.add(EXPORT, None, "is not valid JSON")
        return None
    if isinstance(version, int) and version > SPEC_VERSION:
        raise UsageError(f"{path}: spec_version {version} is newer than this cptsel reads ({SPEC_VERSION}); upgrade it")
    try:
        header = validate(found, "export")
    except ValueError as error:
        problems.add(EXPORT, None, str(error).removeprefix(f"{EXPORT}: "))
        return None
    assert header["format"] == FORMAT
    if header["to"] not in EXPORTS:
        problems.add(EXPORT, None, f"to is {header['to']!r}, which is none of {', '.join(EXPORTS)}")
        return None
    _check_files(EXPORTS[header["to"]], header, problems)
    entries = [dict[str, Any](entry) for entry in header["files"].values()]
    for key, said in header["totals"].items():
        added = len(entries) if key == "files" else sum(entry.get(key, 0) for entry in entries)
        if added != said:
            problems.add(EXPORT, None, f"totals.{key} is {said:,}, but its files add up to {added:,}")
    return header


def _check_files(format: ExportFormat, header: ExportHeader, problems: Problems) -> None:
    """Every file has a name of the format, and only files of plays have plays."""
    for name, entry in sorted(header["files"].items()):
        plays, inside = name.endswith(format.suffix), name.startswith("data/") and ".." not in name.split("/")
        if not inside or not name.endswith(format.ends()):
            problems.add(EXPORT, None, f"lists {name}, which is no file of a {format.name} export")
        elif not plays and (entry["lines"] or entry["tokens"]):
            problems.add(EXPORT, None, f"says that {name} holds plays")
    for name in sorted(set(header.get("code", ())) - set(format.code)):
        problems.add(EXPORT, None, f"lists {page.CODE}/{name}, which is no file of a {format.name} export")
    if wrong := wrong_mix(format, header):
        problems.add(EXPORT, None, wrong, MEND)
    fields = set(header["dataset"]["fields"]) if "dataset" in header else set(format.keeps)
    if "input_ids" in fields:  # of a corpus of token ids they stand without text
        fields = (fields - {"input_ids"}) | ({"text"} & set(format.keeps))
    if fields != set(format.keeps) or ("dataset" in header and format.media is None):
        problems.add(EXPORT, None, f"says that it is a data set that no {format.name} export is", MEND)


def _check_pages(directory: str, header: ExportHeader, problems: Problems) -> int:
    """Every page is what this release makes of ``export.json``, if this release wrote it. Returns their number."""
    written = header.get("tool", {}).get("version") == __version__
    expected = page.pages(EXPORTS[header["to"]], header)
    for name, data in expected.items():
        path = io.join(directory, name)
        if written and io.exists(path) and io.read_bytes(path) != data:
            problems.add(name, None, f"is not the page that belongs to {EXPORT}", MEND)
    return len(expected)


def check_indexes(directory: str, header: ExportHeader, problems: Problems) -> str:
    """What a trainer, or who trains, reads first is made of the files, all of them and in order. Returns the extent."""
    format, count = EXPORTS[header["to"]], 0
    for folder, files in datasets(format, header["files"]).items():
        try:
            index = format.index(io.join(directory, folder), files)
        except OSError:
            continue  # a file is missing, as was told
        for name, value in index.items():
            path, count = f"{folder}/{name}", count + 1
            if path not in header["files"]:
                problems.add(EXPORT, None, f"does not list {path}")
            elif io.exists(io.join(directory, path)) and not _is_json(io.join(directory, path), value):
                problems.add(path, None, "is not the index of the files beside it", MEND)
    if wrong_mix(format, header) is None:  # else it was told
        count += _check_blends(directory, header, problems) + _check_pages(directory, header, problems)
    return counted(count, "file")


def _check_blends(directory: str, header: ExportHeader, problems: Problems) -> int:
    """Trainers mix each dataset as ``export.json`` says. Returns the number of files that are to tell them so."""
    format, mixes = EXPORTS[header["to"]], mixes_of(header) or {}
    names = mixed_paths(format, mixes)
    for name in names:
        path = io.join(directory, name)
        if io.exists(path) and not is_blend(format, mixes, name, io.read_bytes(path)):
            problems.add(name, None, f"does not mix as {EXPORT} says", MEND)
    return len(names)


def _is_json(path: str, value: Any) -> bool:
    try:
        return io.read_json(path) == value
    except UsageError:
        return False


def check_plays(directory: str, header: ExportHeader, steps: Steps, problems: Problems) -> str:
    """Every file holds as many plays and tokens as it is said to, and none twice. Returns the extent."""
    format = EXPORTS[header["to"]]
    files = sorted((name, entry) for name, entry in header["files"].items() if name.endswith(format.suffix))
    tasks = [ReadTask(i, name, entry["lines"], entry["tokens"]) for i, (name, entry) in enumerate(files)]
    has_ids = True
    for total, kept, ids in steps.run(STEP, ReadFile(format, directory, steps.work), tasks):
        problems.take(total, kept)
        has_ids &= ids
    if not problems.total and {"sample_id", "repeat"} <= set(format.keeps):
        _check_twice([task.name for task in tasks], steps.work, problems)
    tokens = counted(header["totals"]["tokens"], "token") if has_ids else "whose tokens are not counted in text"
    return f"{counted(header['totals']['lines'], 'play')}, {tokens}"


def _check_twice(names: list[str], work: str, problems: Problems) -> None:
    """No play of a sample stands twice in the files of a phase and epoch."""
    folders: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        found = _DATASET.match(name)
        folders.setdefault(found[0] if found else "", []).append(number)
    for numbers in folders.values():
        plays = [_plays_read(work, number) for number in numbers]
        whole = np.concatenate(plays)
        order = np.lexsort((whole["repeat"], *whole["sample"].T))  # stable, so that the first of equals comes first
        equal = (whole[order[1:]] == whole[order[:-1]]) if len(whole) else np.zeros(0, bool)
        again = np.sort(order[1:][equal])
        starts = np.cumsum([0, *map(len, plays)])
        for place in again[:1].tolist():
            file = int(np.searchsorted(starts, place, side="right")) - 1
            what = f"is a play that the files have already ({len(again):,} in all)"
            problems.add(names[numbers[file]], place - int(starts[file]), what, MEND)
