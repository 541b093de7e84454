"""``--scope shard``: every shard chooses alone, without communication."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.selection.families.base import AnyChooser, picks_table
from cptsel.pipeline.selection.picks import STEP, write_picks
from cptsel.pipeline.selection.plan import Plan
from cptsel.pipeline.selection.reading.cells import CellReader, read_cells


@dataclass(frozen=True)
class CellTask:
    """A shard and the budget of each of its cells that has one."""

    shard: RunShard
    budgets: dict[str, int]


@dataclass(frozen=True)
class PickFromShard:
    """CellTask → reports of its cells; the picks are written to ``<work>/picks/<shard>.parquet``."""

    chooser: AnyChooser
    reader: CellReader
    work: str

    def __call__(self, task: CellTask) -> list[dict[str, Any]]:
        tables, reports = [], []
        for cell in read_cells(task.shard, self.reader, self.chooser.vectors, self.chooser.validates):
            if not task.budgets.get(cell.group):
                continue
            picks = self.chooser.pick(cell, task.budgets[cell.group])
            tables.append(picks_table(cell, picks))
            reports.append({"group": cell.group, "mass": float(cell.mass.sum()), **picks.report})
        write_picks(self.work, task.shard.shard_id, tables)
        return reports


def select_in_shards(
    shards: Sequence[RunShard], plan: Plan, reader: CellReader, chooser: AnyChooser, steps: Steps
) -> list[dict[str, Any]]:
    """Write the picks of every shard and return the reports of all cells, by shard and group."""
    budgets = {shard: {name: cell.budget for name, cell in cells.items()} for shard, cells in plan.by_shard().items()}
    tasks = [
        CellTask(shard, budgets[shard.shard_id]) for shard in shards if any(budgets.get(shard.shard_id, {}).values())
    ]
    results = steps.run(STEP, PickFromShard(chooser, reader, steps.work), tasks)
    return [report for reports in results for report in reports]
