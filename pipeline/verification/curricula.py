"""The ranks of a curriculum, computed again from what the manifest holds: by gradient norm or by gain.

The losses that ``--curriculum loss`` goes by are in the embedding run alone, so its ranks are only held to be an order.
"""

import re

import numpy as np
import pyarrow as pa

from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.sampling.curriculum import curriculum_rank

_ORDER = re.compile(r"(norm|gain) (ascending|descending)(?: in (\d+) buckets)?")


def score_of(table: pa.Table, order: str) -> np.ndarray | None:
    """What a curriculum orders the rows of a samples file by, (n,) float64; None where the rows don't say.

    Args:
        table: rows with n_tokens, grad_norm and score.
        order: of their phase, as ``manifest.json`` names it.
    """
    found = _ORDER.fullmatch(order)
    if found is None:
        return None
    if found[1] == "gain":
        return table["score"].to_numpy(zero_copy_only=False).astype(np.float64)
    return table["grad_norm"].to_numpy().astype(np.float64) / table["n_tokens"].to_numpy()


def expected_rank(score: np.ndarray, ids: pa.Array, order: str, seed: int, phase: int) -> np.ndarray | None:
    """(m,) int64 ranks of all samples of a phase; None where a score is missing, which other checks tell.

    Args:
        score: (m,) of ``score_of``.
        ids: their sample_ids.
        order: of the phase.
        seed: of the selection.
        phase: its number.
    """
    found = _ORDER.fullmatch(order)
    if found is None or not np.isfinite(score).all():
        return None
    by_name = np.argsort(np.asarray(ids.to_pylist()), kind="stable")
    buckets = int(found[3]) if found[3] else None
    names = ids.take(pa.array(by_name)).to_pylist()
    u = uniform(seed, f"curriculum {phase}", names) if buckets else None
    rank = np.empty(len(score), np.int64)
    rank[by_name] = curriculum_rank(score[by_name], descending=found[2] == "descending", buckets=buckets, u=u)
    return rank
