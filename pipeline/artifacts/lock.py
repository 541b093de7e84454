"""One writer a directory: a lock that the operating system lets go of when its process ends, however it ends.

Commands that write parts of one directory share its lock, and hold one of a file for what only one of them may do. On a
remote store there is no lock (docs/design.md, Ownership): Beam's filesystems have no write that fails where a file is
there already.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator

from cptsel.pipeline import io
from cptsel.pipeline.errors import UsageError

_log = logging.getLogger("cptsel")

LOCK = ".lock"  # in the directory, while it is written

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS})
_TRIES, _PAUSE_S = 20, 0.1  # a command that shares a lock holds it alone for a moment when it ends


class Held(Exception):
    """Another process holds a lock; the text says which."""


@contextlib.contextmanager
def locked(directory: str, command: str, shared: bool = False) -> Iterator[None]:
    """Hold a directory, which is made where it is not there, and taken away again if nothing is put into it.

    Args:
        directory: to hold.
        command: who holds it.
        shared: whether others may hold it at once that ask for it shared.

    Raises:
        UsageError: another process holds it; the sentence says which. With ``shared`` also: there are no locks.
    """
    if io.is_remote(directory):
        yield
        return
    made = _make(directory)
    path = os.path.join(directory, LOCK)
    try:
        handle = _open(path, directory, command, shared)
        try:
            yield
        finally:
            _let_go(handle, path, shared)
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # there is something in it
                os.rmdir(folder)


@contextlib.contextmanager
def holding(path: str, command: str) -> Iterator[None]:
    """Hold a lock that is a file, whose folder is made where it is not there.

    Raises:
        Held: another process does.
    """
    handle = _take(path, command, fcntl.LOCK_EX)
    try:
        yield
    finally:
        _let_go(handle, path, shared=False)


def _make(directory: str) -> list[str]:
    """Make a directory; returns those that were not there, the outermost first."""
    missing: list[str] = []
    folder = directory
    while folder and not os.path.exists(folder):
        missing.insert(0, folder)
        folder = os.path.dirname(folder)
    os.makedirs(directory, exist_ok=True)
    return missing


def _open(path: str, directory: str, command: str, shared: bool) -> int:
    """The open lock file of a directory, on which its lock is held."""
    try:
        return _take_patiently(path, command) if shared else _take(path, command, fcntl.LOCK_EX)
    except Held as holder:
        raise UsageError(f"{directory} is being written by {holder}; wait for it, or choose another --out") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        if not shared:
            _log.warning("%s: its filesystem has no locks; see to it that nothing else writes there", directory)
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    with contextlib.suppress(OSError):
        os.remove(path)
    raise UsageError(
        f"{directory}: its filesystem has no locks, by which several commands write one directory; mount it with "
        "locks, or give one command"
    )


def _take_patiently(path: str, command: str) -> int:
    for _ in range(_TRIES):
        with contextlib.suppress(Held):
            return _take(path, command, fcntl.LOCK_SH)
        time.sleep(_PAUSE_S)
    return _take(path, command, fcntl.LOCK_SH)


def _take(path: str, command: str, how: int) -> int:
    """An open file on which the lock is held. Raises Held where another process has it."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # its folder is not there, or was taken away in between
            os.makedirs(os.path.dirname(path), exist_ok=True)
            continue
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
            if _is_at(handle, path):
                owner = {"command": command, "host": socket.gethostname(), "pid": os.getpid(), "since": _now()}
                with contextlib.suppress(OSError):  # a full disk; the lock itself holds
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, json.dumps(owner).encode(), 0)
                return handle
        except BlockingIOError:
            holder = _holder(path)
            os.close(handle)
            raise Held(holder) from None
        except OSError:
            os.close(handle)
            raise
        os.close(handle)  # its holder has taken the file away in between


def _is_at(handle: int, path: str) -> bool:
    """Whether an open file is the one that stands at a path."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _let_go(handle: int, path: str, shared: bool) -> None:
    """Take the file away while it is held alone, so that no one else can be waiting for this very file; close it."""
    with contextlib.suppress(OSError):
        if shared:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(handle, path):
            os.remove(path)
    os.close(handle)


def _holder(path: str) -> str:
    try:
        owner = json.loads(io.read_bytes(path))
        return f"cptsel {owner['command']} (process {owner['pid']} on {owner['host']}, since {owner['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime())
