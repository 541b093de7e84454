"""Coverage: picks near everything, each standing for what is nearest to it.

A global choice is oversampled parts, a second greedy scored on clients of all parts, and exact assignment. Vectors
travel in files between these three steps: every part picks several times its share and adds its clients (parts.py);
each group's candidates are merged on one worker; every shard assigns its own samples to what was chosen. A group's
candidates and clients, about 4 m + ``Tuning.clients`` vectors, must fit into one worker's memory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.coverage.craig import CraigResult
from cptsel.pipeline.kernels.coverage.merge import assign_part
from cptsel.pipeline.selection.families.base import MergingChooser, Offer, Picks, deal_out, offer, picks_table
from cptsel.pipeline.selection.methods import Cover
from cptsel.pipeline.selection.picks import PICKS, with_column, write_picks
from cptsel.pipeline.selection.plan import Plan
from cptsel.pipeline.selection.reading.cells import Cell, CellReader, read_cells
from cptsel.pipeline.selection.reading.tables import matrix, places, vectors_table
from cptsel.pipeline.selection.scopes.merged import MergedGroups
from cptsel.pipeline.selection.scopes.parts import CANDIDATES, MergeTask, pick_candidates, plan_parts, read_candidates
from cptsel.pipeline.spill.columns import Column

MERGED, CROSSING, ASSIGNED, MASSES = "merged", "crossing", "assigned", "masses"

_MASSES = pa.schema([("group", pa.string()), ("place", pa.int64()), ("mass", pa.float64())])
_ASSIGNED = pa.schema([*PICKS, ("place", pa.int64())])


@dataclass(frozen=True)
class MergeGroup:
    """MergeTask → what the merge offers; what it chose goes to ``<work>/merged/<group>.parquet``, by sample_id."""

    chooser: "CoverChooser"
    work: str

    def __call__(self, task: MergeTask) -> Offer:
        rows = read_candidates(self.work, task)
        shortlist, n_tokens = rows["shortlist"].to_numpy(), rows["n_tokens"].to_numpy().astype(np.int64)
        samples, budget = rows["samples"].to_numpy(), task.group.budget
        costs, kind = self.chooser.costs_of(n_tokens, samples)
        result = self.chooser.method.merge(
            matrix(rows),
            rows["mass"].to_numpy(),
            costs,
            np.flatnonzero(shortlist),
            budget,
            kind,
            **self.chooser.options(),
            **self.chooser.left_by_history(rows["free"].to_numpy(), rows["rounds"].to_numpy()),
        )
        picks = _picks(result)
        for chosen in filter(None, (picks, picks.crossing)):
            order = np.argsort(chosen.index)  # by sample_id: equal distances of an assignment go to the lower
            assert chosen.score is not None
            table = rows.take(chosen.index[order]).select(["sample_id", "x"])
            table = table.append_column("score", pa.array(chosen.score[order].astype(np.float32)))
            io.write_scratch(_merged_path(self.work, task.number, chosen is not picks), table)
        return offer(
            picks,
            n_tokens if self.chooser.settings.unit == "tokens" else samples,
            budget,
            group=task.group.group,
            mass=task.group.choice_mass,
            candidates=int(shortlist.sum()),
            clients=int((rows["mass"].to_numpy() > 0).sum()),
        )


@dataclass(frozen=True)
class AssignShard:
    """RunShard → Σ mass · distance by group.

    The mass that the shard brings to each pick goes to ``<work>/masses``, rows of the picks that are its own to
    ``<work>/assigned``, with their place among the group's picks; found_mass is the share of a row in its atom.
    """

    reader: CellReader
    work: str
    groups: dict[str, int]  # their numbers
    crossing: frozenset[str]  # groups that take their crossing sample
    merged: MergedGroups = field(default_factory=MergedGroups)

    def __call__(self, shard: RunShard) -> dict[str, float]:
        tables, masses, distance = [_ASSIGNED.empty_table()], [_MASSES.empty_table()], {}
        for cell in read_cells(shard, self.reader, "cover"):
            assert cell.vectors is not None
            path = _merged_path(self.work, self.groups[cell.group], cell.group in self.crossing)
            merged = self.merged.read(path)
            if merged is None:  # the driver will say which group has no pick
                continue
            own = places(cell.names, merged.names)
            part = assign_part(cell.vectors, cell.mass, matrix(merged.rows), own)
            served = np.flatnonzero(part.cluster_mass > 0)
            served_by = [pa.array([cell.group] * len(served)), pa.array(served), pa.array(part.cluster_mass[served])]
            masses.append(pa.Table.from_arrays(served_by, schema=_MASSES))
            distance[cell.group] = float(part.distance_sum.sum())
            index = np.flatnonzero(own >= 0)
            score = merged.rows["score"].to_numpy()[own[index]]
            rows = picks_table(cell, Picks(index, np.ones(len(index)), np.ones(len(index)), score))
            of_row = own[index][cell.members(index)[0]]
            tables.append(rows.append_column(_ASSIGNED.field("place"), pa.array(of_row)))
        io.write_scratch(_shard_path(self.work, MASSES, shard.shard_id), pa.concat_tables(masses))
        io.write_scratch(_shard_path(self.work, ASSIGNED, shard.shard_id), pa.concat_tables(tables))
        return distance


class CoverChooser(MergingChooser[Cover]):
    """Covers by facility location."""

    vectors = "cover"

    def options(self) -> dict[str, Any]:
        """Arguments of the kernels."""
        settings = self.settings
        return {"neighbours": settings.neighbours, "refine": settings.refine, "seed": settings.seed} | dict(
            self.method.settings
        )

    def left_by_history(self, free: np.ndarray, rounds: np.ndarray) -> dict[str, np.ndarray]:
        options = super().left_by_history(free, rounds)
        if self.settings.cover_history and rounds.any():
            options["covered"] = np.flatnonzero(rounds > 0)
        return options

    def pick(self, cell: Cell, budget: int) -> Picks:
        costs, kind = self.costs_of(cell.n_tokens, cell.samples)
        result = self.method.kernel(
            cell.vectors,
            cell.mass,
            costs,
            budget,
            kind,
            **self.options(),
            **self.left_by_history(cell.free, cell.rounds),
        )
        return _picks(result)

    def hand_on(self, cell: Cell, picks: Picks, client_rate: float) -> dict[str, pa.Table]:
        """Candidates of a part, and a sample of all that it holds as clients."""
        settings, chosen = self.settings, np.zeros(len(cell), dtype=bool)
        chosen[picks.index] = True
        client = np.ones(len(cell), dtype=bool)
        if client_rate < 1:
            client = uniform(settings.seed, "client", cell.names) <= client_rate
        mass = np.where(client, cell.mass / client_rate, 0.0)
        kept = chosen | client
        if settings.cover_history:
            kept |= cell.rounds > 0
        return {CANDIDATES: vectors_table(cell, kept, shortlist=chosen, mass=mass)}

    def choose_globally(
        self, shards: Sequence[RunShard], plan: Plan, reader: CellReader, steps: Steps, partitions: int | None
    ) -> list[dict[str, Any]]:
        parts = plan_parts(self, shards, plan, reader, steps, partitions)
        merges = pick_candidates(self, parts, plan, reader, steps)
        offers = steps.run(MERGED, MergeGroup(self, steps.work), merges)
        dealt, found = deal_out(offers)
        reports = {report["group"]: report for report in found}
        crossing = frozenset(task.group.group for task, takes in zip(merges, dealt, strict=True) if takes)
        there = plan.by_shard()
        shards = [shard for shard in shards if shard.shard_id in there]
        distances = steps.run(ASSIGNED, AssignShard(reader, steps.work, plan.numbers, crossing), shards)
        masses = _Masses({name: report["picks"] for name, report in reports.items()})
        for table in io.read_tables([_shard_path(steps.work, MASSES, shard.shard_id) for shard in shards]):
            masses.add(table)  # in this order, so that rounding is always the same
        assigned = io.read_tables([_shard_path(steps.work, ASSIGNED, shard.shard_id) for shard in shards])
        for shard, rows in zip(shards, assigned, strict=True):
            mass = masses.of(rows) * rows["found_mass"].to_numpy()
            write_picks(steps.work, shard.shard_id, [with_column(rows.drop_columns("place"), "found_mass", mass)])
        of_group: dict[str, list[float]] = {}
        for found_there in distances:
            for name, distance in found_there.items():
                of_group.setdefault(name, []).append(distance)
        for task in merges:
            name, mass = task.group.group, task.group.choice_mass
            reports[name] |= _on_all_samples(reports[name], math.fsum(of_group.get(name, ())) / mass)
        return list(reports.values())


def _picks(result: CraigResult) -> Picks:
    """Picks, each with the mass of its cluster."""
    return Picks(
        result.picks,
        result.cluster_mass,
        np.ones(len(result.picks)),
        result.gains,
        result.report,
        None if result.crossing is None else _picks(result.crossing),
    )


def _on_all_samples(report: dict[str, Any], mean_distance: float) -> dict[str, float]:
    """Distances and gain of a merge, with the mean distance of all samples in the place of the clients'.

    Random picks were measured on the clients alone, and so was what covered rows save; what is off in the distance to
    the picks is off in theirs too, and by much the same factor. Up to ``Tuning.clients`` samples all are clients, and
    then this changes nothing.
    """
    off = mean_distance / report["mean_distance"] if report["mean_distance"] > 0 else 1.0
    names = ("covered_distance", "random_distance")
    scaled: dict[str, float] = {name: report[name] * off for name in names if name in report}
    random, reached = scaled["random_distance"], scaled.get("covered_distance", mean_distance)
    gain = (random - reached) / random if random > 0 else 0.0
    return {"mean_distance": mean_distance, **scaled, "gain_over_random": gain}


class _Masses:
    """What the samples of all shards bring to the picks of each group, on disk.

    Args:
        picks: how many each group has.
    """

    def __init__(self, picks: dict[str, int]) -> None:
        self._groups = pa.array(picks, pa.string())
        self._starts = np.cumsum([0, *picks.values()])
        self._column = Column.zeros(np.float64, int(self._starts[-1]))

    def add(self, rows: pa.Table) -> None:
        """Add the ``mass`` of rows that name each pick once, by ``group`` and ``place``."""
        index = self._index(rows)
        self._column.put(index, self._column.take(index) + rows["mass"].to_numpy())

    def of(self, rows: pa.Table) -> np.ndarray:
        """(n,) float64 masses of the picks that rows name by ``group`` and ``place``."""
        return self._column.take(self._index(rows))

    def _index(self, rows: pa.Table) -> np.ndarray:
        groups = pc.index_in(rows["group"], self._groups).to_numpy()
        return self._starts[groups] + rows["place"].to_numpy()


def _merged_path(work: str, group: int, crossing: bool) -> str:
    return io.join(work, CROSSING if crossing else MERGED, f"{group:05d}.parquet")


def _shard_path(work: str, step: str, shard_id: int) -> str:
    return io.join(work, step, f"{shard_id:06d}.parquet")
