"""Checks that ``order_rank`` puts the samples of a phase, of all shards together, into one order."""

from collections import Counter

import numpy as np

from cptsel.pipeline.artifacts.manifest import MANIFEST, Manifest
from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.spill.columns import Column
from cptsel.pipeline.spill.plays import rank_by_score
from cptsel.pipeline.summary import counted
from cptsel.pipeline.verification.curricula import parse_curriculum
from cptsel.pipeline.verification.rows import Rows


def check_ranks(manifest: Manifest, rows: Rows, problems: Problems) -> None:
    """The ranks of a phase are 0, 1, ..., each once, in the order of the corpus or of the phase's curriculum.

    Args:
        manifest: what is checked.
        rows: of all samples files, by ascending shard_id.
        problems: what is wrong is added to it.
    """
    curricula, kind = manifest.curricula(), manifest.header["order"]["kind"]
    if kind != "priority" and (kind == "curriculum") != bool(curricula):
        named = ", ".join(curricula.values()) or "corpus"
        problems.add(MANIFEST, None, f"order.kind is {kind!r}, but its phases go by {named}")
    seed = manifest.header["selection"]["options"].get("seed")
    expected = {phase: _expected_rank(rows, order, seed, phase) for phase, order in curricula.items()}
    again, seen = rows.again(["rank"]), Counter[int]()
    for name, where, part in rows.by_file():
        repeated = again.read(where.start, where.stop)
        for phase in sorted(set(manifest.phases) & set(np.unique(part["phase"]).tolist())):
            mine, rank, samples = part["phase"] == phase, part["rank"], rows.samples[phase]
            place = _place(part, mine, expected.get(phase), seen[phase]) if phase in curricula else part["place"]
            seen[phase] += int(mine.sum())
            outside = (rank < 0) | (rank >= samples)
            moved = ~outside & ~repeated & (rank != place)
            order = f"its place by {curricula[phase]}" if phase in curricula else "its place in the corpus"
            what = f"order_rank is {{}}, but its phase has {counted(samples, 'sample')}"
            problems.add_rows(name, mine & outside, what, rank)
            problems.add_rows(name, mine & repeated, "an earlier row of the same phase has its order_rank")
            problems.add_rows(name, mine & moved, f"order_rank is {{}}, not {order}", rank)


def _place(part: np.ndarray, mine: np.ndarray, expected: Column | None, seen: int) -> np.ndarray:
    """Ranks (n,) of a file's rows by a curriculum; those that are there where they can't be computed again."""
    place: np.ndarray = part["rank"].copy()
    if expected is not None:
        place[mine] = expected.read(seen, seen + int(mine.sum()))
    return place


def _expected_rank(rows: Rows, order: str, seed: int | None, phase: int) -> Column | None:
    """(m,) int64 ranks of all samples of a phase; None where they can't be computed, or other checks tell why.

    Args:
        rows: of the manifest.
        order: of the phase.
        seed: of the selection.
        phase: its number.
    """
    curriculum = parse_curriculum(order)
    if curriculum is None or seed is None or not rows.named:
        return None
    score, ids, u = rows.column(phase, ["score"]), rows.column(phase, ["high", "low"]), Column(np.float64)
    if not all(np.isfinite(part).all() for part in score.parts(rows.part_rows)):
        return None
    if curriculum.buckets:
        for part in ids.parts(rows.part_rows):
            u.append(uniform(seed, f"curriculum {phase}", [f"{high:016x}{low:016x}" for high, low in part.tolist()]))
    return rank_by_score(
        score, ids, u, descending=curriculum.descending, buckets=curriculum.buckets, rows=rows.part_rows
    )
