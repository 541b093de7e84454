"""``--scope shard``: every shard chooses alone, without communication."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.runs import RunShard
from cptsel.pipeline.selection.cells import CellReader, read_cells
from cptsel.pipeline.selection.methods import METHODS, PICKS, Settings, picks_table
from cptsel.pipeline.selection.plan import Plan
from cptsel.pipeline.steps import Steps

STEP = "picks"


@dataclass(frozen=True)
class CellTask:
    """A shard and the budget of each of its cells that has one."""

    shard: RunShard
    budgets: dict[str, int]


@dataclass(frozen=True)
class PickFromShard:
    """CellTask → reports of its cells; the picks are written to ``<work>/picks/<shard>.parquet``."""

    method: str
    reader: CellReader
    settings: Settings
    work: str

    def __call__(self, task: CellTask) -> list[dict[str, Any]]:
        method = METHODS[self.method]
        tables, reports = [], []
        for cell in read_cells(task.shard, self.reader, vectors=method.needs_vectors):
            if not task.budgets.get(cell.group):
                continue
            picks = method.pick(cell, task.budgets[cell.group], self.settings)
            tables.append(picks_table(cell, picks))
            reports.append({"group": cell.group, "mass": float(cell.mass.sum()), **picks.report})
        write_picks(self.work, task.shard.shard_id, tables)
        return reports


def select_in_shards(
    shards: Sequence[RunShard], plan: Plan, method: str, reader: CellReader, settings: Settings, steps: Steps
) -> list[dict[str, Any]]:
    """Write the picks of every shard and return the reports of all cells, by shard and group."""
    budgets = {shard: {name: cell.budget for name, cell in cells.items()} for shard, cells in plan.by_shard().items()}
    tasks = [
        CellTask(shard, budgets[shard.shard_id]) for shard in shards if any(budgets.get(shard.shard_id, {}).values())
    ]
    results = steps.run(STEP, PickFromShard(method, reader, settings, steps.work), tasks)
    return [report for reports in results for report in reports]


def write_picks(work: str, shard_id: int, tables: Sequence[pa.Table]) -> None:
    """Write the picks of one shard in corpus order; no file where there are none."""
    table = pa.concat_tables([PICKS.empty_table(), *tables])
    if table.num_rows:
        table = table.sort_by([("row_index", "ascending"), ("window", "ascending")]).combine_chunks()
        io.write_parquet(io.join(work, STEP, f"{shard_id:06d}.parquet"), table)
