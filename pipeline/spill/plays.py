"""How often samples are played, and in what order: what a sample takes from those before it.

Both sort samples on disk, so that memory does not grow with their number.
"""

from collections.abc import Callable, Iterable

import numpy as np

from cptsel.pipeline.kernels.sampling.repeats import Chunk, capped_rates, replay_scales, systematic_repeats
from cptsel.pipeline.spill.columns import PART_ROWS, Column
from cptsel.pipeline.spill.sorting import ID, by_value, records, sort_key, sorted_parts

_RATE = np.dtype([*ID, ("index", np.int64), ("group", np.int64), ("x", np.float64)])
_SCORED = np.dtype([("key", np.uint64), *ID, ("index", np.int64), ("u", np.float64)])


def count_repeats(
    chunks: Callable[[], Iterable[Chunk]],
    group: np.ndarray,
    target_tokens: np.ndarray,
    cap: int,
    ids: Column,
    u: np.ndarray,
    rows: int = PART_ROWS,
) -> tuple[Column, np.ndarray]:
    """Plays of m samples of several groups: capped rates, rounded in order of sample_id (docs/design.md, Weights).

    Args:
        chunks, group, target_tokens, cap: those of ``kernels.sampling.repeats.replay_scales``.
        ids: (m,) records of ID, in the order of the chunks.
        u: (g,) uniform variates of the groups.
        rows: that are held at once.

    Returns:
        (m,) int32 plays, and (g,) float64 tokens that not even all samples at the cap play.
    """
    scales = replay_scales(chunks, group, target_tokens, cap)
    table = Column(_RATE)
    for cell, weight, _ in chunks():
        start, stop, of = len(table), len(table) + len(cell), group[cell]
        columns = {"index": np.arange(start, stop), "group": of, "x": capped_rates(weight, scales.scale[of], cap)}
        table.append(records(_RATE, ids.read(start, stop), **columns))
    repeat, before = Column.zeros(np.int32, len(ids)), np.zeros(len(u))
    for part in sorted_parts(table, ["high", "low"], rows):
        counts = np.empty(len(part), np.int32)
        for number, mine in by_value(part["group"]):
            counts[mine], before[number] = systematic_repeats(part["x"][mine], float(u[number]), float(before[number]))
        repeat.put(part["index"], counts)
    return repeat, scales.shortfall


def rank_by_score(
    score: Column,
    ids: Column,
    u: Column,
    *,
    descending: bool,
    buckets: int | None,
    rows: int = PART_ROWS,
) -> Column:
    """(m,) int64 places of m samples, as ``kernels.sampling.curriculum.curriculum_rank`` gives them.

    Args:
        score: (m,) float64.
        ids: (m,) records of ID.
        u: (m,) float64; not read without ``buckets``.
        descending, buckets: those of ``curriculum_rank``.
        rows: that are held at once.

    Raises:
        ValueError: a score that is missing or not finite.
    """
    table = Column(_SCORED)
    for part in score.parts(rows):
        if not np.isfinite(part).all():
            raise ValueError("scores are missing or not finite")
        start, stop = len(table), len(table) + len(part)
        variates = u.read(start, stop) if buckets is not None else 0.0
        key, index = sort_key(-part if descending else part), np.arange(start, stop)
        table.append(records(_SCORED, ids.read(start, stop), key=key, index=index, u=variates))
    by = ["key", "high", "low"]
    if buckets is not None:
        table = _bucketed(table, min(buckets, max(len(score), 1)), rows)
        by = ["key", "u", "high", "low"]
    rank, place = Column.zeros(np.int64, len(score)), 0
    for part in sorted_parts(table, by, rows):
        rank.put(part["index"], np.arange(place, place + len(part)))
        place += len(part)
    return rank


def _bucketed(table: Column, buckets: int, rows: int) -> Column:
    """The same records with keys that order them by bucket, and roughly by variate inside."""
    bits = np.uint64(max(1, (buckets - 1).bit_length()))
    found, place = Column(_SCORED), 0
    for part in sorted_parts(table, ["key", "high", "low"], rows):
        bucket = np.arange(place, place + len(part), dtype=np.int64) * buckets // len(table)
        place += len(part)
        part["key"] = bucket.astype(np.uint64) << (np.uint64(64) - bits) | sort_key(part["u"]) >> bits
        found.append(part)
    return found
