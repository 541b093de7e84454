"""How often the picks of a phase are played, and in what order: what a pick takes from those before it.

Both sort the picks on disk, so that memory does not grow with their number (see spill.py).
"""

from collections.abc import Iterable

import numpy as np

from cptsel.pipeline.kernels.sampling.repeats import systematic_repeats
from cptsel.pipeline.selection.outcome.spilled_picks import SpilledPicks
from cptsel.pipeline.selection.picks import ID
from cptsel.pipeline.spill import PART_ROWS, Column, by_value, records, sort_key, sorted_parts

_RATE = np.dtype([*ID, ("index", np.int64), ("group", np.int64), ("x", np.float64)])
_SCORED = np.dtype([("key", np.uint64), *ID, ("index", np.int64), ("u", np.float64)])


def round_rates(
    rates: Iterable[tuple[np.ndarray, np.ndarray]], ids: Column, u: np.ndarray, rows: int = PART_ROWS
) -> Column:
    """(m,) int32 plays of each pick: rates, rounded group by group in order of sample_id.

    Args:
        rates: groups (n,) int64 and rates (n,) float64 of all picks, part after part.
        ids: (m,) their names.
        u: (g,) uniform variates of the groups.
        rows: that are held at once.
    """
    table = Column(_RATE)
    for groups, x in rates:
        start, stop = len(table), len(table) + len(x)
        table.append(records(_RATE, ids.read(start, stop), index=np.arange(start, stop), group=groups, x=x))
    repeat = Column.zeros(np.int32, len(ids))
    before = np.zeros(len(u))
    for part in sorted_parts(table, ["high", "low"], rows):
        counts = np.empty(len(part), np.int32)
        for group, mine in by_value(part["group"]):
            counts[mine], before[group] = systematic_repeats(part["x"][mine], float(u[group]), float(before[group]))
        repeat.put(part["index"], counts)
    return repeat


def rank_by_score(picks: SpilledPicks, *, descending: bool, buckets: int | None, rows: int = PART_ROWS) -> Column:
    """(m,) int64 places of the picks, as ``kernels.sampling.curriculum.curriculum_rank`` gives them.

    Args:
        picks: m picks with their scores and, for buckets, variates.
        descending, buckets: those of ``curriculum_rank``.
        rows: that are held at once.

    Raises:
        ValueError: a score that is missing or not finite.
    """
    table = Column(_SCORED)
    for score in picks.score.parts(rows):
        if not np.isfinite(score).all():
            raise ValueError("scores are missing or not finite")
        start, stop = len(table), len(table) + len(score)
        u = picks.u.read(start, stop) if buckets is not None else 0.0
        key, index = sort_key(-score if descending else score), np.arange(start, stop)
        table.append(records(_SCORED, picks.ids.read(start, stop), key=key, index=index, u=u))
    if buckets is not None:
        table = _bucketed(table, min(buckets, max(len(picks), 1)), rows)
        by = ["key", "u", "high", "low"]
    else:
        by = ["key", "high", "low"]
    rank, place = Column.zeros(np.int64, len(picks)), 0
    for part in sorted_parts(table, by, rows):
        rank.put(part["index"], np.arange(place, place + len(part)))
        place += len(part)
    return rank


def _bucketed(table: Column, buckets: int, rows: int) -> Column:
    """The same records with keys that order them by bucket, and roughly by variate inside."""
    bits = np.uint64((buckets - 1).bit_length())
    found, place = Column(_SCORED), 0
    for part in sorted_parts(table, ["key", "high", "low"], rows):
        bucket = np.arange(place, place + len(part), dtype=np.int64) * buckets // len(table)
        place += len(part)
        fine = sort_key(part["u"]) >> bits
        part["key"] = fine if not bits else bucket.astype(np.uint64) << (np.uint64(64) - bits) | fine
        found.append(part)
    return found
