"""Draws: at random by scores, over whole groups exactly as one machine that holds everything would draw.

Every shard sends the rows with its largest keys, a few more than its share, and says how large the next key is. The
driver takes the largest of all; a shard whose next key would have been taken too is asked again, for all its rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.sampling.draws import (
    crossing_room,
    inclusion_probability,
    priority_keys,
    priority_sample,
)
from cptsel.pipeline.selection.drawing import GroupDraws
from cptsel.pipeline.selection.families.base import Chooser, Picks, picks_table
from cptsel.pipeline.selection.methods import Draw
from cptsel.pipeline.selection.picks import PICKS, with_column, write_picks
from cptsel.pipeline.selection.plan import Plan, Share
from cptsel.pipeline.selection.reading.cells import Cell, CellReader, read_cells
from cptsel.pipeline.spill.columns import Column

STEP = "keys"

# A sent row: PICKS, whose found_mass is the mass still to be divided by π, and what the draw goes by.
_SENT = pa.schema(
    [
        *PICKS,
        pa.field("draw_score", pa.float64()),
        pa.field("draw_u", pa.float64()),
        pa.field("atom", pa.string()),  # what is drawn: the sample, or the batch it is in
        pa.field("cost", pa.int64()),  # of the atom, in the unit of budgets
    ]
)


@dataclass(frozen=True)
class KeysTask:
    """A shard and how many rows to send of each of its cells."""

    shard: RunShard
    limits: dict[str, int]


@dataclass(frozen=True)
class SendLargestKeys:
    """KeysTask → the largest key not sent, by group (0 where all are); rows go to ``<work>/keys/<shard>.parquet``."""

    chooser: "DrawChooser"
    reader: CellReader
    work: str

    def __call__(self, task: KeysTask) -> dict[str, float]:
        tables, left = [], {}
        for cell in read_cells(task.shard, self.reader):
            table, left[cell.group] = _largest(cell, task.limits[cell.group], self.chooser)
            tables.append(table)
        io.write_scratch(_path(self.work, task.shard.shard_id), pa.concat_tables([_SENT.empty_table(), *tables]))
        return left


class DrawChooser(Chooser[Draw]):
    """Draws by keys: scores over uniform variates."""

    def keys(self, cell: Cell) -> tuple[np.ndarray, np.ndarray]:
        """Scores s, 0 for what may not be picked, and uniform variates u of the atoms, by their names alone."""
        settings = self.settings
        scores = self.method.scores(cell.columns, settings.importance)
        # A rise of the loss counts as more of the sample, as does the pool's rate, which is in the scores already.
        scores = scores * (cell.mass / cell.columns["corpus_mass"]) * settings.discounts(cell.rounds) * cell.free
        return scores, uniform(settings.seed, f"{settings.purpose} {settings.phase}", cell.names)

    def pick(self, cell: Cell, budget: int) -> Picks:
        """found_mass = mass / π."""
        scores, u = self.keys(cell)
        if self.settings.unit == "samples" and cell.order is None:
            draw = priority_sample(scores, u, budget)
        else:
            costs = cell.costs(self.settings.unit)
            name = f"{self.settings.purpose} {self.settings.phase} {cell.group}"
            (rounding,) = uniform(self.settings.seed, name, cell.names[:1])
            draw = priority_sample(scores, u, budget + crossing_room(scores, costs, float(rounding)), costs)
        return Picks(draw.picked, cell.mass[draw.picked] / draw.inclusion_prob, draw.inclusion_prob)

    def choose_globally(
        self, shards: Sequence[RunShard], plan: Plan, reader: CellReader, steps: Steps, partitions: int | None
    ) -> list[dict[str, Any]]:
        cells = plan.by_shard()
        shards = [shard for shard in shards if shard.shard_id in cells]
        send = SendLargestKeys(self, reader, steps.work)
        margin = self.settings.tuning.draw_margin
        tasks = [
            KeysTask(shard, {name: _limit(c, plan, margin) for name, c in cells[shard.shard_id].items()})
            for shard in shards
        ]
        left = dict(zip((shard.shard_id for shard in shards), steps.run(STEP, send, tasks), strict=True))
        rows = self.settings.tuning.pick_rows
        drawn = _draw(plan, shards, steps.work, rows)
        again = [
            KeysTask(shard, {name: cell.candidates for name, cell in cells[shard.shard_id].items()})
            for shard in shards
            # An unsent key at or above the threshold, however it ties, may belong to the draw.
            if any(
                key > 0 and key >= drawn.thresholds.get(name, math.inf) for name, key in left[shard.shard_id].items()
            )
        ]
        if again:
            steps.run(STEP, send, again)
            drawn = _draw(plan, shards, steps.work, rows)
        _write(drawn, plan, shards, steps.work)
        return [{"group": group.group, "mass": group.choice_mass} for group in plan.groups]


def _limit(cell: Share, plan: Plan, margin: float) -> int:
    """Rows to send: the cell's share of the budget and some standard deviations, so that asking again is rare."""
    share = cell.budget if plan.unit == "samples" else cell.budget * cell.candidates / max(1, cell.candidate_tokens)
    return min(cell.candidates, max(1, math.ceil(share + margin * math.sqrt(share) + 16)))


def _largest(cell: Cell, limit: int, chooser: DrawChooser) -> tuple[pa.Table, float]:
    """The rows of the atoms of a cell with the largest keys, and the next key."""
    scores, u = chooser.keys(cell)
    draw = priority_sample(scores, u, limit)
    sent = picks_table(cell, Picks(draw.picked, cell.mass[draw.picked], np.ones(len(draw.picked))))
    atom = draw.picked[cell.members(draw.picked)[0]]
    names = pa.array(cell.names, pa.string()).take(pa.array(atom))
    costs = cell.costs(chooser.settings.unit)
    columns = [*sent.columns, pa.array(scores[atom]), pa.array(u[atom]), names, pa.array(costs[atom])]
    return pa.Table.from_arrays(columns, schema=_SENT), draw.threshold


@dataclass(frozen=True, eq=False)
class _Sent:
    """What a shard sent of groups that are to stand for something.

    Attributes:
        rows: (m,) int64, where it is in the file.
        group: (a,) int64 the place of each atom's group in the plan; names: a of them, ascending.
        score, u, cost: (a,) of the atoms.
        atom: (m,) int64 the atom of each row.
    """

    rows: np.ndarray
    group: np.ndarray
    names: list[str]
    score: np.ndarray
    u: np.ndarray
    cost: np.ndarray
    atom: np.ndarray


def _sent(plan: Plan, table: pa.Table) -> _Sent:
    group = pc.index_in(table["group"], pa.array([group.group for group in plan.groups], pa.string())).to_numpy()
    rows = np.flatnonzero(np.array([group.budget > 0 for group in plan.groups])[group])
    names, first, atom = np.unique(table["atom"].to_numpy()[rows].astype(str), return_index=True, return_inverse=True)
    score, u, cost = (table[name].to_numpy()[rows[first]] for name in ("draw_score", "draw_u", "cost"))
    return _Sent(rows, group[rows[first]].astype(np.int64), names.tolist(), score, u, cost, atom)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """What is drawn of what was sent.

    Attributes:
        thresholds: of every group with a budget.
        taken: (n,) bool, of the atoms of all shards, one shard after the other.
        ends: for each shard, where its atoms end.
    """

    thresholds: dict[str, float]
    taken: Column
    ends: list[int]


def _draw(plan: Plan, shards: Sequence[RunShard], work: str, rows: int) -> _Drawn:
    """Draw each group from what was sent."""
    draws, ends = GroupDraws(len(plan.groups)), []
    paths = [_path(work, shard.shard_id) for shard in shards]
    for table in io.read_tables(paths, ["group", "draw_score", "draw_u", "atom", "cost"]):
        sent = _sent(plan, table)
        draws.add(sent.group, sent.names, priority_keys(sent.score, sent.u), sent.cost)
        ends.append(len(draws))
    drawn = draws.draw([group.budget for group in plan.groups], rows)
    thresholds = zip(plan.groups, drawn.threshold.tolist(), strict=True)
    return _Drawn({group.group: key for group, key in thresholds if group.budget}, drawn.taken, ends)


def _write(drawn: _Drawn, plan: Plan, shards: Sequence[RunShard], work: str) -> None:
    """Write the picks of each shard: all rows of what was drawn of it, with π from the threshold of all."""
    for shard, (start, end) in zip(shards, pairwise([0, *drawn.ends]), strict=True):
        taken = drawn.taken.read(start, end)
        if not taken.any():  # as in most shards where little is drawn
            continue
        rows = io.read_parquet(_path(work, shard.shard_id))
        sent = _sent(plan, rows)
        rows = rows.take(pa.array(sent.rows[taken[sent.atom]]))
        threshold = np.array([drawn.thresholds[name] for name in rows["group"].to_pylist()])
        pi = inclusion_probability(rows["draw_score"].to_numpy(), threshold)
        rows = with_column(rows, "found_mass", rows["found_mass"].to_numpy() / pi)
        rows = with_column(rows, "inclusion_prob", pi)
        write_picks(work, shard.shard_id, [rows.select(PICKS.names)])


def _path(work: str, shard_id: int) -> str:
    return io.join(work, STEP, f"{shard_id:06d}.parquet")
