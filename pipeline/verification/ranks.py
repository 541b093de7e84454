"""Checks that ``order_rank`` puts the samples of a phase, of all shards together, into one order."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from cptsel.pipeline.artifacts.manifest import MANIFEST, Manifest
from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.summary import counted
from cptsel.pipeline.verification.curricula import expected_rank, score_of


@dataclass(frozen=True, eq=False)
class Ranked:
    """The samples of one file that are of one phase.

    ``rows`` (m,) int64 in ``file``; ``rank`` (m,) int64, their order_rank; ``place`` (m,) int64, where they stand in
    the file by row of the corpus and window: 0, 1, ...; of a curriculum whose ranks can be computed again ``score``,
    (m,) float64, and ``ids``, else None.
    """

    file: str
    phase: int
    rows: np.ndarray
    rank: np.ndarray
    place: np.ndarray
    score: np.ndarray | None = None
    ids: pa.Array | None = None


def ranked(file: str, table: pa.Table, curricula: dict[int, str]) -> list[Ranked]:
    """What the check needs of a file, by phase; ``curricula`` as ``Manifest.curricula`` has them."""
    phases, rank, row_index, window = (
        table[key].to_numpy().astype(np.int64) for key in ("phase", "order_rank", "row_index", "window")
    )
    parts = []
    for phase in np.unique(phases).tolist():
        rows = np.flatnonzero(phases == phase)
        place = np.empty(len(rows), dtype=np.int64)
        place[np.lexsort((window[rows], row_index[rows]))] = np.arange(len(rows))
        score = score_of(table, curricula.get(phase, ""))
        found = Ranked(file, phase, rows, rank[rows], place)
        if score is not None:
            found = replace(found, score=score[rows], ids=table["sample_id"].combine_chunks().take(pa.array(rows)))
        parts.append(found)
    return parts


def check_ranks(manifest: Manifest, files: list[Ranked], problems: Problems) -> None:
    """The ranks of a phase are 0, 1, ..., each once, in the order of the corpus or of the phase's curriculum.

    Args:
        files: of all samples files, by ascending shard_id.
    """
    curricula, kind = manifest.curricula(), manifest.header["order"]["kind"]
    if kind != "priority" and (kind == "curriculum") != bool(curricula):
        named = ", ".join(curricula.values()) or "corpus"
        problems.add(MANIFEST, None, f"order.kind is {kind!r}, but its phases go by {named}")
    for phase in manifest.phases:
        mine = [part for part in files if part.phase == phase]
        if not mine:
            continue
        rank = np.concatenate([part.rank for part in mine])
        starts = np.cumsum([0, *(len(part.rows) for part in mine)])
        place = np.concatenate([start + part.place for start, part in zip(starts, mine, strict=False)])
        outside = (rank < 0) | (rank >= len(rank))
        by_rank = np.argsort(rank, kind="stable")  # of equal ranks the first stays first
        again = np.zeros(len(rank), dtype=bool)
        again[by_rank[1:]] = rank[by_rank[1:]] == rank[by_rank[:-1]]
        order = f"its place by {curricula[phase]}" if phase in curricula else "its place in the corpus"
        if phase in curricula:
            place = _by_score(manifest, mine, phase, curricula[phase], rank)
        moved = ~outside & ~again & (rank != place)
        for start, part in zip(starts.tolist(), mine, strict=False):
            here = slice(start, start + len(part.rows))
            _add(problems, part, outside[here], f"order_rank is {{}}, but its phase has {counted(len(rank), 'sample')}")
            _add(problems, part, again[here], "an earlier row of the same phase has its order_rank")
            _add(problems, part, moved[here], f"order_rank is {{}}, not {order}")


def _by_score(manifest: Manifest, parts: list[Ranked], phase: int, order: str, rank: np.ndarray) -> np.ndarray:
    """Ranks (m,) by a curriculum; those that are there where they can't be computed again."""
    seed = manifest.header["selection"]["options"].get("seed")
    if seed is None or any(part.score is None for part in parts):
        return rank
    score = np.concatenate([part.score for part in parts if part.score is not None])
    ids = pa.concat_arrays([part.ids for part in parts if part.ids is not None])
    expected = expected_rank(score, ids, order, seed, phase)
    return rank if expected is None else expected


def _add(problems: Problems, part: Ranked, wrong: np.ndarray, what: str) -> None:
    """``Problems.add_rows`` where ``wrong`` (m,) is about some of the file's rows."""
    values, whole = np.zeros((2, int(part.rows.max()) + 1), dtype=np.int64)
    values[part.rows], whole[part.rows] = part.rank, wrong
    problems.add_rows(part.file, whole != 0, what, values)
