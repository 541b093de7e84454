"""``--scope global`` for coverage: oversampled parts, a second greedy scored on clients of all parts, exact assignment.

Three steps, whose vectors travel in files: every shard picks several times its share and adds its clients; each group's
candidates are merged on one worker; every shard assigns its own samples to what was chosen. A group's candidates and
clients, about 4 m + CLIENTS vectors, must fit into one worker's memory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.merge import assign_part, part_budget
from cptsel.pipeline.runs import RunShard
from cptsel.pipeline.selection.cells import Cell, CellReader, read_cells
from cptsel.pipeline.selection.methods import METHODS, PICKS, Coverage, Picks, Settings, picks_table
from cptsel.pipeline.selection.plan import Plan, Share
from cptsel.pipeline.selection.scope_shard import write_picks
from cptsel.pipeline.steps import Steps

#: Clients of a group that score the merge: all samples up to so many, above a sample of about this size by name.
CLIENTS = 200_000

PARTS, MERGED, ASSIGNED, MASSES = "candidates", "merged", "assigned", "masses"

_MASSES = pa.schema([("group", pa.string()), ("pick", pa.int64()), ("mass", pa.float64())])


@dataclass(frozen=True)
class PartTask:
    """A shard, its cells' budgets for the merge, and the share of samples that are clients, by group."""

    shard: RunShard
    budgets: dict[str, int]
    client_rates: dict[str, float]


@dataclass(frozen=True)
class PickCandidates:
    """PartTask → None; candidates and clients go to ``<work>/candidates/<group>-<shard>.parquet``."""

    method: str
    reader: CellReader
    settings: Settings
    work: str
    groups: tuple[str, ...]

    def __call__(self, task: PartTask) -> None:
        method = METHODS[self.method]
        for cell in read_cells(task.shard, self.reader, vectors=True):
            candidate = np.zeros(len(cell), dtype=bool)
            candidate[method.pick(cell, task.budgets[cell.group], self.settings).index] = True
            rate = task.client_rates[cell.group]
            client = np.ones(len(cell), dtype=bool)
            if rate < 1:
                client = uniform(self.settings.seed, "client", cell.sample_ids) <= rate
            mass = np.where(client, cell.mass / rate, 0.0)
            rows = _vectors_table(cell, candidate | client, candidate=candidate, mass=mass)
            io.write_parquet(_part_path(self.work, self.groups.index(cell.group), task.shard.shard_id), rows)


@dataclass(frozen=True)
class MergeTask:
    """A group and the shards that have some of it."""

    number: int
    group: Share
    shards: tuple[int, ...]


@dataclass(frozen=True)
class MergeGroup:
    """MergeTask → the report of the merge; what is chosen goes to ``<work>/merged/<group>.parquet`` by sample_id."""

    method: str
    settings: Settings
    work: str

    def __call__(self, task: MergeTask) -> dict[str, Any]:
        method = METHODS[self.method]
        assert isinstance(method, Coverage)
        rows = pa.concat_tables(io.read_parquet(_part_path(self.work, task.number, shard)) for shard in task.shards)
        rows = rows.sort_by("sample_id").combine_chunks()
        result = method.merge_kernel(
            _vectors(rows),
            rows["mass"].to_numpy(),
            rows["n_tokens"].to_numpy().astype(np.int64),
            np.flatnonzero(rows["candidate"].to_numpy()),
            task.group.budget,
            self.settings.unit,
            neighbours=self.settings.neighbours,
            refine=self.settings.refine,
            seed=self.settings.seed,
        )
        order = np.argsort(result.picks)  # by sample_id: equal distances of an assignment go to the lower
        chosen = rows.take(result.picks[order]).select(["sample_id", "x"])
        chosen = chosen.append_column("score", pa.array(result.gains[order].astype(np.float32)))
        io.write_parquet(_merged_path(self.work, task.number), chosen)
        return {
            **result.report,
            "candidates": int(rows["candidate"].to_numpy().sum()),
            "clients": int((rows["mass"].to_numpy() > 0).sum()),
        }


@dataclass(frozen=True)
class AssignShard:
    """RunShard → Σ mass · distance by group.

    The mass that the shard brings to each pick goes to ``<work>/masses``, rows of the picks that are its own to
    ``<work>/assigned``, with their place among the group's picks in the column raw.
    """

    reader: CellReader
    work: str
    groups: tuple[str, ...]

    def __call__(self, shard: RunShard) -> dict[str, float]:
        tables, masses, distance = [PICKS.empty_table()], [_MASSES.empty_table()], {}
        for cell in read_cells(shard, self.reader, vectors=True):
            assert cell.vectors is not None
            merged = io.read_parquet(_merged_path(self.work, self.groups.index(cell.group)))
            if not merged.num_rows:  # the driver will say which group has no pick
                continue
            own = _places(np.asarray(cell.sample_ids), np.asarray(merged["sample_id"].to_pylist()))
            part = assign_part(cell.vectors, cell.mass, _vectors(merged), own)
            served = np.flatnonzero(part.cluster_mass > 0)
            served_by = [pa.array([cell.group] * len(served)), pa.array(served), pa.array(part.cluster_mass[served])]
            masses.append(pa.Table.from_arrays(served_by, schema=_MASSES))
            distance[cell.group] = float(part.distance_sum.sum())
            index = np.flatnonzero(own >= 0)
            score = merged["score"].to_numpy()[own[index]]
            picks = Picks(index, own[index].astype(np.float64), np.ones(len(index)), score, {})
            tables.append(picks_table(cell, picks))
        io.write_parquet(_shard_path(self.work, MASSES, shard.shard_id), pa.concat_tables(masses))
        io.write_parquet(_shard_path(self.work, ASSIGNED, shard.shard_id), pa.concat_tables(tables))
        return distance


def cover_globally(
    shards: Sequence[RunShard], plan: Plan, method: str, reader: CellReader, settings: Settings, steps: Steps
) -> list[dict[str, Any]]:
    """Write the picks of every shard and return one report a group."""
    cells = plan.by_shard()
    shards = [shard for shard in shards if shard.shard_id in cells]
    names = tuple(group.group for group in plan.groups)
    groups = dict(zip(names, plan.groups, strict=True))
    rates = {name: min(1.0, CLIENTS / group.samples) for name, group in groups.items()}
    parts = [
        PartTask(shard, {name: _part(cell, groups[name], plan) for name, cell in cells[shard.shard_id].items()}, rates)
        for shard in shards
    ]
    steps.run(PARTS, PickCandidates(method, reader, settings, steps.work, names), parts)
    merges = [
        MergeTask(number, group, tuple(s.shard_id for s in shards if group.group in cells[s.shard_id]))
        for number, group in enumerate(plan.groups)
    ]
    reports = steps.run(MERGED, MergeGroup(method, settings, steps.work), merges)
    distances = steps.run(ASSIGNED, AssignShard(reader, steps.work, names), shards)
    masses = {name: np.zeros(report["picks"]) for name, report in zip(names, reports, strict=True)}
    for shard in shards:  # in this order, so that rounding is always the same
        _add_masses(steps.work, shard.shard_id, masses)
    for shard in shards:
        _write_exact(steps.work, shard.shard_id, masses)
    for name, report in zip(names, reports, strict=True):
        distance = math.fsum(found.get(name, 0.0) for found in distances)
        report |= {"group": name, "mass": groups[name].mass, **_exact(report, distance / groups[name].mass)}
    return reports


def _exact(report: dict[str, Any], mean_distance: float) -> dict[str, float]:
    """Distances and gain of a merge, with the mean distance of all samples in the place of the clients'.

    Random picks were measured on the clients alone; what is off in their distance is off in that of the picks too, and
    by much the same factor. All clients are all samples up to CLIENTS of them, and then this changes nothing.
    """
    random = report["random_distance"]
    if report["mean_distance"] > 0:
        random *= mean_distance / report["mean_distance"]
    gain = (random - mean_distance) / random if random > 0 else 0.0
    return {"mean_distance": mean_distance, "random_distance": random, "gain_over_random": gain}


def _part(cell: Share, group: Share, plan: Plan) -> int:
    """What a shard picks for the merge: several times its share, at least one sample, at most all.

    Never less than its own budget either, which is above its share by mass where another shard is too small for its
    own: cells' budgets add up to the group's, and so the candidates suffice for it.
    """
    least = max(cell.budget, cell.longest if plan.unit == "tokens" else 1)
    return min(cell.size(plan.unit), max(least, part_budget(group.budget, cell.mass / group.mass)))


def _vectors_table(cell: Cell, keep: np.ndarray, **columns: np.ndarray) -> pa.Table:
    """sample_id, n_tokens, vectors and further columns of some rows of a cell."""
    assert cell.vectors is not None
    rows = cell.rows.select(["sample_id", "n_tokens"]).append_column("x", _as_lists(cell.vectors))
    for name, values in columns.items():
        rows = rows.append_column(name, pa.array(values))
    return rows.filter(pa.array(keep)).combine_chunks()


def _as_lists(x: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])


def _vectors(rows: pa.Table) -> np.ndarray:
    """Column ``x`` as (n, k) float32."""
    lists = rows["x"].combine_chunks()
    return lists.flatten().to_numpy().reshape(rows.num_rows, lists.type.list_size)


def _places(ids: np.ndarray, names: np.ndarray) -> np.ndarray:
    """(n,) place of each id among the sorted names, -1 where it is none of them."""
    place = np.searchsorted(names, ids).clip(max=len(names) - 1)
    return np.where(names[place] == ids, place, -1)


def _add_masses(work: str, shard_id: int, masses: dict[str, np.ndarray]) -> None:
    """Add what the samples of one shard bring to the picks of each group."""
    rows = io.read_parquet(_shard_path(work, MASSES, shard_id))
    for name, mass in masses.items():
        mine = rows.filter(pc.equal(rows["group"], name))
        mass[mine["pick"].to_numpy()] += mine["mass"].to_numpy()


def _write_exact(work: str, shard_id: int, masses: dict[str, np.ndarray]) -> None:
    """Give the picks of a shard the mass that samples of all shards have brought them."""
    rows = io.read_parquet(_shard_path(work, ASSIGNED, shard_id))
    places = rows["raw"].to_numpy().astype(np.int64)
    raw = [masses[name][place] for name, place in zip(rows["group"].to_pylist(), places, strict=True)]
    rows = rows.set_column(rows.schema.get_field_index("raw"), PICKS.field("raw"), pa.array(raw, pa.float64()))
    write_picks(work, shard_id, [rows])


def _part_path(work: str, group: int, shard_id: int) -> str:
    return io.join(work, PARTS, f"{group:05d}-{shard_id:06d}.parquet")


def _merged_path(work: str, group: int) -> str:
    return io.join(work, MERGED, f"{group:05d}.parquet")


def _shard_path(work: str, step: str, shard_id: int) -> str:
    return io.join(work, step, f"{shard_id:06d}.parquet")
