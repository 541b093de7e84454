"""Checks of an export against the manifest that it was made from: play by play, what every file is to hold, in order.

The plan of the export is made again, and each shard writes pieces of what its samples give to every file, without
reading the corpus. Then each file is read beside its pieces. The first difference of every file is named.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np

from cptsel import __version__
from cptsel.pipeline import io
from cptsel.pipeline.artifacts.exclusion import read_exclusions
from cptsel.pipeline.artifacts.manifest import Manifest, parse_table, read_data_file
from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.artifacts.visits import read_visits
from cptsel.pipeline.corpus.contents import content_bytes
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.exports.about import about
from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.checking import MEND, read_checked
from cptsel.pipeline.exports.datasets import EXPORT
from cptsel.pipeline.exports.left_out import check_left_out, samples_left_out
from cptsel.pipeline.exports.mixing import mixes_of, phase_of
from cptsel.pipeline.exports.pieces import (
    MergeTask,
    extent,
    facts_of_play,
    merge_tasks,
    played,
    read_pieces,
    write_pieces,
)
from cptsel.pipeline.exports.plan import ExportTask, Visit, plan_export
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.exports.shard import COLUMNS
from cptsel.pipeline.hashing import content_hash, fingerprint
from cptsel.pipeline.summary import counted
from cptsel.schemas.headers import ExportHeader

EXPECT, COMPARE = "expected plays", "compared files"
UNTOLD = "not checked: what was left out is not known"

#: Of an expected play, what its file can't be held against word by word.
_MEASURES = ("content_hash", "of_ids", "eod", "token_count", "n_tokens")


@dataclass(frozen=True)
class ExpectShard:
    """ExportTask → {"pieces": of what ``write_pieces`` says, "left_out": {samples, lines, tokens}}.

    ``left_out`` are sample_ids that the export was told to leave out; ``eod`` is the id that ends documents.
    """

    work: str
    weighs_losses: bool
    left_out: frozenset[str]
    eod: int | None

    def __call__(self, task: ExportTask) -> dict[str, Any]:
        rows = parse_table(read_data_file(task.samples, task.sha256), COLUMNS).sort_by("order_rank").to_pylist()
        gone = [row for row in rows if row["sample_id"] in self.left_out]
        kept = [row for row in rows if row["sample_id"] not in self.left_out]
        pieces: list[dict[str, Any]] = []
        left_out = {"samples": len(gone), "lines": 0, "tokens": 0}
        for visit in task.visits:
            for key, count in extent(played(gone, visit)).items():
                left_out[key] += count
            pieces += write_pieces(self.work, task, visit, played(kept, visit), partial(self._expected, task, visit))
        io.write_scratch(io.join(self.work, EXPECT, str(task.shard["shard_id"])), b"")
        return {"pieces": pieces, "left_out": left_out}

    def _expected(self, task: ExportTask, visit: Visit, row: dict[str, Any]) -> Record:
        return {
            **facts_of_play(task, visit, row, self.weighs_losses),
            "content_hash": row["content_hash"].hex(),
            "of_ids": row["char_start"] is None,
            "eod": self.eod,
            "token_count": row["token_count"],
            "n_tokens": row["n_tokens"],
        }


@dataclass(frozen=True)
class CompareFile:
    """MergeTask of a file that is there → [problems in all, the first of them]."""

    format: ExportFormat
    directory: str
    work: str

    def __call__(self, task: MergeTask) -> list[Any]:
        problems = Problems()
        found = read_checked(self.format, self.directory, task.name, problems)
        expected = iter(self.format.held(read_pieces(task.parts)))
        before: Record | None = None
        for number, (play, wanted) in enumerate(zip_longest(found, expected)):
            if play is None and problems.total:
                break  # it could not be read on
            what = None
            if wanted is None:
                what = "is a play too many: the manifest has no more plays here"
            elif play is None:
                what = f"is missing: the manifest plays {_name(wanted)} here"
            elif differs := _difference(self.format, play, wanted):
                what = self._told(play, wanted, before, next(expected, None), differs)
            if what is not None:
                problems.add(task.name, number, what, MEND)
                break
            before = wanted
        io.write_scratch(io.join(self.work, COMPARE, str(task.number)), b"")
        return problems.handed()

    def _told(self, play: Record, wanted: Record, before: Record | None, after: Record | None, differs: str) -> str:
        """A difference in words: a play that is missing or doubled, or the field that differs."""
        if after is not None and _difference(self.format, play, after) is None:
            return f"a play is missing before it: {_name(wanted)} is expected here, and {_name(after)} behind that"
        if before is not None and _difference(self.format, play, before) is None:
            return f"plays {_name(before)} a second time; {_name(wanted)} is expected here"
        return f"{differs}; {_name(wanted)} is expected here"


def _name(play: Record) -> str:
    return f"sample {play['sample_id']} (play {play['repeat']} of it)"


def _difference(format: ExportFormat, play: Record, wanted: Record) -> str | None:
    """In what a play is not the expected one, by fields that the format keeps."""
    facts = {name: value for name, value in wanted.items() if name not in _MEASURES}
    kept = format.kept({**facts, "text": "", "input_ids": []})
    if "text" in format.keeps and ("text" in play) == wanted["of_ids"]:
        return "has a text, and the corpus is of token ids" if wanted["of_ids"] else "has no text"
    for name in sorted(set(kept) - {"text", "input_ids"}, key=lambda name: name != "sample_id"):
        if play[name] != kept[name]:
            return f"{name} is {str(play[name])[:60]!r}, not {str(kept[name])[:60]!r}"
    if "text" in play and content_hash(play["text"].encode()).hex() != wanted["content_hash"]:
        return "the text is not what was chosen (content_hash differs)"
    if format.refers == "place" and play["input_ids"][wanted["token_count"] :] == [wanted["eod"]]:
        play = {**play, "input_ids": play["input_ids"][:-1]}  # without the id that ends its document
    if "input_ids" in play and len(play["input_ids"]) != wanted["token_count"]:
        return f"has {len(play['input_ids'])} token ids, not {wanted['token_count']}"
    if "input_ids" in play and wanted["of_ids"]:
        data = content_bytes(np.asarray(play["input_ids"], np.int64).astype(np.int32))
        if content_hash(data).hex() != wanted["content_hash"]:
            return "the token ids are not what was chosen (content_hash differs)"
    return None


def check_against(
    directory: str, header: ExportHeader, manifest: Manifest, exclude: str | None, steps: Steps, problems: Problems
) -> str:
    """Hold every play of an export against its manifest. Returns the extent, or ``UNTOLD``.

    Where the export left something out, its files must have been read by ``check_plays`` in the same steps.

    Args:
        directory: of the export.
        header: its ``export.json``.
        manifest: that it is to be of.
        exclude: the list that ``export`` was given; None where it is not at hand.
        steps: how the checks run.
        problems: where what is wrong goes.

    Raises:
        UsageError: the list can't be read.
        VerificationError: a file of the manifest is not what was written.
    """
    if header["parent"] != manifest.manifest_id:
        what = f"parent is {header['parent']}, but {manifest.directory} is {manifest.manifest_id}"
        problems.add(EXPORT, None, what, "name the manifest that was exported by --replay")
        return "stopped"
    format = EXPORTS[header["to"]]
    _check_words(format, header, manifest, problems)
    listed = read_exclusions(exclude) if exclude else None
    said = header["excluded"]["entries_sha256"]
    if listed is not None and said != fingerprint(sorted(listed)):
        what = "excluded.entries_sha256 is not that of the list" if said else "says that nothing was left out"
        problems.add(EXPORT, None, what, "give --exclude what export was given")
        return "stopped"
    tasks = plan_export(manifest, read_visits(manifest), None, format)
    shards = {task.shard["shard_id"] for task in tasks}
    left_out = samples_left_out(header, manifest, listed, shards, steps.work, problems)
    if left_out is None:
        return UNTOLD
    of_ids = manifest.header["corpus"].get("tokens")
    eod = of_ids["eod"] if of_ids else None
    expect = ExpectShard(steps.work, manifest.realisation == "loss", left_out, eod)
    results = steps.run(EXPECT, expect, tasks)
    pieces = [piece for result in results for piece in result["pieces"]]
    check_left_out(header, [result["left_out"] for result in results], problems)
    files_expected = merge_tasks(pieces)
    _check_files(format, header, files_expected, problems)
    there = [task for task in files_expected if io.exists(io.join(directory, task.name))]
    for found in steps.run(COMPARE, CompareFile(format, directory, steps.work), there):
        problems.take(*found)
    return f"{counted(sum(task.lines for task in files_expected), 'play')} of {manifest.manifest_id[:12]}..."


def _check_words(format: ExportFormat, header: ExportHeader, manifest: Manifest, problems: Problems) -> None:
    """What ``export.json`` says of the training follows from the manifest; its sentences are those of one release."""
    expected: dict[str, Any] = {"realisation": manifest.realisation, "fidelity": format.fidelity(manifest)}
    if header.get("tool", {}).get("version") == __version__:
        expected |= {"instructions": format.instructions(manifest), "loses": format.loses(manifest)}
        if "dataset" in header:
            told = header["dataset"]
            made = about(format, manifest, "input_ids" in told["fields"], told["license"])
            for key in sorted(key for key, value in (made or {}).items() if dict(told)[key] != value):
                problems.add(EXPORT, None, f"dataset.{key} is not what the manifest gives", MEND)
    fractions = {folder: mix.fraction for folder, mix in (mixes_of(header) or {}).items()}
    shares = {entry["phase"]: entry["mix_fraction"] for entry in manifest.header["phases"]}
    if len(set(fractions.values())) > 1:  # one for all may be that of --mix-fraction
        for folder, fraction in fractions.items():
            if fraction != (share := shares.get(phase_of(folder, min(shares)))):
                problems.add(EXPORT, None, f"mixes {folder} by {fraction}, but the manifest gives {share}", MEND)
    for key, value in expected.items():
        if dict(header)[key] != value:
            problems.add(EXPORT, None, f"{key} is {dict(header)[key]!r}, but the manifest gives {value!r}", MEND)


def _check_files(format: ExportFormat, header: ExportHeader, expected: Sequence[MergeTask], problems: Problems) -> None:
    """The files of plays are those that the manifest gives, with as many plays and tokens."""
    there = {name: entry for name, entry in header["files"].items() if name.endswith(format.suffix)}
    tasks = {task.name: task for task in expected}
    for name in sorted(set(tasks) - set(there)):
        first = next(read_pieces(tasks[name].parts))
        problems.add(EXPORT, None, f"does not list {name}, which is to begin with {_name(first)}", MEND)
    for name in sorted(set(there) - set(tasks)):
        problems.add(name, None, "holds plays that the manifest does not have", MEND)
    for name in sorted(set(there) & set(tasks)):
        for key, found in (("lines", tasks[name].lines), ("tokens", tasks[name].tokens)):
            if dict(there[name])[key] != found:
                what = f"{key} of {name} is {dict(there[name])[key]:,}, but the manifest gives {found:,}"
                problems.add(EXPORT, None, what, MEND)
