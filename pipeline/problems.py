"""What ``verify`` finds wrong, kept in bounded memory and listed by file and row."""

from dataclasses import dataclass, field

import numpy as np

KEPT = 20  # of one kind in one file, and in the list that is shown


@dataclass(frozen=True)
class Problem:
    """Something wrong in ``file`` (relative to the manifest, or a shard's uri), at ``row`` if it is about one."""

    file: str
    row: int | None
    what: str

    def __str__(self) -> str:
        place = self.file if self.row is None else f"{self.file} row {self.row}"
        return f"{place}: {self.what}"


@dataclass
class Problems:
    """Counts every problem and keeps the first of each kind."""

    total: int = 0
    kept: list[Problem] = field(default_factory=list)

    def add(self, file: str, row: int | None, what: str) -> None:
        """One problem."""
        self.total += 1
        self.kept.append(Problem(file, row, what))

    def add_rows(self, file: str, wrong: np.ndarray, what: str, values: np.ndarray | None = None) -> None:
        """One problem for each row where ``wrong`` (n,) holds; ``{}`` in ``what`` is filled from ``values`` (n,)."""
        rows = np.flatnonzero(wrong)
        self.total += len(rows)
        for row in rows[:KEPT].tolist():
            self.kept.append(Problem(file, row, what if values is None else what.format(values[row])))

    def listed(self, most: int = KEPT) -> list[Problem]:
        """The first problems by file and row, those about a whole file first."""
        key = lambda problem: (problem.file, -1 if problem.row is None else problem.row, problem.what)  # noqa: E731
        return sorted(self.kept, key=key)[:most]
