"""Priority sampling: weighted draws without replacement whose inclusion probabilities are known.

See docs/design.md, Draws.

Duffield, Lund and Thorup 2007, "Priority sampling for estimation of arbitrary subset sums". Every method that draws
(uniform first) differs in its scores alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PriorityDraw:
    """What was drawn.

    Attributes:
        picked: (m,) int64 indices, by falling key.
        threshold: the key of the first one left out (0 where nothing is).
        inclusion_prob: (m,) float64, π = min(1, s/threshold) of each pick; Σ value/π is unbiased for the whole sum.
    """

    picked: np.ndarray
    threshold: float
    inclusion_prob: np.ndarray


def uniform_scores(columns: Mapping[str, np.ndarray], by: str = "norm") -> np.ndarray:
    """Scores of a uniform draw from the corpus: (n,) float64, 1 / pool_prob, so that the pool's own rates cancel.

    Args:
        columns: ``pool_prob``, (n,) float64 in (0, 1], and others.
        by: not used.
    """
    return 1.0 / np.asarray(columns["pool_prob"], dtype=np.float64)


def importance_scores(columns: Mapping[str, np.ndarray], by: str = "norm") -> np.ndarray:
    """Scores that draw what moves the model most: grad_norm / pool_prob, or loss_sum / pool_prob; (n,) float64.

    Drawing by the gradient's length makes the estimate of the mean gradient vary least (Katharopoulos & Fleuret 2018,
    eq. 6, without their upper bound: the length is known here).

    Args:
        columns: ``pool_prob``, ``grad_norm`` and ``loss_sum``, (n,) float64.
        by: ``norm`` or ``loss``.
    """
    return np.maximum(columns["grad_norm" if by == "norm" else "loss_sum"], 0.0) / columns["pool_prob"]


def priority_keys(scores: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The keys s/u: (n,) float64 from scores (n,) not negative and uniform variates (n,) in (0, 1]."""
    return np.asarray(scores, dtype=np.float64) / np.asarray(u, dtype=np.float64)


def priority_sample(scores: np.ndarray, u: np.ndarray, budget: int, n_tokens: np.ndarray | None = None) -> PriorityDraw:
    """Take the largest keys s/u until the next one would exceed the budget.

    With a token budget the draw stops at the first sample that does not fit, rather than skip it: then a sample is in
    exactly when its key is above a threshold that its own key has no part in, and min(1, s/τ) stays unbiased.

    Args:
        scores: (n,) not negative; a sample with score 0 is never drawn.
        u: (n,) uniform in (0, 1], one a sample.
        budget: samples, or tokens where ``n_tokens`` is given.
        n_tokens: (n,) tokens of each sample, or None for a budget of samples.
    """
    keys = priority_keys(scores, u)
    order = np.argsort(-keys, kind="stable")  # ties by index, that is by sample_id
    order = order[: np.count_nonzero(keys > 0)]
    if n_tokens is None:
        taken = min(max(budget, 0), len(order))
    else:
        filled = np.cumsum(np.asarray(n_tokens, dtype=np.int64)[order])
        taken = int(np.searchsorted(filled, budget, side="right"))
    picked = order[:taken].astype(np.int64)
    threshold = float(keys[order[taken]]) if taken < len(order) else 0.0
    return PriorityDraw(picked, threshold, inclusion_probability(np.asarray(scores)[picked], threshold))


def crossing_room(scores: np.ndarray, n_tokens: np.ndarray, u: float) -> int:
    """Tokens to add to the budget of a draw that stops before the first sample that doesn't fit: right on average.

    Such a draw leaves half of the sample that crosses the budget, on average, and that is one that is drawn in
    proportion to s n as well. So u · Σ s n² / Σ s n with u uniform in (0, 1] makes up for it: exactly where all samples
    are equally long. It has no part in the keys, so π stays what it is.

    Args:
        scores: (n,) not negative.
        n_tokens: (n,) at least 1.
        u: the variate.
    """
    n = n_tokens.astype(np.float64)
    total = float(scores @ n)
    return int(u * float(scores @ (n * n)) / total) if total > 0 else 0


def inclusion_probability(scores: np.ndarray, threshold: np.ndarray | float) -> np.ndarray:
    """π = min(1, s/τ), 1 where the threshold is 0: (m,) float64.

    Args:
        scores: (m,).
        threshold: τ of each sample, (m,), or one for all.
    """
    scores, some = np.asarray(scores, dtype=np.float64), np.greater(threshold, 0)
    return np.minimum(1.0, np.divide(scores, threshold, out=np.ones(len(scores)), where=some))
