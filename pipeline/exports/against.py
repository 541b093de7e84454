"""Checks of an export against the manifest that it was made from: play by play, what every file is to hold, in order.

The plan of the export is made again, and each shard writes pieces of what its samples give to every file, without
reading the corpus. Then each file is read beside its pieces. The first difference of every file is named.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np

from cptsel import __version__
from cptsel.pipeline import io
from cptsel.pipeline.artifacts.exclusion import read_exclusions
from cptsel.pipeline.artifacts.manifest import Manifest, parse_table, read_data_file
from cptsel.pipeline.artifacts.problems import Problem, Problems
from cptsel.pipeline.artifacts.visits import read_visits
from cptsel.pipeline.corpus.contents import content_bytes
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.exports.about import about
from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.checking import MEND, hash_of, read_checked, samples_read
from cptsel.pipeline.exports.datasets import EXPORT
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
        return [problems.total, [astuple(problem) for problem in problems.listed()]]

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

    Where the export left something out, its files must have been read by ``check_plays`` in the same steps. A format
    that does not keep which sample a play is needs the list, and one that does not name documents by their text.

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
    left_out = frozenset[str]()
    if said is not None:
        if "sample_id" in format.keeps:
            files = sum(name.endswith(format.suffix) for name in header["files"])
            left_out = _left_out(manifest, samples_read(steps.work, files), listed, problems)
        elif listed is None:
            return UNTOLD
        else:
            read = {task.shard["shard_id"] for task in tasks}  # export counts what it leaves out of these alone
            chosen = (row for row in _chosen(manifest) if row["shard_id"] in read)
            rows = [(row["sample_id"], listed.intersection(_names(row))) for row in chosen]
            named = [sample for sample, by in rows if by]
            # What names nothing here may be the hash of a document's text, which the manifest does not have.
            if len(named) < header["excluded"]["samples"] and listed.difference(*(by for _, by in rows)):
                return UNTOLD
            left_out = frozenset(named)
    of_ids = manifest.header["corpus"].get("tokens")
    eod = of_ids["eod"] if of_ids else None
    expect = ExpectShard(steps.work, manifest.realisation == "loss", left_out, eod)
    results = steps.run(EXPECT, expect, tasks)
    pieces = [piece for result in results for piece in result["pieces"]]
    _check_left_out(header, [result["left_out"] for result in results], problems)
    files_expected = merge_tasks(pieces)
    _check_files(format, header, files_expected, problems)
    there = [task for task in files_expected if io.exists(io.join(directory, task.name))]
    for total, kept in steps.run(COMPARE, CompareFile(format, directory, steps.work), there):
        problems.total += total
        problems.kept += [Problem(*entry) for entry in kept]
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


def _chosen(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Rows of all samples files, with the columns that name a sample."""
    columns = ["sample_id", "doc_id", "doc_key", "content_hash", "row_index", "shard_id", "repeat"]
    for name in manifest.sample_files().values():
        yield from manifest.table(name, columns).to_pylist()


def _names(row: dict[str, Any]) -> tuple[str | None, ...]:
    """By what a list may leave a sample out."""
    return (row["doc_id"], row["doc_key"], row["sample_id"], row["content_hash"].hex())


def _left_out(
    manifest: Manifest, there: set[bytes], listed: frozenset[str] | None, problems: Problems
) -> frozenset[str]:
    """Samples that an export with exclusions does not play: sample_ids.

    With the list they must be those that it names. It may also name whole documents by the hash of their text, which is
    not in the manifest; then none of a document's samples is played.
    """
    absent: dict[str, dict[str, Any]] = {}
    documents_played = set()
    for row in _chosen(manifest):
        is_there = hash_of(row["sample_id"]) in there
        named = listed is not None and not listed.isdisjoint(_names(row))
        if is_there:
            documents_played.add((row["shard_id"], row["row_index"]))
        if is_there and named:
            what = f"the list leaves out sample {row['sample_id']}, and it is played"
            problems.add(EXPORT, None, what, MEND)
        elif not is_there and (row["repeat"] > 0 or named):
            absent[row["sample_id"]] = row
    if listed is not None:
        for name, row in sorted(absent.items()):
            in_part = (row["shard_id"], row["row_index"]) in documents_played
            if listed.isdisjoint(_names(row)) and in_part:
                problems.add(EXPORT, None, f"sample {name} is not played, and the list does not leave it out", MEND)
    return frozenset(absent)


def _check_left_out(header: ExportHeader, results: Sequence[dict[str, int]], problems: Problems) -> None:
    """What is missing is as much as ``export.json`` says was left out, or less: some samples are never played."""
    said = header["excluded"]
    for key in ("lines", "tokens"):
        found = sum(result[key] for result in results)
        if dict(said)[key] != found:
            what = f"excluded.{key} is {dict(said)[key]:,}, but {found:,} that the manifest plays are not there"
            problems.add(EXPORT, None, what, MEND)
    samples = sum(result["samples"] for result in results)
    if said["samples"] < samples:
        what = f"excluded.samples is {said['samples']:,}, but {samples:,} that the manifest plays are not there"
        problems.add(EXPORT, None, what, MEND)
