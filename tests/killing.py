"""Processes that die at a file operation, as by ``kill -9``, and what they leave."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from cptsel.pipeline.artifacts import outputs

_CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "shutil.rmtree"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def die_at(step: int, out: Path) -> None:
    """End this process right before the step-th (from 0) file operation that changes something below ``out``."""
    seen = 0

    def watch(event: str, args: tuple) -> None:
        nonlocal seen
        if event not in _CHANGES and not (event == "open" and args[2] is not None and args[2] & _WRITES):
            return
        if not any(isinstance(arg, str) and arg.startswith(str(out)) for arg in args[:2]):
            return
        if seen == step:
            os._exit(9)
        seen += 1

    sys.addaudithook(watch)


def killed(run: Callable[[], object], step: int, out: Path) -> bool:
    """Whether a child that runs a command dies at that step; else the command has ended before."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            die_at(step, out)
            run()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9), f"step {step}: the command failed by itself"
    return code == 9


def tree(out: Path) -> dict[str, bytes]:
    """All files but what tells of time, and the lock of a process that died."""
    names = set(outputs.list_tree(str(out))) - {outputs.STATS, outputs.CONFIG}
    return {name: (out / name).read_bytes() for name in names}
