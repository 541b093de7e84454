"""``--partition cluster``: samples go to partitions by coarse centroids first, so that neighbours meet.

A sample of each group trains its centroids; every shard then writes its samples, vectors and all, to the partitions
they belong to. This is the one place where the vectors of whole groups are written once more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.coverage.partition import Partitions, route, train_centroids
from cptsel.pipeline.selection.families.base import AnyChooser
from cptsel.pipeline.selection.plan import Plan, Share, Unit
from cptsel.pipeline.selection.reading.cells import Cell, CellReader, Vectors, read_cells
from cptsel.pipeline.selection.reading.tables import as_lists, matrix, vectors_table

SAMPLED, CENTROIDS, ROUTED = "sampled", "centroids", "routed"


@dataclass(frozen=True)
class RoutedCell:
    """A partition of a group: what is in it, and the files of the shards that sent something."""

    group: str
    statistics: dict[str, Any]
    files: tuple[str, ...]

    @property
    def share(self) -> Share:
        """The partition as a cell of the plan."""
        return Share(
            group=self.group, fresh=0, fresh_tokens=0, choice_norm=0.0, rise=0.0, mass_variance=0.0, **self.statistics
        )


@dataclass(frozen=True)
class SampleShard:
    """RunShard → None; a sample of its vectors goes to ``<work>/sampled/<group>-<shard>.parquet``."""

    reader: CellReader
    vectors: Vectors
    seed: int
    work: str
    groups: dict[str, tuple[int, float]]  # number and sampling rate

    def __call__(self, shard: RunShard) -> None:
        for cell in read_cells(shard, self.reader, self.vectors):
            if cell.group in self.groups:
                number, rate = self.groups[cell.group]
                taken = uniform(self.seed, "centroids", cell.names) <= rate
                io.write_scratch(_path(self.work, SAMPLED, number, shard.shard_id), vectors_table(cell, taken))


@dataclass(frozen=True)
class TrainTask:
    """A group, how many partitions it is to have, and the shards that have some of it."""

    number: int
    partitions: int
    shards: tuple[int, ...]


@dataclass(frozen=True)
class TrainGroup:
    """TrainTask → None; what routes the group goes to ``<work>/centroids/<group>.parquet``."""

    seed: int
    work: str

    def __call__(self, task: TrainTask) -> None:
        rows = pa.concat_tables(io.read_parquet(_path(self.work, SAMPLED, task.number, key)) for key in task.shards)
        rows = rows.sort_by("sample_id").combine_chunks()
        trained = train_centroids(matrix(rows), task.partitions, self.seed)
        table = pa.table({"centroid": as_lists(trained.centroids), "partition": trained.partition})
        io.write_scratch(_path(self.work, CENTROIDS, task.number, 0), table)


@dataclass(frozen=True)
class RouteShard:
    """RunShard → counts of what it sent to each partition; its rows go to ``<work>/routed``."""

    reader: CellReader
    vectors: Vectors
    validates: bool
    unit: Unit
    work: str
    groups: dict[str, tuple[int, float]]

    def __call__(self, shard: RunShard) -> list[dict[str, Any]]:
        sent = []
        for cell in read_cells(shard, self.reader, self.vectors, self.validates):
            if cell.group not in self.groups:
                continue
            number = self.groups[cell.group][0]
            rows = io.read_parquet(_path(self.work, CENTROIDS, number, 0))
            assert cell.vectors is not None
            trained = Partitions(matrix(rows, "centroid"), rows["partition"].to_numpy())
            partition = route(cell.vectors, trained)
            for target in np.unique(partition).tolist():
                here = partition == target
                columns = {name: values for name, values in cell.columns.items() if name in _SENT}
                path = io.join(self.work, ROUTED, f"{number:05d}-{target:05d}-{shard.shard_id:06d}.parquet")
                io.write_scratch(path, vectors_table(cell, here, weights=cell.weights, **columns))
                sent.append({"group": cell.group, "partition": target, "file": path} | _counts(cell, here, self.unit))
        return sent


_SENT = ("mass", "corpus_mass")


def route_by_cluster(
    shards: Sequence[RunShard], plan: Plan, reader: CellReader, chooser: AnyChooser, partitions: int, steps: Steps
) -> list[RoutedCell]:
    """Write every group's samples to its partitions; returns those that hold something, by group and number.

    Args:
        shards: of the runs.
        plan: groups and budgets.
        reader: how cells are read.
        chooser: the method, which says what vectors are wanted.
        partitions: of every group; 0 for one for each ``Tuning.partition_rows`` samples.
        steps: where steps run.
    """
    seed, tuning, vectors = chooser.settings.seed, chooser.settings.tuning, chooser.vectors
    assert vectors is not None
    there = plan.by_shard()
    shards = [shard for shard in shards if shard.shard_id in there]
    groups = {
        group.group: (number, min(1.0, tuning.training_rows / group.samples))
        for number, group in enumerate(plan.groups)
        if group.budget
    }
    steps.run(SAMPLED, SampleShard(reader, vectors, seed, steps.work, groups), shards)
    having: dict[str, list[int]] = {}  # a plan may have many groups and many shards
    for shard in shards:
        for name in there[shard.shard_id]:
            having.setdefault(name, []).append(shard.shard_id)
    tasks = [
        TrainTask(
            number,
            partitions or -(-plan.groups[number].samples // tuning.partition_rows),
            tuple(having.get(name, ())),
        )
        for name, (number, _) in groups.items()
    ]
    steps.run(CENTROIDS, TrainGroup(seed, steps.work), tasks)
    sent = steps.run(ROUTED, RouteShard(reader, vectors, chooser.validates, plan.unit, steps.work, groups), shards)
    cells: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for counts in (counts for of_shard in sent for counts in of_shard):
        cells.setdefault((counts["group"], counts["partition"]), []).append(counts)
    return [
        RoutedCell(group, _add(counts), tuple(count["file"] for count in counts))
        for (group, _), counts in sorted(cells.items())
    ]


def read_routed(cell: RoutedCell) -> Cell:
    """A partition as a cell of samples, whose rows are their names alone."""
    rows = pa.concat_tables(io.read_parquet(path) for path in cell.files).sort_by("sample_id").combine_chunks()
    names = ("n_tokens", *_SENT)
    weights = rows["weights"].to_numpy()
    found = [matrix(rows, name) for name in ("x", "validation") if name in rows.column_names]
    return Cell(
        group=cell.group,
        rows=rows.select(["sample_id"]),
        names=rows["sample_id"].to_pylist(),
        samples=np.ones(rows.num_rows, np.int64),
        columns={name: rows[name].to_numpy().astype(np.float64) for name in names},
        weights=weights,
        free=rows["free"].to_numpy(),
        rounds=rows["rounds"].to_numpy(),
        squares=(),
        vectors=found[0],
        validation=found[1] if len(found) > 1 else None,
        targets=tuple(np.einsum("i,ij->j", weights, x) for x in found),
    )


def _counts(cell: Cell, here: np.ndarray, unit: Unit) -> dict[str, Any]:
    free = here & cell.free
    return {
        "samples": int(here.sum()),
        "tokens": int(cell.n_tokens[here].sum()),
        "mass": float(cell.columns["corpus_mass"][here].sum()),
        "candidates": int(free.sum()),
        "candidate_tokens": int(cell.n_tokens[free].sum()),
        "choice_mass": float(cell.mass[here].sum()),
        "longest": int(cell.costs(unit)[free].max(initial=0)),
    }


def _add(counts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts of what several shards sent, as one."""
    added = {name: sum(count[name] for count in counts) for name in _COUNTS}
    added |= {name: math.fsum(count[name] for count in counts) for name in ("mass", "choice_mass")}
    return added | {"longest": max(count["longest"] for count in counts)}


_COUNTS = ("samples", "tokens", "candidates", "candidate_tokens")


def _path(work: str, step: str, group: int, shard: int) -> str:
    return io.join(work, step, f"{group:05d}-{shard:06d}.parquet")
