"""Checks of the files of a manifest or an export: all there, none besides, every byte as it was written."""

from collections.abc import Mapping
from dataclasses import dataclass

from cptsel import __version__
from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.consuming import consuming_page
from cptsel.pipeline.artifacts.manifest import CONSUMING, MANIFEST, Manifest
from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.summary import counted
from cptsel.schemas.headers import FileEntry
from cptsel.schemas.validation import validate


def check_files(manifest: Manifest, problems: Problems) -> str:
    """Hold the directory against SHA256SUMS and the files listed in ``manifest.json``. Returns what was looked at."""
    tree = Tree(manifest.directory, "manifest", MANIFEST, (CONSUMING,), manifest.header["files"])
    extent = check_tree(tree, problems)
    if io.exists(manifest.path(CONSUMING)):
        _check_page(manifest, problems)
    return extent


@dataclass(frozen=True)
class Tree:
    """A finished directory: where it lies, what it is called, its header, its pages, and the files the header lists."""

    directory: str
    kind: str
    header: str
    pages: tuple[str, ...]
    files: Mapping[str, FileEntry]


def check_tree(tree: Tree, problems: Problems) -> str:
    """Hold a directory against SHA256SUMS and the files that its header lists. Returns what was looked at."""
    beside = f"{outputs.WORK}/"  # of a call that is to replace it, or that was interrupted
    names = outputs.list_tree(tree.directory)
    present = {name for name in names if not (outputs.temporary_of(name) or name.startswith(beside))}
    expected = {*tree.files, tree.header, *tree.pages}
    for name in sorted((expected | outputs.UNSUMMED) - present):
        problems.add(name, None, "is missing")
    for name in sorted(present - expected - outputs.UNSUMMED):
        problems.add(name, None, f"does not belong to the {tree.kind}")
    actual = outputs.hash_files(tree.directory, sorted(expected & present))
    for name, entry in sorted(tree.files.items()):
        if name in actual and actual[name] != (entry["sha256"], entry["bytes"]):
            what = f"was changed after it was written: its SHA-256 or size is not that in {tree.header}"
            problems.add_damaged(tree.directory, name, what)
    if outputs.SUMS in present:
        _check_sums(tree, actual, expected, problems)
    if outputs.STATS in present:
        _check_stats(tree, problems)
    return f"{counted(len(actual), 'file')}, {counted(sum(size for _, size in actual.values()), 'byte')}"


def _check_sums(tree: Tree, actual: dict[str, tuple[str, int]], expected: set[str], problems: Problems) -> None:
    """Exactly the expected files are summed, and rightly."""
    try:
        sums = outputs.parse_sums(io.read_bytes(io.join(tree.directory, outputs.SUMS)).decode())
    except ValueError as error:  # UnicodeDecodeError is one too
        problems.add(outputs.SUMS, None, str(error))
        return
    for name in sorted(expected - set(sums)):
        problems.add(outputs.SUMS, None, f"does not list {name}")
    for name in sorted(set(sums) - expected):
        problems.add(outputs.SUMS, None, f"lists {name}, which does not belong to the {tree.kind}")
    reported = {problem.file for problem in problems.kept}
    for name in sorted((set(sums) & set(actual)) - reported):
        if sums[name] != actual[name][0]:
            problems.add(name, None, f"was changed after it was written: its SHA-256 is not that in {outputs.SUMS}")


def _check_page(manifest: Manifest, problems: Problems) -> None:
    """The page for the training team is what this release makes of the header, if this release wrote it."""
    mine = manifest.header["provenance"]["tool"]["version"] == __version__
    reported = {problem.file for problem in problems.kept}
    page = consuming_page(manifest.header).encode()
    if mine and CONSUMING not in reported and io.read_bytes(manifest.path(CONSUMING)) != page:
        problems.add(CONSUMING, None, f"is not the page that belongs to {MANIFEST}")


def _check_stats(tree: Tree, problems: Problems) -> None:
    try:
        validate(io.read_json(io.join(tree.directory, outputs.STATS)), "stats")
    except UsageError:
        problems.add(outputs.STATS, None, "is not valid JSON")
    except ValueError as error:
        problems.add(outputs.STATS, None, str(error).removeprefix(f"{outputs.STATS}: "))
