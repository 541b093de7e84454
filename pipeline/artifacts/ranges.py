"""What commands that embed ranges of one run's shards hand to each other, in ``.work/ranges`` of the run.

Each command embeds the shards of its range; which one comes first, or last, nobody knows. What is done is a file, which
appears whole or not at all; what only one may do at a time is held by a lock. All of it is a cache: a run that lost it
makes it anew from ``run.json`` and the units that are there (docs/design.md, Ranges).
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.lock import Held, holding, locked
from cptsel.pipeline.artifacts.shard_range import ShardRange
from cptsel.pipeline.artifacts.writing import check_output
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.summary import counted

POLL_S = 1.0
_TOLD_AFTER_S = 5.0

_log = logging.getLogger("cptsel")


@dataclass(frozen=True)
class Ledger:
    """The files that tell how far the ranges of a run are.

    Attributes:
        out: directory of the run; local.
    """

    out: str

    @property
    def folder(self) -> str:
        """That holds all of them."""
        return io.join(self.out, outputs.WORK, "ranges")

    @property
    def digests(self) -> str:
        """Digests of the corpus's files, by which they are held when they are read."""
        return io.join(self.folder, "digests")

    def inventory(self, index: int) -> str:
        """The shards of a range, a JSON line each."""
        return io.join(self.folder, f"inventory-{index:06d}.jsonl")

    def scratch(self, index: int) -> str:
        """For the command that embeds a range."""
        return io.join(self.folder, f"scratch-{index:06d}")

    def done(self, index: int) -> str:
        """What became of the units of a range that is done; of the form of ``units.parquet``."""
        return io.join(self.folder, f"done-{index:06d}.parquet")

    @property
    def is_planned(self) -> bool:
        """Whether the inventory is taken, and ``run.json`` and all that it names is written."""
        return io.exists(self._planned) and io.exists(io.join(self.out, "run.json"))

    def set_planned(self) -> None:
        """Say so."""
        io.write_bytes(self._planned, b"")

    @property
    def _planned(self) -> str:
        return io.join(self.folder, "planned")

    @property
    def _terms(self) -> str:
        return io.join(self.folder, "terms.json")

    def agree(self, terms: dict[str, Any]) -> None:
        """Write the terms on which ranges and inventory are made, or hold those that are there against them.

        Args:
            terms: by the name of the option, with ``ranges``, their number, and ``corpus``, what was listed.

        Raises:
            UsageError: another command has other terms; the sentence names the difference.
        """
        if not io.exists(self._terms):
            io.write_json(self._terms, terms)
            return
        for name, value in io.read_json(self._terms).items():
            if value == terms.get(name):
                continue
            if name == "ranges":
                raise UsageError(
                    f"{self.out}: was begun in {counted(value, 'range')}, and --shard-range asks for {terms[name]}; "
                    f"ask for {value}, or finish it by one command without --shard-range"
                )
            what = (
                "other files, or files of other sizes, are listed than when this run was begun"
                if name == "corpus"
                else f"was begun with --{name.replace('_', '-')} {value}, now {terms.get(name)}"
            )
            raise UsageError(f"{self.out}: {what}; give what it was begun with, or use another --out")

    def terms(self) -> dict[str, Any]:
        """What was agreed on; empty where nothing was."""
        found = io.read_json(self._terms) if io.exists(self._terms) else {}
        return found if isinstance(found, dict) else {}

    def count(self) -> int | None:
        """How many ranges there are, None where the run is not made in ranges."""
        found = io.read_json(self._terms) if io.exists(self._terms) else {}
        return found.get("ranges") if isinstance(found, dict) else None

    def missing(self, count: int) -> list[int]:
        """Ranges that are not done.

        The folder is listed, not asked for each file: on a network filesystem a listing is fresh once this process has
        written into the folder, and what a file's absence is remembered for may be old.
        """
        there = set(io.list_names(self.folder, ".parquet"))
        return [index for index in range(count) if os.path.basename(self.done(index)) not in there]

    def claim(self, name: str, command: str) -> contextlib.AbstractContextManager[None]:
        """The lock of that name. Raises Held where another process has it."""
        return holding(io.join(self.folder, f"{name}.lock"), command)

    @contextlib.contextmanager
    def turn(self, command: str) -> Iterator[None]:
        """One command at a time, in no order; the others wait."""
        began, told = time.monotonic(), False
        while True:
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(self.claim("turn", command))
                except Held as holder:
                    if not told and time.monotonic() - began > _TOLD_AFTER_S:
                        _log.info("%s: waiting for %s, which plans or finishes the run", self.out, holder)
                        told = True
                else:
                    yield
                    return
            time.sleep(POLL_S)

    def forget(self) -> None:
        """Delete all of it. A command that comes at this moment may leave a lock there, and takes it away itself."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def sharing(out: str, part: ShardRange, config_yaml: str) -> Iterator[Ledger]:
    """Hold one range of a run as its one writer; other commands may hold others at once.

    What fails keeps what it has done, and a rerun goes on.

    Args:
        out: directory of the run.
        part: the range.
        config_yaml: the effective configuration, which marks a new directory as that of the command.

    Raises:
        UsageError: ``out`` is remote, another process writes this range or the whole run, or the directory is not
            ``embed``'s.
    """
    if io.is_remote(out):
        raise UsageError(
            f"--shard-range: {out} has no locks, by which commands share a directory; let one command run on a cluster "
            "of Beam's instead (docs/engines.md)"
        )
    ledger, command = Ledger(out), f"embed --shard-range {part}"
    with locked(out, command, shared=True):
        check_output(out, "embed", overwrite=False, resumes=True)
        if not io.exists(io.join(out, outputs.CONFIG)):  # mark it before anything else is in it
            outputs.write_config(out, "embed", config_yaml)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(ledger.claim(f"range-{part.index:06d}", command))
            except Held as holder:
                raise UsageError(
                    f"{out}: range {part} is being embedded by {holder}; wait for it, or give another range"
                ) from None
            try:
                yield ledger
            finally:
                shutil.rmtree(ledger.scratch(part.index), ignore_errors=True)
        for folder in (ledger.folder, io.join(out, outputs.WORK)):
            with contextlib.suppress(OSError):  # others have files in it
                os.rmdir(folder)
