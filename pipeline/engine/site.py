"""Where a worker runs: whether it has the versions of the command and sees its files, and a sentence where not."""

import platform
import socket
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from cptsel.pipeline.errors import UsageError

#: What must be of one version in the command and in its workers: the bytes hang on it, or what they say to each other.
PACKAGES = ("apache-beam", "cptsel", "faiss-cpu", "numpy", "pyarrow", "tokenizers", "torch", "transformers")


@cache
def versions() -> dict[str, str]:
    """Versions of Python and the packages of ``PACKAGES``, by name, in this process; "none" for what is not installed.

    Of Python major and minor, which Beam wants to be equal; of packages without the build, as a command on a machine
    without a GPU may have workers with one.
    """
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        try:
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            found[name] = "none"
    return found


def check_versions(expected: dict[str, str]) -> None:
    """Refuse to work beside a command of other versions.

    Args:
        expected: ``versions`` of the command.

    Raises:
        UsageError: one differs; the sentence names all that do.
    """
    here = versions()
    if other := [name for name in expected if here.get(name) != expected[name]]:
        found = ", ".join(f"{name} {here.get(name, 'none')} (the command: {expected[name]})" for name in other)
        raise UsageError(
            f"a worker on {socket.gethostname()} has {found}; install the command's versions where workers run"
        )


def missing_here(path: str) -> UsageError:
    """The error of a worker that lacks a file which the command wrote a moment ago."""
    return UsageError(
        f"{path}: a worker on {socket.gethostname()} does not see this file, which the command has just written; "
        "--out must lie where the command and all workers see it under the same path"
    )
