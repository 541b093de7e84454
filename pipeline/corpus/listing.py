"""Which files a corpus consists of: globs and list files, on any filesystem."""

import itertools
import os
import re
from collections.abc import Iterable, Sequence

from cptsel.pipeline import io
from cptsel.pipeline.errors import UsageError

_FORMATS = {".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_KNOWN = ".jsonl, .json or .ndjson (alone or with .gz or .zst) and .parquet"
_GLOB = re.compile(r"[*?\[]")


def file_format(path: str) -> tuple[str, str]:
    """Format (``jsonl``, ``parquet``) and compression (``none``, ``gzip``, ``zstd``) by a file's suffix.

    Raises:
        UsageError: a suffix that is not known.
    """
    stem, suffix = os.path.splitext(path.lower())
    compression = _COMPRESSIONS.get(suffix, "none")
    if compression != "none":
        suffix = os.path.splitext(stem)[1]
    format = _FORMATS.get(suffix)
    if format is None or (format == "parquet" and compression != "none"):
        raise UsageError(f"{path}: unknown suffix; known are {_KNOWN}")
    return format, compression


def list_inputs(patterns: Sequence[str], root: str | None) -> tuple[str, list[tuple[str, str, int]]]:
    """Find the files of a corpus.

    ``*`` and ``?`` match inside one directory, ``**`` over directories (``a/**/b`` finds ``a/b`` too); a path that is
    there as it is written is taken literally, and hidden files only when named. ``@FILE`` is a list of paths and globs,
    one a line, without blank lines and lines that begin with ``#``.

    Args:
        patterns: paths, globs and list files.
        root: directory to which paths are relative; None for the longest directory that all patterns have in common
            before their first glob character.

    Returns:
        The root, and ``(uri, path relative to the root, bytes)`` of each file, once and sorted by path.

    Raises:
        UsageError: nothing matches a pattern, a list can't be read, a file lies outside the root or has an unknown
            suffix, or there is no common root.
    """
    expanded = [io.absolute(pattern) for given in patterns for pattern in _expand(given)]
    if not expanded:
        raise UsageError("no input files: give a path, a glob or @LIST")
    sizes: dict[str, int] = {}
    for pattern in expanded:
        sizes.update(_match(pattern))
    base = io.absolute(root) if root is not None else _common_directory(expanded)
    base = base.rstrip("/") or "/"
    prefix = base if base.endswith("/") else base + "/"
    files = []
    for uri, size in sorted(sizes.items()):
        if not uri.startswith(prefix):
            raise UsageError(f"{uri}: is not below --root {base}; give a root that holds all inputs")
        path = uri[len(prefix) :]
        _check_name(path)
        file_format(uri)
        files.append((uri, path, size))
    return base, sorted(files, key=lambda file: file[1])


def _expand(pattern: str) -> list[str]:
    """A pattern, or the lines of a list file."""
    if not pattern.startswith("@"):
        return [pattern]
    name = pattern[1:]
    try:
        lines = io.read_bytes(name).decode("utf-8-sig").split("\n")
    except OSError as error:
        raise UsageError(f"{pattern}: the list can't be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{pattern}: the list is not UTF-8 (byte {error.start})") from error
    entries = [line.strip() for line in lines]
    entries = [entry for entry in entries if entry and not entry.startswith("#")]
    if not entries:
        raise UsageError(f"{pattern}: the list names no file")
    return entries


def _match(pattern: str) -> dict[str, int]:
    """Sizes of the files that match, by uri."""
    if not io.is_remote(pattern):
        if os.path.isdir(pattern):
            raise UsageError(f"{pattern}: is a directory; give a glob, such as {io.join(pattern, '**', '*.jsonl.gz')}")
        if os.path.isfile(pattern):
            return {pattern: os.path.getsize(pattern)}
    hidden = pattern.rpartition("/")[2].startswith(".")
    found = {}
    for form in sorted({pattern, pattern.replace("/**/", "/")}):
        try:
            matches = io.match(form)
        except OSError as error:
            raise UsageError(f"{pattern}: can't be listed ({error}); check the path and your access to it") from error
        found.update({match.path: match.size_in_bytes for match in matches})
    if not hidden:
        found = {uri: size for uri, size in found.items() if not uri.rpartition("/")[2].startswith(".")}
    if not found:
        raise UsageError(f"{pattern}: no file matches; check the path, and quote globs so that the shell leaves them")
    return found


def _common_directory(patterns: Iterable[str]) -> str:
    """The longest directory that all patterns share before their first glob character."""
    directories: list[list[str]] = []
    for pattern in patterns:
        glob = _GLOB.search(pattern) if io.is_remote(pattern) or not os.path.isfile(pattern) else None
        directories.append((pattern if glob is None else pattern[: glob.start()]).rpartition("/")[0].split("/"))
    common = [names[0] for names in itertools.takewhile(_all_equal, zip(*directories, strict=False))]
    if len(common) < (3 if any(io.is_remote(pattern) for pattern in patterns) else 1):
        raise UsageError("the inputs have no directory in common; copy them to one filesystem or embed them one by one")
    return "/".join(common) or "/"


def _all_equal(names: tuple[str, ...]) -> bool:
    return len(set(names)) == 1


def _check_name(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{path!a}: the file's name is not valid UTF-8; rename it") from error
