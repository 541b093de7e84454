"""Parts of a global selection: where the candidates of a merge come from (GreeDi, Mirzasoleiman et al. 2013).

A part is a shard, or, with ``--partition cluster``, a partition of a group's samples that lie near each other. Each
picks several times its share and hands the picks on in files, of coverage with samples that are clients of the merge.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.budget import divide
from cptsel.pipeline.kernels.coverage.merge import part_budget
from cptsel.pipeline.selection.families import Settings, pick
from cptsel.pipeline.selection.plan import Plan, Share
from cptsel.pipeline.selection.reading.cells import Cell, CellReader, read_cells
from cptsel.pipeline.selection.reading.tables import vectors_table
from cptsel.pipeline.selection.scopes.routing import RoutedCell, read_routed

#: Clients of a group that score a merge: all samples up to so many, above a sample of about this size by name.
CLIENTS = 200_000

CANDIDATES, TARGETS = "candidates", "targets"


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        number: of the part, unique among all.
        source: a shard with cells of any groups, or one routed cell.
        budgets: what it picks for the merge, by group; 0 where it has no candidate and only brings clients and target.
        client_rates: share of its samples that are clients, by group.
    """

    number: int
    source: RunShard | RoutedCell
    budgets: dict[str, int]
    client_rates: dict[str, float]


@dataclass(frozen=True)
class PickCandidates:
    """Part → None; candidates and clients go to ``<work>/candidates/<group>-<part>.parquet``."""

    reader: CellReader
    settings: Settings
    work: str
    groups: tuple[str, ...]

    def __call__(self, part: Part) -> None:
        for cell in self._cells(part):
            if cell.group not in part.budgets:
                continue
            picks = pick(cell, part.budgets[cell.group], self.settings)
            chosen = np.zeros(len(cell), dtype=bool)
            chosen[picks.index] = True
            u = np.zeros(len(cell))
            u[picks.index] = picks.raw / cell.columns["n_tokens"][picks.index]
            number = self.groups.index(cell.group)
            if self.settings.vectors == "match":
                table = vectors_table(cell, chosen, shortlist=chosen, u=u)
                targets = {f"target{i}": [target] for i, target in enumerate(cell.targets)}
                io.write_parquet(part_path(self.work, TARGETS, number, part.number), pa.table(targets))
            else:
                table = self._with_clients(cell, chosen, part.client_rates[cell.group])
            io.write_parquet(part_path(self.work, CANDIDATES, number, part.number), table)

    def _cells(self, part: Part) -> Iterator[Cell]:
        if isinstance(part.source, RoutedCell):
            yield read_routed(part.source)
        else:
            vectors = self.settings.vectors
            yield from read_cells(part.source, self.reader, vectors, validation=vectors == "match")

    def _with_clients(self, cell: Cell, chosen: np.ndarray, rate: float) -> pa.Table:
        client = np.ones(len(cell), dtype=bool)
        if rate < 1:
            client = uniform(self.settings.seed, "client", cell.names) <= rate
        mass = np.where(client, cell.mass / rate, 0.0)
        kept = chosen | client
        if self.settings.cover_history:
            kept |= cell.rounds > 0
        return vectors_table(cell, kept, shortlist=chosen, mass=mass)


def parts_of_shards(shards: Sequence[RunShard], plan: Plan) -> list[Part]:
    """Every shard as a part."""
    groups = {group.group: group for group in plan.groups if group.budget}
    cells, rates = plan.by_shard(), client_rates(plan)
    return [
        Part(
            shard.shard_id,
            shard,
            {name: _budget(cell, groups[name], plan) for name, cell in cells[shard.shard_id].items() if name in groups},
            rates,
        )
        for shard in shards
        if shard.shard_id in cells
    ]


def parts_of_routed(cells: Sequence[RoutedCell], plan: Plan) -> list[Part]:
    """Every routed cell as a part; its own budget is by mass and at most what it holds, as those of shards are."""
    rates = client_rates(plan)
    budgets: dict[tuple[str, ...], int] = {}
    for group in plan.groups:
        mine = [cell for cell in cells if cell.group == group.group]
        shares = [cell.share for cell in mine]
        own = divide(
            group.budget,
            np.array([share.choice_mass for share in shares]),
            np.array([share.size(plan.unit) for share in shares], np.int64),
            plan.unit,
        )
        for cell, share, budget in zip(mine, shares, own.tolist(), strict=True):
            budgets[cell.files] = _budget(replace(share, budget=budget), group, plan)
    return [Part(number, cell, {cell.group: budgets[cell.files]}, rates) for number, cell in enumerate(cells)]


def client_rates(plan: Plan) -> dict[str, float]:
    """The share of each group's samples that are clients of its merge."""
    return {group.group: min(1.0, CLIENTS / group.samples) for group in plan.groups}


def pick_candidates(
    parts: Sequence[Part], plan: Plan, reader: CellReader, settings: Settings, steps: Steps
) -> dict[str, tuple[int, ...]]:
    """Let every part pick; returns the parts that have some of each group with a budget."""
    names = tuple(group.group for group in plan.groups)
    steps.run(CANDIDATES, PickCandidates(reader, settings, steps.work, names), parts)
    return {
        group.group: tuple(part.number for part in parts if group.group in part.budgets)
        for group in plan.groups
        if group.budget
    }


def read_candidates(work: str, group: int, parts: Sequence[int]) -> pa.Table:
    """The candidates and clients of a group, by sample_id."""
    rows = pa.concat_tables(io.read_parquet(part_path(work, CANDIDATES, group, part)) for part in parts)
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
