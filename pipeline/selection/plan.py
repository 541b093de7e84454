"""The plan of a selection: target mass and budget of every group, and of every cell under it (DESIGN section 6)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.kernels.budget import Budget, divide
from cptsel.pipeline.kernels.target_mass import target_mass

Unit = Literal["samples", "tokens"]


@dataclass(frozen=True)
class Share:
    """A group, or a cell (a group in a shard): what there is of it and what may be picked.

    ``target_mass`` is T_g; of a cell it stays 0, as targets are set by group. ``budget`` is in the plan's unit.
    """

    group: str
    samples: int
    tokens: int
    mass: float
    longest: int
    shard_id: int | None = None
    target_mass: float = 0.0
    budget: int = 0

    def size(self, unit: Unit) -> int:
        """All of it, in the unit of budgets."""
        return self.tokens if unit == "tokens" else self.samples


@dataclass(frozen=True)
class Plan:
    """Budgets of groups (ascending by name) and of cells (ascending by shard, then group)."""

    unit: Unit
    budget: int
    groups: tuple[Share, ...]
    cells: tuple[Share, ...]

    @property
    def mass(self) -> float:
        """T, the mass of all candidates."""
        return math.fsum(group.mass for group in self.groups)

    def by_shard(self) -> dict[int, dict[str, Share]]:
        """Cells by shard and group."""
        found: dict[int, dict[str, Share]] = {}
        for cell in self.cells:
            found.setdefault(cell.shard_id or 0, {})[cell.group] = cell
        return found


def make_plan(statistics: Sequence[dict[str, Any]], budget: Budget, text: str, alpha: float) -> Plan:
    """Divide a budget over groups by target mass, and each group's over its cells by mass.

    A group's budget never exceeds what it holds; what that cuts off goes to the other groups in proportion, while T_g
    stays as it is: caps change budgets only. The same holds for cells.

    Args:
        statistics: what ``cell_statistics`` says of every cell.
        budget: parsed from ``text``.
        text: ``--budget`` as given, for sentences.
        alpha: ``--group-alpha``.

    Raises:
        UsageError: no candidates, a budget above what there is, or a group whose share is less than one sample.
    """
    cells = sorted((Share(**_known(row)) for row in statistics), key=lambda cell: (cell.shard_id or 0, cell.group))
    if not cells:
        raise UsageError("no sample is left to select from: the runs are empty or --exclude takes everything")
    groups = _sum_groups(cells)
    unit, total = budget.unit, budget.of(sum(cell.samples for cell in cells))
    there = sum(cell.size(unit) for cell in cells)
    if total > there:
        raise UsageError(f"--budget {text}: there are only {there:,} {unit} to select from; 100% selects all")
    targets = target_mass(np.array([group.mass for group in groups]), alpha)
    budgets = divide(total, targets, np.array([group.size(unit) for group in groups]), unit)
    groups = [
        _with(group, target_mass=float(target), budget=int(given))
        for group, target, given in zip(groups, targets, budgets, strict=True)
    ]
    for group in groups:
        if group.budget == 0:
            raise no_pick(group, unit, text)
    return Plan(unit, total, tuple(groups), tuple(_divide_cells(groups, cells, unit)))


def no_pick(group: Share, unit: Unit, text: str) -> UsageError:
    """The error for a group that has mass and gets no sample: its mass would stand for nothing."""
    cause = f"its share is {group.budget:,} {unit}"
    if unit == "tokens" and group.budget:
        cause += " and no sample fits into what a cell has of them"
    return UsageError(
        f"--budget {text}: group {group.group!r} gets no sample ({cause} of {group.samples:,} samples); "
        "ask for a bigger --budget, a smaller --group-alpha, --scope global or coarser groups"
    )


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("shard_id", "group", "samples", "tokens", "mass", "longest")}


def _with(share: Share, **changes: Any) -> Share:
    return Share(**{**share.__dict__, **changes})


def _sum_groups(cells: Sequence[Share]) -> list[Share]:
    """Cells added up by group, ascending by name."""
    members: dict[str, list[Share]] = {}
    for cell in cells:
        members.setdefault(cell.group, []).append(cell)
    return [
        Share(
            group=name,
            samples=sum(cell.samples for cell in members[name]),
            tokens=sum(cell.tokens for cell in members[name]),
            mass=math.fsum(cell.mass for cell in members[name]),
            longest=max(cell.longest for cell in members[name]),
        )
        for name in sorted(members)
    ]


def _divide_cells(groups: Sequence[Share], cells: Sequence[Share], unit: Unit) -> list[Share]:
    """Give each cell its part of its group's budget, by mass; ties by shard."""
    planned = []
    for group in groups:
        mine = [cell for cell in cells if cell.group == group.group]
        mass, sizes = np.array([cell.mass for cell in mine]), np.array([cell.size(unit) for cell in mine])
        budgets = divide(group.budget, mass, sizes, unit)
        planned += [_with(cell, budget=int(given)) for cell, given in zip(mine, budgets, strict=True)]
    return sorted(planned, key=lambda cell: (cell.shard_id or 0, cell.group))
