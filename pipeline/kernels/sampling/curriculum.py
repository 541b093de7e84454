"""Curriculum: the order of a phase's samples by a score (Bengio et al. 2009, "Curriculum learning").

A score is the loss a token, the gradient norm or the marginal gain with which a sample was chosen. Strictly ascending
or descending order puts near-duplicates side by side and makes batches alike; buckets keep the trend, and shuffle
inside.
"""

import numpy as np


def curriculum_rank(
    score: np.ndarray, *, descending: bool = False, buckets: int | None = None, u: np.ndarray | None = None
) -> np.ndarray:
    """Place of each sample in its phase.

    Args:
        score: (m,) float64, finite, in order of sample_id: equal scores keep that order.
        descending: the largest score first.
        buckets: cut the sorted samples into this many runs, whose sizes differ by 1 at most, and order each by ``u``;
            None leaves them sorted. More buckets than samples are one a sample.
        u: (m,) uniform variates, needed with ``buckets``; equal ones keep the order of the input.

    Returns:
        (m,) int64, a permutation of 0 .. m-1; 0 is played first.

    Raises:
        ValueError: a score that is missing or not finite, buckets below 1, or ``u`` missing or of another length.
    """
    score = np.asarray(score, dtype=np.float64)  # None becomes NaN
    wrong = np.flatnonzero(~np.isfinite(score))
    if len(wrong):
        raise ValueError(f"{len(wrong)} of {len(score)} scores are missing or not finite, the first at {wrong[0]}")
    order = np.argsort(-score if descending else score, kind="stable")
    if buckets is not None:
        if buckets < 1:
            raise ValueError(f"buckets must be at least 1, not {buckets}")
        if u is None or len(u) != len(score):
            raise ValueError("buckets need one uniform variate a sample")
        bucket = np.empty(len(score), dtype=np.int64)
        bucket[order] = np.arange(len(score)) * buckets // max(len(score), 1)
        order = np.lexsort((u, bucket))
    rank = np.empty(len(score), dtype=np.int64)
    rank[order] = np.arange(len(score))
    return rank
