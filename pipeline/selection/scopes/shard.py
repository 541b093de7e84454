"""``--scope shard``: every shard chooses alone, without communication."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.selection.families.base import AnyChooser, Offer, deal_out, offer, picks_table
from cptsel.pipeline.selection.picks import PICKS, STEP, picks_path, write_picks
from cptsel.pipeline.selection.plan import Plan
from cptsel.pipeline.selection.reading.cells import CellReader, read_cells

CROSSING = "crossing"


@dataclass(frozen=True)
class CellTask:
    """A shard and the budget of each of its cells that has one."""

    shard: RunShard
    budgets: dict[str, int]


@dataclass(frozen=True)
class PickFromShard:
    """CellTask → what its cells offer, by group.

    The picks are written to ``<work>/picks/<shard>.parquet``, and those with the crossing sample, of cells that have
    one, to ``<work>/crossing/<shard>.parquet``.
    """

    chooser: AnyChooser
    reader: CellReader
    work: str

    def __call__(self, task: CellTask) -> list[Offer]:
        tables, crossing, offers = [], [], []
        for cell in read_cells(task.shard, self.reader, self.chooser.vectors, self.chooser.validates):
            if not task.budgets.get(cell.group):
                continue
            costs, budget = cell.costs(self.chooser.settings.unit), task.budgets[cell.group]
            picks = self.chooser.pick(cell, budget)
            tables.append(picks_table(cell, picks))
            if picks.crossing is not None:
                crossing.append(picks_table(cell, picks.crossing))
            offers.append(offer(picks, costs, budget, group=cell.group, mass=float(cell.mass.sum())))
        write_picks(self.work, task.shard.shard_id, tables)
        if crossing:
            io.write_scratch(_crossing_path(self.work, task.shard.shard_id), pa.concat_tables(crossing))
        return offers


@dataclass(frozen=True)
class CrossTask:
    """A shard, and its cells that take their crossing sample, by group."""

    shard_id: int
    groups: tuple[str, ...]


@dataclass(frozen=True)
class CrossBudgets:
    """CrossTask → None; the picks of these cells are replaced by those with the crossing sample."""

    work: str

    def __call__(self, task: CrossTask) -> None:
        path, groups = picks_path(self.work, task.shard_id), pa.array(task.groups, pa.string())
        more = io.read_parquet(_crossing_path(self.work, task.shard_id))
        picks = io.read_parquet(path) if io.exists(path) else PICKS.empty_table()
        kept = picks.filter(pc.invert(pc.is_in(picks["group"], value_set=groups)))
        write_picks(self.work, task.shard_id, [kept, more.filter(pc.is_in(more["group"], value_set=groups))])


def select_in_shards(
    shards: Sequence[RunShard], plan: Plan, reader: CellReader, chooser: AnyChooser, steps: Steps
) -> list[dict[str, Any]]:
    """Write the picks of every shard and return the reports of all cells, by shard and group.

    Each cell chooses what fits its budget. What cells leave is then dealt out in whole samples, group by group and
    within a group by shard, so that every group comes within one sample of its budget.
    """
    budgets = {shard: {name: cell.budget for name, cell in cells.items()} for shard, cells in plan.by_shard().items()}
    tasks = [
        CellTask(shard, budgets[shard.shard_id]) for shard in shards if any(budgets.get(shard.shard_id, {}).values())
    ]
    results = steps.run(STEP, PickFromShard(chooser, reader, steps.work), tasks)
    cells = [
        (found["report"]["group"], task.shard.shard_id, found)
        for task, offers in zip(tasks, results, strict=True)
        for found in offers
    ]
    cells.sort(key=lambda cell: cell[:2])
    dealt, reports = deal_out([found for _, _, found in cells])
    crossed: dict[int, list[str]] = {}
    for (group, shard_id, _), takes in zip(cells, dealt, strict=True):
        if takes:
            crossed.setdefault(shard_id, []).append(group)
    if crossed:
        tasks_crossed = [CrossTask(shard_id, tuple(groups)) for shard_id, groups in sorted(crossed.items())]
        steps.run(CROSSING, CrossBudgets(steps.work), tasks_crossed)
    by_cell = sorted(zip(cells, reports, strict=True), key=lambda pair: (pair[0][1], pair[0][0]))
    return [report for _, report in by_cell]


def _crossing_path(work: str, shard_id: int) -> str:
    return io.join(work, CROSSING, f"{shard_id:06d}.parquet")
