"""The plan of a selection: target mass and budget of every group, and of every cell under it.

See docs/design.md, Target mass; docs/design.md, Budgets.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from cptsel.pipeline.artifacts.manifest import ALL
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.kernels.budget import Budget, divide
from cptsel.pipeline.kernels.sampling.target_mass import target_mass, target_mass_by_rise, target_mass_by_share
from cptsel.pipeline.selection.reading.cells import CellStatistics
from cptsel.pipeline.summary import counted

Unit = Literal["samples", "tokens"]

# Fields of a share that add up: whole numbers, and amounts.
_COUNTS = ("samples", "tokens", "candidates", "candidate_tokens", "fresh", "fresh_tokens")
_AMOUNTS = ("mass", "mass_variance", "choice_mass", "choice_norm", "rise")
_KNOWN = ("shard_id", "group", *_COUNTS, *_AMOUNTS)


@dataclass(frozen=True)
class GroupMix:
    """How mass and budget are shared between groups.

    Attributes:
        alpha: exponent of the corpus's own mix.
        shares: shares of T by hand, by group, in place of that.
        rise_beta: exponent of how much a group's loss rises, in place of both.
        floor: the least that each group gets of the budget.
        cap: the most.
    """

    alpha: float = 1.0
    shares: Mapping[str, float] | None = None
    rise_beta: float | None = None
    floor: Budget | None = None
    cap: Budget | None = None


@dataclass(frozen=True)
class Share:
    """A group, or a cell (a group in a shard): what there is of it and what may be picked.

    ``target_mass`` is T_g; of a cell it stays 0, as targets are set by group. ``choice_mass`` is the mass that choices
    go by, which is ``mass`` unless the rise of losses changes it; ``choice_norm`` Σ grad_norm / pool_prob, changed in
    the same way. ``fresh`` candidates were never replayed. ``longest`` is the largest candidate in the unit of budgets,
    and ``budget`` is in that unit too.
    """

    group: str
    samples: int
    tokens: int
    mass: float
    mass_variance: float
    candidates: int
    candidate_tokens: int
    fresh: int
    fresh_tokens: int
    longest: int
    choice_mass: float
    choice_norm: float
    rise: float
    shard_id: int | None = None
    target_mass: float = 0.0
    budget: int = 0

    def size(self, unit: Unit) -> int:
        """All candidates, in the unit of budgets."""
        return self.candidate_tokens if unit == "tokens" else self.candidates


@dataclass(frozen=True)
class Plan:
    """Budgets of groups (ascending by name) and of cells (ascending by shard, then group)."""

    unit: Unit
    budget: int
    groups: tuple[Share, ...]
    cells: tuple[Share, ...]

    @property
    def mass(self) -> float:
        """T, the mass of all samples."""
        return math.fsum(group.mass for group in self.groups)

    @property
    def numbers(self) -> dict[str, int]:
        """Places of the groups, by which files of a step are named."""
        return {group.group: number for number, group in enumerate(self.groups)}

    def by_shard(self) -> dict[int, dict[str, Share]]:
        """Cells by shard and group."""
        found: dict[int, dict[str, Share]] = {}
        for cell in self.cells:
            found.setdefault(cell.shard_id or 0, {})[cell.group] = cell
        return found


def make_plan(
    statistics: Sequence[CellStatistics],
    budget: Budget,
    text: str,
    mix: GroupMix,
    cell_shares: Callable[[Share], float] = lambda cell: cell.choice_mass,
) -> Plan:
    """Divide a budget over groups by target mass, and each group's over its cells.

    A group's budget never exceeds the candidates it holds; what that cuts off goes to the other groups in proportion,
    while T_g stays as it is: caps and floors change budgets only. The same holds for cells.

    Args:
        statistics: what ``cell_statistics`` says of every cell.
        budget: parsed from ``text``.
        text: ``--budget`` as given, for sentences.
        mix: how groups share.
        cell_shares: what the cells of a group share its budget by.

    Raises:
        UsageError: no candidates, a budget above what there is, a mix that doesn't fit the groups, or a group that is
            to stand for some mass and gets less than one sample.
    """
    unit = budget.unit
    cells = sorted((_share(row, unit) for row in statistics), key=_by_shard)
    there = sum(cell.size(unit) for cell in cells)
    if not there:
        raise UsageError(
            "no sample is left to select from: the runs are empty, or --exclude or --history takes everything"
        )
    groups = _sum_groups(cells)
    total = budget.of(sum(cell.candidates for cell in cells))
    if total > there:
        raise UsageError(f"{text}: only {counted(there, _one(unit))} can be selected; 100% selects all")
    targets = _targets(groups, mix)
    budgets = _group_budgets(groups, targets, total, unit, text, mix)
    groups = [
        replace(group, target_mass=float(target), budget=int(given))
        for group, target, given in zip(groups, targets, budgets, strict=True)
    ]
    for group in groups:
        if group.budget == 0 and group.target_mass > 0:
            raise no_pick(group, unit, text)
    return Plan(unit, total, tuple(groups), tuple(_divide_cells(groups, cells, unit, cell_shares)))


def set_aside(plan: Plan, share: float) -> tuple[Plan, Plan]:
    """A share of every group's budget for a draw from what is fresh, and the plan of what is left.

    Groups get their share to within one sample, and no more of it than they have that is fresh.
    """
    drawn, rest = [], []
    there = np.array([group.fresh_tokens if plan.unit == "tokens" else group.fresh for group in plan.groups], np.int64)
    budgets = np.array([group.budget for group in plan.groups], np.int64)
    most = np.minimum(there, np.ceil(share * budgets).astype(np.int64))
    wanted = divide(round(share * int(budgets.sum())), budgets.astype(float), most)
    of_group = _by_group(plan.cells)
    for group, total in zip(plan.groups, wanted.tolist(), strict=True):
        mine = of_group[group.group]
        fresh = [cell.fresh_tokens if plan.unit == "tokens" else cell.fresh for cell in mine]
        caps = np.minimum(fresh, [cell.budget for cell in mine])
        given = divide(total, np.array([cell.budget for cell in mine], float), caps)
        for cell, budget in zip(mine, given.tolist(), strict=True):
            drawn.append(replace(cell, budget=budget))
            rest.append(replace(cell, budget=cell.budget - budget))
    return _with_cells(plan, drawn), _with_cells(plan, rest)


def _with_cells(plan: Plan, cells: Sequence[Share]) -> Plan:
    """A plan with other budgets of its cells, which those of groups follow."""
    of_group: dict[str, int] = {}
    for cell in cells:
        of_group[cell.group] = of_group.get(cell.group, 0) + cell.budget
    groups = tuple(replace(group, budget=of_group[group.group]) for group in plan.groups)
    return Plan(plan.unit, sum(of_group.values()), groups, tuple(sorted(cells, key=_by_shard)))


def _by_shard(cell: Share) -> tuple[int, str]:
    return cell.shard_id or 0, cell.group


def _one(unit: Unit) -> str:
    """The noun of one of a unit."""
    return unit.removesuffix("s")


def no_pick(group: Share, unit: Unit, text: str) -> UsageError:
    """The error for a group that has mass and gets no sample: its mass would stand for nothing."""
    if not group.candidates:
        return UsageError(
            f"group {group.group!r} has {group.mass:,.0f} tokens of mass and no candidate is left in it: --history or "
            "--explore takes them all; use --history-mode discount, coarser groups, or give it no share by --group-mass"
        )
    cause = f"its share is {counted(group.budget, _one(unit))}"
    if unit == "tokens" and group.budget:
        cause += ", too little for a whole sample,"
    elif group.longest > 1 and group.budget:
        cause += f", too little for a whole batch of up to {group.longest},"
    remedy = "" if group.group == ALL else ", or give a smaller --group-alpha, a --group-floor or coarser groups"
    return UsageError(
        f"{text}: group {group.group!r} gets no sample ({cause} of {counted(group.samples, 'sample')}); "
        f"ask for more{remedy}"
    )


def _share(row: CellStatistics, unit: Unit) -> Share:
    of_row: Mapping[str, Any] = row
    known = {name: of_row[name] for name in _KNOWN}
    return Share(**known, longest=row["longest"][unit])


def _sum_groups(cells: Sequence[Share]) -> list[Share]:
    """Cells added up by group, ascending by name."""
    groups = []
    for name, members in sorted(_by_group(cells).items()):
        known: dict[str, Any] = {field: sum(getattr(cell, field) for cell in members) for field in _COUNTS}
        known |= {field: math.fsum(getattr(cell, field) for cell in members) for field in _AMOUNTS}
        groups.append(Share(group=name, longest=max(cell.longest for cell in members), **known))
    return groups


def _by_group(cells: Sequence[Share]) -> dict[str, list[Share]]:
    """The cells of each group, in their order: a plan may have a million."""
    found: dict[str, list[Share]] = {}
    for cell in cells:
        found.setdefault(cell.group, []).append(cell)
    return found


def _targets(groups: Sequence[Share], mix: GroupMix) -> np.ndarray:
    """T_g of every group."""
    mass = np.array([group.mass for group in groups])
    if mix.rise_beta is not None:
        try:
            return target_mass_by_rise(mass, np.array([group.rise for group in groups]) / mass, mix.rise_beta)
        except ValueError as error:
            raise UsageError(f"--group-mass interference: {error}; set shares by hand or by --group-alpha") from error
    if mix.shares is None:
        return target_mass(mass, mix.alpha)
    names = [group.group for group in groups]
    for what, missing in (
        ("has no share for", sorted(set(names) - set(mix.shares))),
        ("names what is no group here:", sorted(set(mix.shares) - set(names))),
    ):
        if missing:
            raise UsageError(f"--group-mass {what} {', '.join(missing[:5])}; the groups are {', '.join(names[:20])}")
    shares = np.array([mix.shares[name] for name in names], dtype=np.float64)
    if not shares.sum() > 0:
        raise UsageError("--group-mass gives no group a share above 0")
    return target_mass_by_share(mass, shares)


def _group_budgets(
    groups: Sequence[Share], targets: np.ndarray, total: int, unit: Unit, text: str, mix: GroupMix
) -> np.ndarray:
    """Divide the budget by target mass, within the groups' candidates and the floor and cap of the mix."""
    sizes = np.array([group.size(unit) for group in groups])
    limits = {}
    for name, limit in (("floor", mix.floor), ("cap", mix.cap)):
        if limit is not None and limit.kind not in ("fraction", unit):
            raise UsageError(f"--group-{name}: {text} counts {unit}, so give it in {unit} or as a share of it")
        limits[name] = None if limit is None else limit.of(total)
    if limits["cap"] is not None:
        if limits["floor"] is not None and limits["floor"] > limits["cap"]:
            raise UsageError(
                f"--group-floor of {limits['floor']:,} {unit} is above the --group-cap of {limits['cap']:,}; lower it, "
                "or raise the cap"
            )
        sizes = np.minimum(sizes, limits["cap"])
        if sizes[targets > 0].sum() < total:
            raise UsageError(
                f"--group-cap leaves {sizes[targets > 0].sum():,} of the {total:,} {unit} of {text}; raise it"
            )
    try:
        floors = None if limits["floor"] is None else np.full(len(groups), limits["floor"])
        return divide(total, targets, sizes, floors)
    except ValueError as error:
        raise UsageError(f"--group-floor: {error}; lower it, or raise {text}") from error


def _divide_cells(
    groups: Sequence[Share], cells: Sequence[Share], unit: Unit, cell_shares: Callable[[Share], float]
) -> list[Share]:
    """Give each cell its part of its group's budget; ties by shard."""
    planned, of_group = [], _by_group(cells)
    for group in groups:
        mine = of_group[group.group]
        shares, sizes = np.array([cell_shares(cell) for cell in mine]), np.array([cell.size(unit) for cell in mine])
        if group.budget and not (shares * sizes).sum() > 0:
            raise UsageError(
                f"group {group.group!r}: no sample counts for anything there (gradients of length 0, or no loss that "
                "rises along the new domain); leave it out by --group-mass, or choose by another method"
            )
        budgets = divide(group.budget, shares, sizes)
        planned += [replace(cell, budget=int(given)) for cell, given in zip(mine, budgets, strict=True)]
    return sorted(planned, key=_by_shard)
