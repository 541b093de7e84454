"""How a command writes its output directory: one writer, begun, committed, or rolled back; the same for all commands.

``_SUCCESS`` goes first and comes last. A command saves its configuration in its output, under a heading that names the
command. Only a directory with that heading is ever replaced, finished or not. A user may have put files into it since,
so before anything is deleted every file must have a name that the command itself gives. See docs/design.md, Ownership.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.lock import locked
from cptsel.pipeline.artifacts.outputs import CONFIG, SUCCESS, WORK, list_tree, made_by, temporary_of, write_config
from cptsel.pipeline.errors import UsageError

_ALWAYS = r"config\.yaml|stats\.json|_SUCCESS|SHA256SUMS"
_MANIFEST = _ALWAYS + r"|manifest\.json|CONSUMING\.md|shards\.parquet|samples/\d{6,}\.parquet"
_WORK = re.escape(WORK) + r"/.+"
_WRITTEN = {  # what each command writes below its output, finished or not
    "embed": _ALWAYS
    + r"|run\.json|(shards|units|cells)\.parquet|(embeddings|rejects)/\d{6,}-\d{5,}\.parquet|lookahead/[^/]+",
    "lookahead": _ALWAYS,
    "select": _MANIFEST,
    "order": _MANIFEST + r"|schedule/\d+-\d+\.parquet",
    "export": _ALWAYS + r"|export\.json",
    "distill": _ALWAYS + r"|targets\.json|projection\.parquet|data/\d{6,}-\d{5,}\.parquet",
    "fisher": _ALWAYS + r"|fisher\.(json|safetensors)|partials/\d{6,}-\d{5,}\.safetensors",
}


@dataclass
class Output:
    """A directory that a command is about to write.

    Attributes:
        path: of the directory.
        command: the command.
        is_new: whether nothing was in it.
        begun: whether what was in it is gone.
    """

    path: str
    command: str
    is_new: bool
    begun: bool = False

    def begin(self, config_yaml: str) -> None:
        """Empty the directory but for ``config.yaml`` and ``.work``: ``_SUCCESS`` first, the mark of the owner never.

        Wherever this is killed, the directory is unfinished and this command's, and the next call begins anew.
        """
        io.delete(io.join(self.path, SUCCESS))
        self.begun = True
        write_config(self.path, self.command, config_yaml)
        io.delete_files(
            self.path, [name for name in list_tree(self.path) if name != CONFIG and not name.startswith(f"{WORK}/")]
        )

    def roll_back(self, keep: bool) -> None:
        """Leave nothing of a call that failed, or with ``keep`` what a rerun can go on with.

        What an earlier call left stays where this one had not begun.
        """
        whole = not keep and (self.is_new or self.begun)
        io.delete_files(self.path, [name for name in list_tree(self.path) if whole or name.startswith(f"{WORK}/")])


@contextlib.contextmanager
def writing(
    out: str, command: str, *, overwrite: bool, dry_run: bool = False, data: str = "(?!)", resumes: bool = False
) -> Iterator[Output]:
    """Hold ``out`` as its one writer, after ``check_output``. What fails is rolled back, unless a rerun resumes it.

    With ``dry_run`` it is checked alone.
    """
    check_output(out, command, overwrite=overwrite, data=data, resumes=resumes)  # before a directory is made
    if dry_run:
        yield Output(out, command, is_new=False)
        return
    with locked(out, command):
        check_output(out, command, overwrite=overwrite, data=data, resumes=resumes)  # now no one else changes it
        output = Output(out, command, is_new=all(map(temporary_of, list_tree(out))))
        try:
            yield output
        except BaseException:  # an interrupt too
            with contextlib.suppress(OSError):  # it would hide the error itself
                output.roll_back(keep=resumes)
            raise


def check_output(out: str, command: str, *, overwrite: bool, data: str = "(?!)", resumes: bool = False) -> None:
    """Refuse what must not be written, and change nothing, as for ``--dry-run``.

    Args:
        out: the directory.
        command: the command.
        overwrite: whether a finished output may be replaced.
        data: regular expression of what else the command writes; nothing by default.
        resumes: whether the command goes on with what it finds; then only ``overwrite`` deletes anything.

    Raises:
        UsageError: ``out`` is finished and ``overwrite`` is off, or holds files that are not this command's.
    """
    if io.exists(out) and not io.is_remote(out) and not os.path.isdir(out):
        raise UsageError(f"{out} is a file; choose a directory for --out")
    pattern = re.compile(f"{_WRITTEN[command]}|{_WORK}|{data}")
    # What a killed call was about to write is no one else's file, even where nothing else is there yet.
    names = [name for name in list_tree(out) if not pattern.fullmatch(temporary_of(name) or "")]
    if not names:
        return
    maker = made_by(out)
    if maker is None:
        raise UsageError(f"{out} holds files that cptsel {command} did not write; choose another --out")
    if maker != command:
        raise UsageError(f"{out} was written by cptsel {maker}, not by {command}; choose another --out")
    if resumes and not overwrite:
        return
    if io.exists(io.join(out, SUCCESS)) and not overwrite:
        raise UsageError(f"{out} exists; pass --overwrite or another --out")
    for name in names:
        if not pattern.fullmatch(name):
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


def commit(out: str, keep_work: bool = False) -> None:
    """Mark an output as finished, once all of it is on disk: ``_SUCCESS`` comes last.

    With ``keep_work`` what is in ``.work`` stays, to be deleted afterwards: a call that is killed needs it until then.
    """
    work = f"{WORK}/"
    names = [name for name in list_tree(out) if not (keep_work and name.startswith(work))]
    io.delete_files(out, [name for name in names if temporary_of(name) or name.startswith(work)])
    io.sync_directories(out)
    io.write_bytes(io.join(out, SUCCESS), b"")
    io.sync_directories(out, deep=False)
