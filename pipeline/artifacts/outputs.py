"""Output directories: when one may be written into, and what is listed in it.

A command first saves its configuration in its output, under a heading that names the command. Only a directory with
that heading is ever replaced, finished or not. A user may have put files into it since, so before a directory is
emptied every file in it must have a name that the command itself gives. See docs/design.md, Ownership.
"""

import hashlib
import os
import posixpath
import re
from concurrent.futures import ThreadPoolExecutor

from cptsel.pipeline import io
from cptsel.pipeline.errors import UsageError

SUCCESS = "_SUCCESS"
CONFIG = "config.yaml"
SUMS = "SHA256SUMS"
STATS = "stats.json"
WORK = ".work"  # below a selection, while it is made: what steps hand to each other
UNSUMMED = frozenset({SUCCESS, CONFIG, SUMS, STATS})  # files that SHA256SUMS leaves out

_ALWAYS = r"config\.yaml|stats\.json|_SUCCESS|SHA256SUMS"
_MANIFEST = _ALWAYS + r"|manifest\.json|CONSUMING\.md|shards\.parquet|samples/\d{6,}\.parquet"
_WRITTEN = {  # what each command writes below its output, finished or not
    "select": re.compile(_MANIFEST + r"|\.work/.+"),
    "order": re.compile(_MANIFEST + r"|schedule/\d+-\d+\.parquet"),
    "export": re.compile(_ALWAYS + r"|export\.json|_work/.+"),
}

_CHUNK = 1 << 20


def prepare_output(
    out: str, command: str, config_yaml: str, overwrite: bool, keep: str | None = None, data: str = "(?!)"
) -> None:
    """Make ``out`` ready for ``command``: empty but for its ``config.yaml`` and the directory ``keep``.

    What an earlier, unfinished call of the same command left is removed; a finished one only with ``overwrite``;
    anything else is never touched.

    Args:
        command: ``select``, ``order`` or ``export``.
        data: regular expression of what else the command writes; nothing by default.

    Raises:
        UsageError: ``out`` is finished and ``overwrite`` is off, or holds files that are not this command's.
    """
    check_output(out, command, overwrite, data)
    if keep is not None:
        io.delete(io.join(out, SUCCESS))  # first: what is half deleted must not look finished
        write_config(out, command, config_yaml)
        for name in list_tree(out):
            if name != CONFIG and not name.startswith(f"{keep}/"):
                io.delete(io.join(out, name))
    else:
        if list_tree(out):
            io.delete_tree(out)
        write_config(out, command, config_yaml)


def check_output(out: str, command: str, overwrite: bool, data: str = "(?!)") -> None:
    """Raise as ``prepare_output`` does, and change nothing, as for ``--dry-run``."""
    if io.exists(out) and not io.is_remote(out) and not os.path.isdir(out):
        raise UsageError(f"{out} is a file; choose a directory for --out")
    names = list_tree(out)
    if not names:
        return
    maker = made_by(out)
    if maker is None:
        raise UsageError(f"{out} holds files that cptsel {command} did not write; choose another --out")
    if maker != command:
        raise UsageError(f"{out} was written by cptsel {maker}, not by {command}; choose another --out")
    if io.exists(io.join(out, SUCCESS)) and not overwrite:
        raise UsageError(f"{out} exists; pass --overwrite or another --out")
    for name in names:
        if not (_WRITTEN[command].fullmatch(name) or re.fullmatch(data, name) or is_temporary(name)):
            raise UsageError(
                f"{out} holds {name}, which cptsel {command} did not write and would delete; "
                "move it away or choose another --out"
            )


def check_apart(out: str, source: str) -> None:
    """Refuse an output that lies inside a directory the command reads, or around it, where it would delete it.

    Raises:
        UsageError: one of the two is the other or is inside it.
    """
    there, here = (path if io.is_remote(path) else os.path.realpath(path) for path in (out, source))
    there, here = there.rstrip("/") + "/", here.rstrip("/") + "/"
    if there == here:
        raise UsageError(f"--out {out} is the input itself; choose another --out")
    if there.startswith(here):
        raise UsageError(f"--out {out} lies inside the input {source}; choose another --out")
    if here.startswith(there):
        raise UsageError(f"--out {out} holds the input {source}; choose another --out")


def write_config(out: str, command: str, config_yaml: str) -> None:
    """Save the effective configuration under the heading that marks the directory as this command's."""
    heading = f"# cptsel {command}: the effective configuration; pass it back with --config\n"
    io.write_bytes(io.join(out, CONFIG), (heading + config_yaml).encode())


def made_by(directory: str) -> str | None:
    """Name of the command that began this directory, None where none of ours did."""
    path = io.join(directory, CONFIG)
    if not io.exists(path):
        return None
    words = io.read_bytes(path)[:64].decode("utf-8", "replace").split("\n", 1)[0].split()
    return words[2].rstrip(":") if words[:2] == ["#", "cptsel"] and len(words) > 2 else None


def list_tree(directory: str) -> list[str]:
    """Paths, relative to it, of all files below a directory, sorted; none where it does not exist."""
    if io.is_remote(directory):
        return sorted(tree_sizes(directory))
    found = []
    for folder, _, names in os.walk(directory):
        below = os.path.relpath(folder, directory).replace(os.sep, "/")
        found += [posixpath.normpath(posixpath.join(below, name)) for name in names]
    return sorted(found)


def tree_sizes(directory: str) -> dict[str, int]:
    """Bytes of all files below a directory, by their paths relative to it."""
    if io.is_remote(directory):
        head = directory.rstrip("/") + "/"
        return {entry.path[len(head) :]: int(entry.size_in_bytes) for entry in io.match(head + "**")}
    return {name: io.size(io.join(directory, name)) for name in list_tree(directory)}


def is_temporary(path: str) -> bool:
    """Whether a file is what an interrupted atomic write leaves behind."""
    name = posixpath.basename(path)
    return name.startswith(".") and name.endswith(".tmp")


def sha256(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: str) -> tuple[str, int]:
    """SHA-256 in hex and size in bytes of a file, read in pieces."""
    digest, size = hashlib.sha256(), 0
    with io.open_read(path) as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def hash_files(directory: str, names: list[str]) -> dict[str, tuple[str, int]]:
    """``hash_file`` of several files of a directory at once, by name."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip(names, pool.map(lambda name: hash_file(io.join(directory, name)), names), strict=True))


def sums_text(sums: dict[str, str]) -> str:
    """``SHA256SUMS`` in the form that ``sha256sum -c`` reads, sorted by path."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def parse_sums(text: str) -> dict[str, str]:
    """Path to SHA-256 of a ``SHA256SUMS`` file.

    Raises:
        ValueError: a line is not ``<64 hex digits>  <path>``, or a path occurs twice.
    """
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        digest, gap, name = line[:64], line[64:66], line[66:]
        if gap != "  " or not name or any(letter not in "0123456789abcdef" for letter in digest):
            raise ValueError(f"line {number} is not '<sha256>  <path>'")
        if name in sums:
            raise ValueError(f"line {number} names {name} a second time")
        sums[name] = digest
    return sums
