"""The order of play, both ways: which sample is a rank's N-th play, and which plays are a sample's.

The order is the one that CONSUMING.md describes. With a schedule a rank plays visit after visit, each the samples of
one shard; without one, one rank plays pass after pass, each over the samples of all shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline.artifacts.manifest import Manifest
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.lookup.reading import Reader, Row, narrow, of_shards
from cptsel.pipeline.summary import counted
from cptsel.schemas.arrow import SCHEDULE

_VISITS = pa.schema([SCHEDULE.field(name) for name in ("rank", "position", "shard_id", "pass", "samples")])
_PLAYED = ["phase", "repeat", "order_rank"]
_READ = "shards read for their order"


@dataclass(frozen=True, order=True)
class Place:
    """A play: the ``position``-th, from 0, of ``rank`` in ``epoch`` of ``phase``; it belongs to pass ``number``."""

    phase: int
    epoch: int
    rank: int
    position: int
    number: int


def unordered(manifest: Manifest) -> str | None:
    """Why a manifest has no order of play, in a phrase; None where it has one."""
    if manifest.realisation != "sampling":
        return None
    return "its weights are realised by sampling: the trainer draws every sample itself, so no play has a fixed place"


def play_at(
    reader: Reader, phase: int, epoch: int, rank: int, position: int, progress: Progress | None = None
) -> tuple[Row, Place]:
    """The sample that a rank plays at a position, and that place with its pass.

    Args:
        reader: of a manifest that has an order.
        phase, epoch, rank: as in ``manifest.json`` and the schedule; epoch and rank are 0 without a schedule.
        position: of the play within the rank, from 0.
        progress: told how far it is where many files are read.

    Raises:
        UsageError: there is no such phase, epoch, rank or position.
        VerificationError: a file is not the one that was written, or files contradict each other.
    """
    manifest = reader.manifest
    _check_ranges(manifest, phase, epoch, rank)
    if not _scheduled(manifest):
        return _unscheduled_play(reader, phase, position, progress)
    visits = _visits(reader, phase, epoch, rank)
    _check_position(int(visits.samples.sum()), phase, epoch, rank, position)
    at = int(np.searchsorted(visits.start, position, side="right")) - 1
    shard_id, number = int(visits.shard_id[at]), int(visits.number[at])
    played = _played(reader, shard_id, phase, number)
    if len(played) != visits.samples[at]:
        raise VerificationError(
            f"{manifest.directory}: the schedule of phase {phase}, epoch {epoch} plays {int(visits.samples[at])} "
            f"samples of shard {shard_id} in pass {number}, but its samples file has {len(played)}; run cptsel verify"
        )
    row = int(played[position - int(visits.start[at])])
    return reader.samples(shard_id).slice(row, 1).to_pylist()[0], Place(phase, epoch, rank, position, number)


def places(reader: Reader, rows: Sequence[Row], progress: Progress | None = None) -> list[list[Place]]:
    """The plays of some samples, in their order; none of a sample that is not played.

    Args:
        reader: of a manifest that has an order.
        rows: samples of it.
        progress: told how far it is where many files are read.

    Raises:
        UsageError: a samples file is missing or damaged.
        VerificationError: a file is not the one that was written, or files contradict each other.
    """
    manifest = reader.manifest
    found: list[list[Place]] = [[] for _ in rows]
    for phase in sorted({row["phase"] for row in rows}):
        mine = [index for index, row in enumerate(rows) if row["phase"] == phase and row["repeat"] > 0]
        if not mine:
            continue
        if not _scheduled(manifest):
            for index, plays in zip(mine, _unscheduled_places(reader, [rows[i] for i in mine], progress), strict=True):
                found[index] += plays
            continue
        before = {index: _before(reader, rows[index]) for index in mine}
        epochs = manifest.header["order"]["epochs"]
        for epoch in range(epochs):
            visits = _visits(reader, phase, epoch)
            for index in mine:
                found[index] += _scheduled_places(visits, rows[index], before[index], phase, epoch)
            if progress:
                progress(epoch + 1, epochs, f"schedules of phase {phase}")
    return found


def _scheduled(manifest: Manifest) -> bool:
    return manifest.header["order"]["kind"] == "priority"


def _check_ranges(manifest: Manifest, phase: int, epoch: int, rank: int) -> None:
    """Refuse what there is not, in the user's terms."""
    directory, order = manifest.directory, manifest.header["order"]
    if phase not in manifest.phases:
        raise UsageError(f"--phase {phase}: {directory} has the phases {', '.join(map(str, manifest.phases))}")
    for name, value, count in (
        ("epoch", epoch, order.get("epochs", 1)),
        ("rank", rank, order.get("world_size", 1)),
    ):
        if value < count:
            continue
        if not _scheduled(manifest):
            raise UsageError(
                f"--{name} {value}: {directory} has no schedule, so that one rank plays it in one epoch; leave "
                f"--{name} out, or name the output of cptsel order"
            )
        raise UsageError(f"--{name} {value}: {directory} is scheduled for {count:,} {name}s; give 0 to {count - 1}")


def _check_position(plays: int, phase: int, epoch: int, rank: int, position: int) -> None:
    if position >= plays:
        where = f"rank {rank} plays {counted(plays, 'sample')} in epoch {epoch} of phase {phase}"
        raise UsageError(f"--position {position}: {where}; " + (f"give 0 to {plays - 1}" if plays else "name another"))


@dataclass(frozen=True, eq=False)
class _Visits:
    """Visits of an epoch by rank and position, (v,) each; ``start`` is the first play, within the rank, of a visit."""

    rank: np.ndarray
    shard_id: np.ndarray
    number: np.ndarray
    samples: np.ndarray
    start: np.ndarray


def _visits(reader: Reader, phase: int, epoch: int, rank: int | None = None) -> _Visits:
    """The visits of all ranks, or of one."""
    table = reader.schedule(phase, epoch, _VISITS)
    if rank is not None:
        table = table.filter(pc.equal(table["rank"], rank))
    ranks, position = table["rank"].to_numpy(), table["position"].to_numpy()
    order = np.lexsort((position, ranks))
    ranks, samples = ranks[order], table["samples"].to_numpy()[order]
    start = np.cumsum(samples) - samples
    first = np.flatnonzero(np.diff(ranks, prepend=-1))
    base = np.repeat(start[first], np.diff(first, append=len(ranks)))
    return _Visits(ranks, table["shard_id"].to_numpy()[order], table["pass"].to_numpy()[order], samples, start - base)


def _played(reader: Reader, shard_id: int, phase: int, number: int) -> np.ndarray:
    """(m,) int64 rows of the shard's samples file that pass ``number`` plays, in their order."""
    table = reader.samples(shard_id)
    phases, repeat, ranks = (table[name].to_numpy() for name in _PLAYED)
    rows = np.flatnonzero((phases == phase) & (repeat >= number))
    return rows[np.argsort(ranks[rows], kind="stable")]


def _before(reader: Reader, row: Row) -> np.ndarray:
    """(repeat,) int64: how many samples of its shard are played before it in each of its passes."""
    table = reader.samples(row["shard_id"])
    phases, repeat, ranks = (table[name].to_numpy() for name in _PLAYED)
    earlier = repeat[(phases == row["phase"]) & (ranks < row["order_rank"])]
    return _at_least(earlier, row["repeat"])


def _at_least(repeat: np.ndarray, most: int) -> np.ndarray:
    """(most,) int64: how many of the repeats are at least 1, 2, ..., ``most``."""
    counts = np.bincount(np.clip(repeat, 0, most), minlength=most + 1)
    return counts[::-1].cumsum()[::-1][1:]


def _scheduled_places(visits: _Visits, row: Row, before: np.ndarray, phase: int, epoch: int) -> list[Place]:
    mine = np.flatnonzero((visits.shard_id == row["shard_id"]) & (visits.number <= row["repeat"]))
    plays = [
        Place(phase, epoch, int(visits.rank[at]), int(visits.start[at] + before[number - 1]), number)
        for at, number in zip(mine.tolist(), visits.number[mine].tolist(), strict=True)
    ]
    return sorted(plays, key=lambda place: place.number)


@dataclass(frozen=True, eq=False)
class _PhaseOrder:
    """The samples of a phase by order_rank: ``repeat`` (n,) int32 and ``shard_id`` (n,) int32."""

    repeat: np.ndarray
    shard_id: np.ndarray


def _phase_order(reader: Reader, phase: int, progress: Progress | None) -> _PhaseOrder:
    """From narrow columns of all samples files: 8 bytes a sample."""
    manifest = reader.manifest
    (n,) = (entry["samples"] for entry in manifest.header["phases"] if entry["phase"] == phase)
    repeat, shard = np.full(n, -1, np.int32), np.zeros(n, np.int32)
    for shard_id, table in of_shards(manifest, lambda key: narrow(manifest, key, _PLAYED), progress, _READ):
        phases, repeats, ranks = (table[name].to_numpy() for name in _PLAYED)
        mine = phases == phase
        if (ranks[mine] < 0).any() or (ranks[mine] >= n).any():
            raise _no_order(manifest, phase)
        repeat[ranks[mine]], shard[ranks[mine]] = repeats[mine], shard_id
    if (repeat < 0).any():
        raise _no_order(manifest, phase)
    return _PhaseOrder(repeat, shard)


def _no_order(manifest: Manifest, phase: int) -> VerificationError:
    return VerificationError(
        f"{manifest.directory}: order_rank does not number the samples of phase {phase}; run cptsel verify"
    )


def _plays_once(manifest: Manifest) -> bool:
    """Whether every sample has one play, so that its order_rank is its position."""
    return manifest.realisation != "repeat"


def _unscheduled_play(reader: Reader, phase: int, position: int, progress: Progress | None) -> tuple[Row, Place]:
    manifest = reader.manifest
    if _plays_once(manifest):
        (plays,) = (entry["samples"] for entry in manifest.header["phases"] if entry["phase"] == phase)
        _check_position(plays, phase, 0, 0, position)
        rank, number = position, 1
        shard_id = _shard_of_rank(manifest, phase, rank, progress)
    else:
        order = _phase_order(reader, phase, progress)
        counts = _at_least(order.repeat, max(1, int(order.repeat.max(initial=1))))
        _check_position(int(counts.sum()), phase, 0, 0, position)
        ends = np.cumsum(counts)
        number = int(np.searchsorted(ends, position, side="right")) + 1
        within = position - int(ends[number - 1] - counts[number - 1])
        rank = int(np.flatnonzero(order.repeat >= number)[within])
        shard_id = int(order.shard_id[rank])
    table = reader.samples(shard_id)
    found = table.filter(pc.and_(pc.equal(table["phase"], phase), pc.equal(table["order_rank"], rank))).to_pylist()
    if len(found) != 1:
        raise _no_order(manifest, phase)
    return found[0], Place(phase, 0, 0, position, number)


def _shard_of_rank(manifest: Manifest, phase: int, rank: int, progress: Progress | None) -> int:
    """The shard whose samples file has an order_rank of a phase."""

    def has(shard_id: int) -> bool:
        table = narrow(manifest, shard_id, ["phase", "order_rank"])
        return bool(((table["phase"].to_numpy() == phase) & (table["order_rank"].to_numpy() == rank)).any())

    guess = _shard_in_corpus_order(manifest, rank)
    if guess is not None and has(guess):
        return guess
    for shard_id, there in of_shards(manifest, has, progress, _READ):
        if there:
            return shard_id
    raise _no_order(manifest, phase)


def _shard_in_corpus_order(manifest: Manifest, rank: int) -> int | None:
    """Where it is if there is one phase, in the order of the corpus."""
    for shard_id, name in manifest.sample_files().items():
        rows = manifest.header["files"][name].get("rows", 0)
        if rank < rows:
            return shard_id
        rank -= rows
    return None


def _unscheduled_places(reader: Reader, rows: Sequence[Row], progress: Progress | None) -> list[list[Place]]:
    """The plays of samples of one phase."""
    phase = rows[0]["phase"]
    if _plays_once(reader.manifest):
        return [[Place(phase, 0, 0, row["order_rank"], 1)] for row in rows]
    order = _phase_order(reader, phase, progress)
    counts = _at_least(order.repeat, max(row["repeat"] for row in rows))
    begins = np.cumsum(counts) - counts
    found = []
    for row in rows:
        before = _at_least(order.repeat[: row["order_rank"]], row["repeat"])
        positions = (begins[: row["repeat"]] + before).tolist()
        found.append([Place(phase, 0, 0, position, number) for number, position in enumerate(positions, 1)])
    return found
