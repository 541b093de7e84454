"""Parts of a global selection: where the candidates of a merge come from (GreeDi, Mirzasoleiman et al. 2013).

A part is a shard, or, with ``--partition cluster``, a partition of a group's samples that lie near each other. Each
picks several times its share and hands the picks on in files, of coverage with samples that are clients of the merge.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.kernels.budget import divide
from cptsel.pipeline.kernels.coverage.merge import part_budget
from cptsel.pipeline.selection.families.base import MergingChooser
from cptsel.pipeline.selection.plan import Plan, Share
from cptsel.pipeline.selection.reading.cells import Cell, CellReader, read_cells
from cptsel.pipeline.selection.scopes.routing import RoutedCell, read_routed, route_by_cluster

CANDIDATES = "candidates"


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        number: of the part, unique among all.
        source: a shard with cells of any groups, or one routed cell.
        budgets: what it picks for the merge, by group; 0 where it has no candidate and only brings clients and target.
        client_rates: share of its samples that are clients, by group of its own.
    """

    number: int
    source: RunShard | RoutedCell
    budgets: dict[str, int]
    client_rates: dict[str, float]


@dataclass(frozen=True)
class MergeTask:
    """A group, its place among the groups of the plan, and the parts that have some of it."""

    number: int
    group: Share
    parts: tuple[int, ...]


@dataclass(frozen=True)
class PickCandidates:
    """Part → None; what the family hands on goes to ``<work>/<step>/<group>-<part>.parquet``."""

    chooser: MergingChooser[Any]
    reader: CellReader
    work: str
    groups: dict[str, int]  # their numbers

    def __call__(self, part: Part) -> None:
        for cell in self._cells(part):
            if cell.group not in part.budgets:
                continue
            picks = self.chooser.pick(cell, part.budgets[cell.group])
            number = self.groups[cell.group]
            for step, table in self.chooser.hand_on(cell, picks, part.client_rates[cell.group]).items():
                io.write_scratch(part_path(self.work, step, number, part.number), table)

    def _cells(self, part: Part) -> Iterator[Cell]:
        if isinstance(part.source, RoutedCell):
            yield read_routed(part.source)
        else:
            yield from read_cells(part.source, self.reader, self.chooser.vectors, self.chooser.validates)


def plan_parts(
    chooser: MergingChooser[Any],
    shards: Sequence[RunShard],
    plan: Plan,
    reader: CellReader,
    steps: Steps,
    partitions: int | None,
) -> list[Part]:
    """The shards as parts, or ``partitions`` clusters of each group (see ``route_by_cluster``)."""
    tuning = chooser.settings.tuning
    if partitions is None:
        return parts_of_shards(shards, plan, tuning.clients)
    cells = route_by_cluster(shards, plan, reader, chooser, partitions, steps)
    return parts_of_routed(cells, plan, tuning.clients)


def parts_of_shards(shards: Sequence[RunShard], plan: Plan, clients: int) -> list[Part]:
    """Every shard as a part."""
    groups = {group.group: group for group in plan.groups if group.budget}
    cells, rates = plan.by_shard(), client_rates(plan, clients)
    parts = []
    for shard in shards:
        if shard.shard_id in cells:
            mine = {name: cell for name, cell in cells[shard.shard_id].items() if name in groups}
            budgets = {name: _budget(cell, groups[name], plan) for name, cell in mine.items()}
            parts.append(Part(shard.shard_id, shard, budgets, {name: rates[name] for name in mine}))
    return parts


def parts_of_routed(cells: Sequence[RoutedCell], plan: Plan, clients: int) -> list[Part]:
    """Every routed cell as a part; its own budget is by mass and at most what it holds, as those of shards are."""
    rates = client_rates(plan, clients)
    of_group: dict[str, list[RoutedCell]] = {}
    for cell in cells:
        of_group.setdefault(cell.group, []).append(cell)
    budgets: dict[tuple[str, ...], int] = {}
    for group in plan.groups:
        mine = of_group.get(group.group, [])
        shares = [cell.share for cell in mine]
        own = divide(
            group.budget,
            np.array([share.choice_mass for share in shares]),
            np.array([share.size(plan.unit) for share in shares], np.int64),
        )
        for cell, share, budget in zip(mine, shares, own.tolist(), strict=True):
            budgets[cell.files] = _budget(replace(share, budget=budget), group, plan)
    return [
        Part(number, cell, {cell.group: budgets[cell.files]}, {cell.group: rates[cell.group]})
        for number, cell in enumerate(cells)
    ]


def client_rates(plan: Plan, clients: int) -> dict[str, float]:
    """The share of each group's samples that are clients of its merge, of which there are to be about ``clients``."""
    return {group.group: min(1.0, clients / group.samples) for group in plan.groups}


def pick_candidates(
    chooser: MergingChooser[Any], parts: Sequence[Part], plan: Plan, reader: CellReader, steps: Steps
) -> list[MergeTask]:
    """Let every part pick; returns what there is to merge, one task a group with a budget."""
    steps.run(CANDIDATES, PickCandidates(chooser, reader, steps.work, plan.numbers), parts)
    having: dict[str, list[int]] = {}  # a plan may have many groups and many parts
    for part in parts:
        for name in part.budgets:
            having.setdefault(name, []).append(part.number)
    return [
        MergeTask(number, group, tuple(having.get(group.group, ())))
        for number, group in enumerate(plan.groups)
        if group.budget
    ]


def read_candidates(work: str, task: MergeTask) -> pa.Table:
    """The candidates and clients of a group, by sample_id."""
    rows = pa.concat_tables(io.read_parquet(part_path(work, CANDIDATES, task.number, part)) for part in task.parts)
    return rows.sort_by("sample_id").combine_chunks()


def part_path(work: str, step: str, group: int, part: int) -> str:
    """Where what a part hands on of a group lies."""
    return io.join(work, step, f"{group:05d}-{part:06d}.parquet")


def _budget(cell: Share, group: Share, plan: Plan) -> int:
    """What a part picks for the merge: several times its share, at least one sample, at most all.

    Never less than its own budget either, which is above its share by mass where another part is too small for its own:
    cells' budgets add up to the group's, and so the candidates suffice for it.
    """
    least = max(cell.budget, cell.longest)
    share = cell.choice_mass / group.choice_mass if group.choice_mass > 0 else 0.0
    mean_cost = group.size(plan.unit) / group.candidates
    return min(cell.size(plan.unit), max(least, part_budget(group.budget, share, mean_cost)))
