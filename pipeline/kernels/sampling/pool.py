"""Candidate pools: with which probability documents come in, and how well a pool tells the totals of its corpus."""

from collections.abc import Mapping

import numpy as np


def pool_rates(mass: Mapping[str | None, float], rate: float, alpha: float) -> dict[str | None, float]:
    """p_g = min(1, c · mass_g^(alpha − 1)), with c such that Σ p_g · mass_g = rate · Σ mass_g.

    With alpha 1 every group has the rate of all; with 0 all groups get as much, as far as they have it.

    Args:
        mass: of each group, such as its bytes; those without any get the largest rate.
        rate: of the whole corpus, in (0, 1].
        alpha: exponent of the shares, in [0, 1].
    """
    there = {group: float(value) for group, value in mass.items() if value > 0}
    raw = {group: value ** (alpha - 1) for group, value in there.items()}
    full: set[str | None] = set()  # groups that are in as a whole
    wanted = rate * sum(there.values())
    while True:
        left = wanted - sum(there[group] for group in there if group in full)  # a set has no order of its own
        rest = sum(raw[group] * there[group] for group in there if group not in full)
        c = left / rest if rest > 0 else 0.0
        more = {group for group in there if group not in full and c * raw[group] >= 1.0}
        if not more:
            break
        full |= more
    found = {group: 1.0 if group in full else c * raw[group] for group in there}
    return {group: found.get(group, max(found.values(), default=rate)) for group in mass}


def variance_of_total(values: np.ndarray, pool_prob: np.ndarray, documents: np.ndarray) -> float:
    """Estimated variance of Σ values / pool_prob as an estimate of the corpus's total, from the pool alone.

    Documents come in by themselves, with all their samples: Σ_d (1 − p_d) · (x_d / p_d)², x_d being the document's sum
    (Horvitz and Thompson 1952, for Poisson sampling).

    Args:
        values: of the samples, (n,).
        pool_prob: of the samples, (n,), the same for all of a document.
        documents: which document each belongs to, (n,) of anything that sorts.
    """
    _, first, place = np.unique(documents, return_index=True, return_inverse=True)
    probs = pool_prob[first]
    sums = np.bincount(place, weights=values, minlength=len(first))
    return float(((1.0 - probs) * (sums / probs) ** 2).sum())
