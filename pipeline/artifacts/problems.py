"""What ``verify`` and ``inspect`` find wrong, kept in bounded memory and listed by file and row."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np

from cptsel.pipeline import io
from cptsel.pipeline.errors import VerificationError
from cptsel.pipeline.summary import Summary, Table, counted

KEPT = 20  # of one kind in one file, and in the list that is shown
RESTORE = "restore the directory or make it again"
RESTORE_BOTH = (
    "order links samples files, so the manifest that it read or wrote is damaged as well: restore both, or select and "
    "order again"
)


@dataclass(frozen=True)
class Problem:
    """Something wrong in ``file`` (relative to the manifest, or a shard's uri), at ``row`` if it is about one.

    ``mend`` is the remedy, empty where ``what`` has it already.
    """

    file: str
    row: int | None
    what: str
    mend: str = RESTORE

    def __str__(self) -> str:
        place = self.file if self.row is None else f"{self.file} row {self.row}"
        return f"{place}: {self.what}"


@dataclass
class Problems:
    """Counts every problem and keeps the first of each kind."""

    total: int = 0
    kept: list[Problem] = field(default_factory=list)

    def add(self, file: str, row: int | None, what: str, mend: str = RESTORE) -> None:
        """One problem."""
        self.total += 1
        self.kept.append(Problem(file, row, what, mend))

    def add_damaged(self, directory: str, file: str, what: str) -> None:
        """One problem of a file whose bytes are wrong; they are wrong wherever else it has a name."""
        if io.is_linked(io.join(directory, file)):
            self.add(file, None, f"{what}, and the same file, by a hard link, is in another directory", RESTORE_BOTH)
        else:
            self.add(file, None, what)

    def add_rows(self, file: str, wrong: np.ndarray, what: str, values: np.ndarray | None = None) -> None:
        """One problem for each row where ``wrong`` (n,) holds; ``{}`` in ``what`` is filled from ``values`` (n,)."""
        rows = np.flatnonzero(wrong)
        self.total += len(rows)
        for row in rows[:KEPT].tolist():
            self.kept.append(Problem(file, row, what if values is None else what.format(values[row])))

    def handed(self) -> list[Any]:
        """As what a step returns: [problems in all, the first of them]; ``take`` reads it."""
        return [self.total, [astuple(problem) for problem in self.listed()]]

    def take(self, total: int, entries: Iterable[Sequence[Any]]) -> None:
        """Add what a step ``handed`` over."""
        self.total += total
        self.kept += [Problem(*entry) for entry in entries]

    def listed(self, most: int = KEPT) -> list[Problem]:
        """The first problems by file and row, those about a whole file first."""
        key = lambda problem: (problem.file, -1 if problem.row is None else problem.row, problem.what)  # noqa: E731
        return sorted(self.kept, key=key)[:most]

    def tables(self) -> list[Table]:
        """The table of a summary that lists them; none where there are none."""
        if not self.total:
            return []
        listed = self.listed()
        title = "Problems" if len(listed) == self.total else f"First {len(listed)} of {self.total:,} problems"
        rows = [[problem.file, problem.row, problem.what] for problem in listed]
        return [Table(title=title, columns=["file", "row", "problem"], rows=rows)]

    def error(self, place: str, summary: Summary) -> VerificationError:
        """What a command raises for problems in ``place``: the first with its remedy; the summary lists the others."""
        first = self.listed(1)[0]
        count = counted(self.total, "problem") + (", the first" if self.total > 1 else "")
        error = VerificationError("; ".join(filter(None, [f"{place}: {count}: {first}", first.mend])))
        error.summary = summary
        return error
