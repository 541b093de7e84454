"""One writer a directory: a lock that the operating system lets go of when its process ends, however it ends.

On a remote store there is no lock (docs/design.md, Ownership): Beam's filesystems have no write that fails where a file
is there already.
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


@contextlib.contextmanager
def locked(directory: str, command: str) -> Iterator[None]:
    """Hold a directory, which is made where it is not there, and taken away again if nothing is put into it.

    Raises:
        UsageError: another process holds it; the sentence says which.
    """
    if io.is_remote(directory):
        yield
        return
    made = _make(directory)
    path = os.path.join(directory, LOCK)
    handle = _take(path, directory, command)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)  # while it is held, so that no one else can be waiting for this very file
        os.close(handle)
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # there is something in it
                os.rmdir(folder)


def _make(directory: str) -> list[str]:
    """Make a directory; returns those that were not there, the outermost first."""
    missing: list[str] = []
    folder = directory
    while folder and not os.path.exists(folder):
        missing.insert(0, folder)
        folder = os.path.dirname(folder)
    os.makedirs(directory, exist_ok=True)
    return missing


def _take(path: str, directory: str, command: str) -> int:
    """An open file on which the lock is held."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(path) and os.path.samestat(os.fstat(handle), os.stat(path)):
                owner = {"command": command, "host": socket.gethostname(), "pid": os.getpid(), "since": _now()}
                with contextlib.suppress(OSError):  # a full disk; the lock itself holds
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, json.dumps(owner).encode(), 0)
                return handle
        except BlockingIOError:
            holder = _holder(path)
            os.close(handle)
            raise UsageError(
                f"{directory} is being written by {holder}; wait for it, or choose another --out"
            ) from None
        except OSError as error:
            os.close(handle)
            if error.errno in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}:
                _log.warning("%s: its filesystem has no locks; see to it that nothing else writes there", directory)
                return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            raise
        os.close(handle)  # its holder has taken the file away in between


def _holder(path: str) -> str:
    try:
        owner = json.loads(io.read_bytes(path))
        return f"cptsel {owner['command']} (process {owner['pid']} on {owner['host']}, since {owner['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime())
