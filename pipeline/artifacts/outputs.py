"""Output directories: whose one is, what is in it, the sums of its files. ``writing.py`` says how they are written."""

import hashlib
import os
import posixpath
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.lock import LOCK

SUCCESS = "_SUCCESS"
CONFIG = "config.yaml"
SUMS = "SHA256SUMS"
STATS = "stats.json"
WORK = ".work"  # below an output, while it is made: what steps hand to each other
UNSUMMED = frozenset({SUCCESS, CONFIG, SUMS, STATS})  # files that SHA256SUMS leaves out

_CHUNK = 1 << 20
#: Files whose sizes are looked at where names alone are needed: those of a million take longer than all else.
_SIZES = 100_000


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
    """Paths, relative to it, of all files below a directory but its lock, sorted; none where it does not exist."""
    return sorted(Listing(directory).paths())


class Listing:
    """The files below a directory, by their paths relative to it, as one look at the names tells them.

    Names are cheap and sizes are not, but on object stores, whose listings have both.

    Attributes:
        folders: names of files by the folder that they lie in (``""``: the directory itself), in any order.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.folders: dict[str, list[str]] = {}
        self._sizes = tree_sizes(directory) if io.is_remote(directory) else None
        if self._sizes is None:
            self.folders = {below: [entry.name for entry in files] for below, files in _folders(directory) if files}
            return
        for path in self._sizes:
            folder, _, name = path.rpartition("/")
            self.folders.setdefault(folder, []).append(name)

    def __contains__(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return name in self.folders.get(folder, ())

    def __len__(self) -> int:
        return sum(map(len, self.folders.values()))

    @property
    def has_sizes(self) -> bool:
        """Whether sizes are known already."""
        return self._sizes is not None

    @property
    def may_ask_sizes(self) -> bool:
        """Whether files are few enough to ask for the size of each, or their sizes came with their names."""
        return self.has_sizes or len(self) <= _SIZES

    def paths(self) -> Iterator[str]:
        """All paths, in any order."""
        for folder, names in self.folders.items():
            yield from (f"{folder}/{name}" for name in names) if folder else names

    def sizes(self) -> dict[str, int]:
        """Bytes of all files, by path."""
        if self._sizes is None:
            self._sizes = tree_sizes(self.directory)
        return self._sizes


def tree_sizes(directory: str) -> dict[str, int]:
    """Bytes of all files below a directory, by their paths relative to it."""
    if io.is_remote(directory):
        head = directory.rstrip("/") + "/"
        return {entry.path[len(head) :]: int(entry.size_in_bytes) for entry in io.match(head + "**")}
    sizes: dict[str, int] = {}
    for below, files in _folders(directory):
        for entry in files:
            with suppress(FileNotFoundError):  # a link to nothing, or deleted meanwhile: it is not there
                sizes[f"{below}/{entry.name}" if below else entry.name] = entry.stat().st_size
    return dict(sorted(sizes.items()))


def _folders(directory: str) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Every folder of a local directory, by its path relative to it, and its files but the lock; "" is the directory.

    Links to directories are left out. By entries, which know without asking again what they are: a run may have
    millions.
    """
    folders = [("", directory)]
    while folders:
        below, folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:  # it does not exist, or was deleted meanwhile
            continue
        for entry in entries:
            if entry.is_dir() and not entry.is_symlink():
                folders.append((f"{below}/{entry.name}" if below else entry.name, entry.path))
        yield below, [entry for entry in entries if not entry.is_dir() and (below or entry.name != LOCK)]


def temporary_of(path: str) -> str | None:
    """The file that an interrupted atomic write was about to make, if ``path`` is what it left behind."""
    if not path.endswith(".tmp"):  # of a million names hardly any is
        return None
    folder, name = posixpath.split(path)
    found = io.TEMPORARY.fullmatch(name)
    return posixpath.join(folder, found[1]) if found else None


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
        ValueError: it is not what ``sums_text`` writes: a line is not ``<64 hex digits>  <path>``, a path occurs twice,
            or lines are not sorted, each with its end.
    """
    sums: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        digest, gap, name = line[:64], line[64:66], line[66:]
        if gap != "  " or not name or any(letter not in "0123456789abcdef" for letter in digest):
            raise ValueError(f"line {number} is not '<sha256>  <path>'")
        if name in sums:
            raise ValueError(f"line {number} names {name} a second time")
        sums[name] = digest
    if sums_text(sums) != text:
        raise ValueError("lines are not sorted by path, or the last one has no end")
    return sums
