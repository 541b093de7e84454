"""``cptsel verify``: read a manifest again, with its corpus, a run or an export, and hold it to what it says."""

import os
from functools import partial
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.damage import manifest_warnings, run_warnings
from cptsel.pipeline.artifacts.exclusion import read_exclusions
from cptsel.pipeline.artifacts.manifest import MANIFEST, Manifest, check_readable, load_manifest, manifest_id
from cptsel.pipeline.artifacts.origin import Origin, open_origins
from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.artifacts.visits import read_visits
from cptsel.pipeline.config import check_read
from cptsel.pipeline.engine.beam import pipeline_options
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import CptselError, NoRoomError, UsageError
from cptsel.pipeline.exports import page
from cptsel.pipeline.exports.against import UNTOLD, check_against
from cptsel.pipeline.exports.checking import check_indexes, check_plays, read_header
from cptsel.pipeline.exports.datasets import EXPORT
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.results import VerifyResult
from cptsel.pipeline.summary import Table, counted
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verification.counts import check_counts
from cptsel.pipeline.verification.files import Tree, check_files, check_tree
from cptsel.pipeline.verification.origin import check_origin
from cptsel.pipeline.verification.runs import check_run, check_units
from cptsel.pipeline.verification.samples import check_samples
from cptsel.pipeline.verification.schedules import check_schedules
from cptsel.pipeline.verification.scratch import scratch_steps
from cptsel.pipeline.verification.sources import check_sources
from cptsel.schemas.headers import ManifestHeader
from cptsel.schemas.validation import validate


def verify(config: VerifyConfig, progress: Progress | None = None) -> VerifyResult:
    """Check a manifest: files, checksums, schemas, every row, counts and mass, schedules; with sources, the corpus.

    Of an embedding run the files, checksums and counts are checked; of an export also every play, and with ``replay``
    that it is the one that the manifest plays there.

    Returns:
        The summary, of a directory in which nothing is wrong.

    Raises:
        UsageError: neither manifest nor run nor export, or of a version that can't be read, options that it has no use
            for, options that Beam refuses, or runs that are not those from which the manifest says it was selected.
        VerificationError: something is wrong; its ``summary`` lists the problems by file and row, 20 of them.
        NoRoomError: temporary files have none.
    """
    check_read(config)
    directory = io.absolute(config.directory)
    if config.sources:
        pipeline_options(config.beam_args, config.workers)  # refused options are no fault of the manifest
    elif config.root is not None:
        raise UsageError("--root says where --sources finds the corpus; give --sources too")
    if not outputs.list_tree(directory):
        is_file = io.exists(directory) and not os.path.isdir(directory)
        what = "is a file, not a directory" if is_file else "there is no such directory, or it is empty"
        raise UsageError(f"{directory}: {what}; name the output of cptsel embed, select, order or export")
    if io.exists(io.join(directory, "run.json")):
        return _verify_run(directory, config, progress)
    if io.exists(io.join(directory, EXPORT)) or outputs.made_by(directory) == "export":
        return _verify_export(directory, config, progress)
    if config.replay is not None:
        raise UsageError(f"--replay checks an export, and {directory} is none; leave it out")
    problems = Problems()
    checks: list[list[Any]] = []
    header = _read_header(directory, problems)
    if header is not None:
        manifest = Manifest(directory, header)
        _check_expected(MANIFEST, "manifest_id", header["manifest_id"], config.expect, problems)
        origins = _open_origins(manifest, config, problems)
        _run(checks, problems, "files and checksums", lambda: check_files(manifest, problems))
        # Later errors in a damaged file are not listed: rows are read only where all data files are as written.
        sound = not any(problem.file in header["files"] for problem in problems.kept)
        if sound:
            _run(checks, problems, "samples, weights and totals", lambda: check_samples(manifest, problems, progress))
            sound = not any(problem.file in header["files"] for problem in problems.kept)
        if sound and header["order"]["kind"] == "priority":
            visits = read_visits(manifest)
            _run(checks, problems, "schedules", lambda: check_schedules(manifest, visits, problems))
        if origins and sound:
            _run(checks, problems, "embedding runs", lambda: check_origin(manifest, origins, problems, progress))
        if config.sources:
            _run(checks, problems, "corpus", lambda: check_sources(manifest, config, problems, progress))
        elif not sound:
            checks.append(["the rest", "not checked: mend the files first", "-"])
    totals = {}
    if header is not None:
        totals = {
            "manifest_id": header["manifest_id"],
            "samples": header["totals"]["selected_samples"],
            "tokens_played_in_an_epoch": header["totals"]["replay_tokens"],
        }
    return _summary(directory, totals, checks, problems, manifest_warnings(header) if header else [])


def _open_origins(manifest: Manifest, config: VerifyConfig, problems: Problems) -> list[Origin]:
    """The runs that were named. Raises UsageError where they are not the manifest's, unless that is damaged itself."""
    if not config.run:
        return []
    try:
        return open_origins(manifest, config.run)
    except UsageError as error:
        if not problems.total:
            raise
        problems.add(MANIFEST, None, str(error), mend="")
        return []


def _verify_run(directory: str, config: VerifyConfig, progress: Progress | None) -> VerifyResult:
    """Check an embedding run."""
    if config.sources or config.run:
        option = "--sources" if config.sources else "--run"
        raise UsageError(f"{option} checks a replay manifest, and {directory} is an embedding run")
    if config.replay is not None:
        raise UsageError(f"--replay checks an export, and {directory} is an embedding run; leave it out")
    problems = Problems()
    checks: list[list[Any]] = []
    header = check_run(directory, problems)
    checks.append(["run.json and small files", "checksums", _result(problems.total)])
    if header is not None:
        _check_expected("run.json", "run_id", header.get("run_id"), config.expect, problems)
    if header is not None and not problems.total:
        _run(checks, problems, "counts", lambda: check_counts(directory, header, problems))
        _run(checks, problems, "embeddings", lambda: check_units(directory, header, config, problems, progress))
    else:
        checks.append(["the rest", "not checked: mend the files first", "-"])
    totals = (
        {}
        if header is None
        else {"run_id": header.get("run_id"), "samples": header.get("totals", {}).get("windows_embedded")}
    )
    return _summary(directory, totals, checks, problems, run_warnings(header) if header else [])


def _verify_export(directory: str, config: VerifyConfig, progress: Progress | None) -> VerifyResult:
    """Check an export, by itself or against its manifest."""
    if config.sources or config.run:
        option = "--sources" if config.sources else "--run"
        raise UsageError(f"{option} checks a replay manifest, and {directory} is an export; leave it out")
    manifest = load_manifest(config.replay) if config.replay is not None else None
    if config.exclude is not None:
        read_exclusions(config.exclude)  # a list that can't be read is no fault of the export
    problems = Problems()
    checks: list[list[Any]] = []
    header = read_header(directory, problems)
    checks.append([EXPORT, "schema and totals", _result(problems.total)])
    totals: dict[str, Any] = {}
    if header is not None:
        totals = {"parent": header["parent"], "format": header["to"]}
        totals |= {key: header["totals"][key] for key in ("lines", "tokens")}
        _check_expected(EXPORT, "parent", header["parent"], config.expect, problems)
        tree = Tree(directory, "export", EXPORT, tuple(page.pages(EXPORTS[header["to"]], header)), header["files"])
        _run(checks, problems, "files and checksums", lambda: check_tree(tree, problems))
        _run(checks, problems, "indexes and page", lambda: check_indexes(directory, header, problems))
        sound = not problems.total
        excluded = header["excluded"]["entries_sha256"] is not None
        with scratch_steps(directory, config, progress) as steps:
            if sound:
                _run(checks, problems, "plays", lambda: check_plays(directory, header, steps, problems))
            if manifest is not None and (sound or not excluded):  # also of a damaged file, the play is told
                against = partial(check_against, directory, header, manifest, config.exclude, steps, problems)
                _run(checks, problems, "plays of the manifest", against)
            elif not sound:
                checks.append(["the rest", "not checked: mend the files first", "-"])
    return _summary(directory, totals, checks, problems, _untold(checks, config))


def _untold(checks: list[list[Any]], config: VerifyConfig) -> list[str]:
    """A warning where plays were not held against the manifest."""
    if not any(extent == UNTOLD for _, extent, _ in checks):
        return []
    what = "this format does not keep which sample a play is of, and export was given --exclude"
    if config.exclude is None:
        return [f"plays were not compared with {config.replay}: {what}; give verify the same list by --exclude"]
    return [f"plays were not compared with {config.replay}: {what}, with hashes of documents, which no manifest has"]


def _check_expected(file: str, name: str, found: str | None, expected: str | None, problems: Problems) -> None:
    if expected is not None and found != expected:
        problems.add(file, None, f"{name} is {found}, not {expected}: this is another one than was expected")


def _read_header(directory: str, problems: Problems) -> ManifestHeader | None:
    """``manifest.json``, or None where it can't be read; what is wrong with it goes to ``problems``.

    Raises:
        UsageError: nothing here was ever a replay manifest, or it is of a version this release can't read.
    """
    path = io.join(directory, MANIFEST)
    if not io.exists(path):
        if outputs.made_by(directory) not in {"select", "order"}:
            load_manifest(directory)  # raises UsageError with what was found instead
        problems.add(MANIFEST, None, "is missing")
        return None
    try:
        header = io.read_json(path)
    except UsageError:
        problems.add(MANIFEST, None, "is not valid JSON")
        return None
    check_readable(path, header)
    try:
        manifest = validate(header, "manifest")
    except ValueError as error:
        problems.add(MANIFEST, None, str(error).removeprefix(f"{MANIFEST}: "))
        return None
    if manifest_id(manifest) != manifest["manifest_id"]:
        problems.add(MANIFEST, None, "was changed after it was written: manifest_id does not match")
    return manifest


def _run(checks: list[list[Any]], problems: Problems, what: str, check: Any) -> None:
    """Run one check and note its result. What it can't read is noted as a problem, and the next check runs."""
    before = problems.total
    try:
        extent = check()
    except NoRoomError:  # for what a check keeps on disk: no fault of what is checked
        raise
    except CptselError as error:
        problems.add(what, None, str(error), mend="")  # the sentence has one
        extent = "stopped"
    found = problems.total - before
    checks.append([what, extent, "-" if extent == UNTOLD and not found else _result(found)])


def _result(found: int) -> str:
    return "ok" if not found else f"{counted(found, 'problem')}"


def _summary(
    directory: str, totals: dict[str, Any], checks: list[list[Any]], problems: Problems, warnings: list[str]
) -> VerifyResult:
    """The summary. Raises VerificationError with it where something is wrong."""
    tables = [Table(title="Checks", columns=["check", "extent", "result"], rows=checks), *problems.tables()]
    summary = VerifyResult(
        out=directory,
        status="failed" if problems.total else "verified",
        **totals,
        problems=problems.total,
        tables=tables,
        warnings=warnings,
    )
    if problems.total:
        raise problems.error(directory, summary)
    return summary
