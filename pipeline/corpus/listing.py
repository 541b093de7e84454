"""Which files a corpus consists of: globs and list files, on any filesystem."""

import fnmatch
import itertools
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cptsel.pipeline import io
from cptsel.pipeline.corpus.formats.registry import FORMATS, file_format
from cptsel.pipeline.errors import UsageError

Files = Sequence[tuple[str, str, int]]
"""(uri, path, bytes) of every shard of a corpus, in order."""

_GLOB = re.compile(r"[*?\[]")
_HIDDEN = re.compile(
    r"\.|_(SUCCESS|metadata|common_metadata|started_\d+|committed_\d+|temporary|delta_log|spark_metadata)$"
)  # files, and directories
_NAMED = 5  # paths that a sentence names


@dataclass
class _Unseen:
    """What patterns would take and can't, of all of them: there may be hundreds, to be mended at once.

    Attributes:
        gone: links to nothing.
        folders: links to directories.
        patterns: those that match nothing.
    """

    gone: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)

    def refuse(self) -> None:
        """Raise UsageError where there is any."""
        for paths, one, several in (
            (
                self.gone,
                "is a link to a file that is not there; mend the link or leave it out",
                "are links to files that are not there; mend the links or leave them out",
            ),
            (
                self.folders,
                "is a link to a directory, which globs do not follow; add a pattern that begins with {}/, or take "
                "patterns that leave it out",
                "are links to directories, which globs do not follow; add patterns that begin with these and a /, or "
                "take patterns that leave them out",
            ),
            (
                self.patterns,
                "no file matches; check the path, and quote globs so that the shell leaves them",
                "no file matches any of these; check the paths, and quote globs so that the shell leaves them",
            ),
        ):
            found = list(dict.fromkeys(paths))
            if len(found) == 1:
                raise UsageError(f"{found[0]}: {one.format(found[0])}")
            if found:
                more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
                raise UsageError(f"{', '.join(found[:_NAMED])}{more}: {several}")


def list_inputs(
    patterns: Sequence[str], root: str | None, format: str | None = None
) -> tuple[str, list[tuple[str, str, int]]]:
    """Find the files of a corpus.

    ``*`` and ``?`` match inside one directory, ``**`` over directories (``a/**/b`` finds ``a/b`` too); a path that is
    there as it is written is taken literally. Hidden files and directories are found only when named, and so is what
    Spark and its like leave beside their files (``_SUCCESS``, ``_metadata``, ``_temporary/``, ``_delta_log/``, ...).
    ``@FILE`` is a list of paths and globs, one a line, without blank lines and lines that begin with ``#``. What a file
    needs beside it is no file of its own.

    Args:
        patterns: paths, globs and list files.
        root: directory to which paths are relative; None for the longest directory that all patterns have in common
            before their first glob character.
        format: of all files; None to tell it by their suffixes.

    Returns:
        The root, and ``(uri, path relative to the root, bytes)`` of each file, once and sorted by path.

    Raises:
        UsageError: nothing matches a pattern, or something that is no file; a list can't be read, a file lies outside
            the root or has an unknown suffix, or there is no common root.
    """
    expanded = [io.absolute(pattern) for given in patterns for pattern in _expand(given)]
    if not expanded:
        raise UsageError("no input files: give a path, a glob or @LIST")
    sizes: dict[str, int] = {}
    unseen = _Unseen()
    for pattern in expanded:
        sizes.update(_match(pattern, [other for other in expanded if other != pattern], unseen))
    unseen.refuse()
    base = io.absolute(root) if root is not None else _common_directory(expanded)
    base = base.rstrip("/") or "/"
    prefix = base if base.endswith("/") else base + "/"
    files = []
    beside = {name for uri in sizes for name in _beside(uri, format)}
    for uri, size in sorted(sizes.items()):
        if uri in beside:
            continue
        if not uri.startswith(prefix):
            raise UsageError(f"{uri}: is not below --root {base}; give a root that holds all inputs")
        path = uri[len(prefix) :]
        _check_name(path)
        file_format(uri, format)
        files.append((uri, path, size))
    return base, sorted(files, key=lambda file: file[1])


def _beside(uri: str, format: str | None) -> set[str]:
    try:
        return FORMATS[file_format(uri, format)[0]].beside(uri)
    except UsageError:  # it may lie beside another
        return set()


def would_find(patterns: Sequence[str], uri: str) -> bool:
    """Whether ``list_inputs`` would find a file at ``uri`` if there were one."""
    expanded = [io.absolute(pattern) for given in patterns for pattern in _expand(given)]
    return any(
        any(io.matches(form, uri) for form in _forms(pattern)) and not _passed_over(pattern, uri)
        for pattern in expanded
    )


def _forms(pattern: str) -> list[str]:
    """A pattern as Beam's globs know it: ``a/**/b`` is to find ``a/b`` too."""
    return sorted({pattern, pattern.replace("/**/", "/")})


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


def _match(pattern: str, others: Sequence[str], unseen: _Unseen) -> dict[str, int]:
    """Sizes of the files that match, by uri, where ``others`` are listed beside the pattern."""
    if not io.is_remote(pattern):
        if os.path.isdir(pattern):
            raise UsageError(f"{pattern}: is a directory; to take its files, give {io.join(pattern, '*')}")
        if os.path.isfile(pattern):
            return {pattern: os.path.getsize(pattern)}
        _check_regular(pattern, others, unseen)
    found = {}
    for form in _forms(pattern):
        try:
            matches = io.match(form)
        except OSError as error:
            told = str(error)  # that of a store names the path already
            told = told if told.startswith(form) else f"{pattern}: can't be listed ({told})"
            raise UsageError(f"{told}; check the path and your access to it") from error
        found.update({match.path: match.size_in_bytes for match in matches if not _passed_over(pattern, match.path)})
    if not found:
        unseen.patterns.append(pattern)
    return found


def _levels(pattern: str) -> tuple[list[str], list[str]]:
    """A pattern's parts: those before its first glob, and the others, with the name of the file."""
    parts = pattern.split("/")
    first = next((number for number, part in enumerate(parts) if _GLOB.search(part)), len(parts) - 1)
    return parts[:first], parts[first:]


def _passed_over(pattern: str, uri: str) -> bool:
    """Whether a file that matches is hidden, or below a hidden directory, and the pattern does not name such."""
    fixed, levels = _levels(pattern)
    *above, name = uri.split("/")[len(fixed) :]
    folders = _named(levels[:-1])
    return _is_hidden(name, _named(levels[-1:])) or any(_is_hidden(folder, folders) for folder in above)


def _named(levels: Sequence[str]) -> set[str]:
    """With what a pattern's parts begin, of what hidden names and marks of an engine begin with."""
    return {level[0] for level in levels if level.startswith((".", "_"))}


def _is_hidden(name: str, named: set[str]) -> bool:
    """Whether a file or directory is passed over where a pattern names what begins so."""
    return bool(_HIDDEN.match(name)) and name[0] not in named


def _check_regular(pattern: str, others: Sequence[str], unseen: _Unseen) -> None:
    """Name what a local pattern would take and can't see: Beam would pass over it without a word.

    Links to nothing and to directories go into ``unseen``. A link to a directory is left to the ``others`` where one of
    them begins below it.

    Raises:
        UsageError: a directory that can't be listed; a directory, or what is no regular file among the matches.
    """
    fixed, levels = _levels(pattern)
    root, of_folders, of_files = "/".join(fixed), _named(levels[:-1]), _named(levels[-1:])
    shallow = next((number for number, level in enumerate(levels) if "**" in level), None)
    forms = _forms(pattern)
    for folder, folders, names in os.walk(root or "/", onerror=_refuse_unlisted):
        below = folder[len(root) :].strip("/")
        depth = below.count("/") + 1 if below else 0
        level = levels[depth:]
        deep = shallow is not None and depth >= shallow  # any directory may lead to a match
        seen = [name for name in folders if not _is_hidden(name, of_folders)]
        here = [name for name in seen if deep or (level and fnmatch.fnmatchcase(name, level[0]))]
        for name in sorted(here):
            path = io.join(folder, name)
            if not os.path.islink(path) or not (deep or len(level) > 1):
                continue
            if not any(other.startswith(path + "/") for other in others):
                unseen.folders.append(path)
        # What lies straight where a file is wanted is no place to look for more.
        folders[:] = [] if not deep and len(level) <= 1 else here
        for name in sorted([*names, *([] if deep else here if len(level) == 1 else [])]):
            path = io.join(folder, name)
            if not _is_hidden(name, of_files) and any(io.matches(form, path) for form in forms):
                _check_file(path, unseen)


def _refuse_unlisted(error: OSError) -> None:
    if isinstance(error, FileNotFoundError):
        return  # that nothing matches is said elsewhere
    raise UsageError(f"{error.filename}: can't be listed ({error.strerror}); give access to it, or leave it out")


def _check_file(path: str, unseen: _Unseen) -> None:
    if os.path.isfile(path):
        return
    if os.path.isdir(path):
        raise UsageError(f"{path}: is a directory; to take its files, give {io.join(path, '*')}")
    if not os.path.exists(path):
        unseen.gone.append(path)
        return
    raise UsageError(f"{path}: is no regular file, and can't be read twice; leave it out")


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
