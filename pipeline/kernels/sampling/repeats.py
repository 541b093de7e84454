"""From weights to whole numbers of plays: capped rates and systematic rounding (docs/design.md, Weights)."""

from dataclasses import dataclass

import numpy as np

# A rate this near a whole number is that number: c·w carries float64 noise, and 0.9999999999 plays are one play.
_SNAP = 1e-9


def repeat_purpose(phase: int) -> str:
    """What a group's uniform variate of a phase is drawn for: the second part of its hash (seed, purpose, group)."""
    return "repeat" if phase == 0 else f"repeat {phase}"


@dataclass(frozen=True)
class Rates:
    """How often each sample is to be played, on average.

    Attributes:
        x: (m,) float64, x_j = min(cap, scale · weight_j).
        scale: c_g.
        shortfall: tokens of the target that not even all samples at the cap can play (0 otherwise).
    """

    x: np.ndarray
    scale: float
    shortfall: float


def replay_rates(weight: np.ndarray, n_tokens: np.ndarray, target_tokens: float, cap: int) -> Rates:
    """Find c with Σ min(cap, c·w_j)·n_j = target, exactly, by going through the samples from the heaviest down.

    Args:
        weight: (m,) float64 not negative, weight a token; what weighs nothing is not played.
        n_tokens: (m,) int64 at least 1.
        target_tokens: tokens to be played by these samples together, not negative.
        cap: most plays of one sample.
    """
    weight = np.asarray(weight, dtype=np.float64)
    n_tokens = np.asarray(n_tokens, dtype=np.float64)
    some = weight > 0
    full = cap * n_tokens[some].sum()
    if target_tokens >= full:
        scale = cap / weight[some].min() if some.any() else 0.0
        return Rates(np.where(some, float(cap), 0.0), float(scale), float(target_tokens - full))
    order = np.argsort(-weight, kind="stable")[: int(some.sum())]
    w, n = weight[order], n_tokens[order]
    at_cap = cap * np.concatenate([[0.0], np.cumsum(n)[:-1]])  # tokens played by the heavier ones, were they at the cap
    mass_left = np.cumsum((w * n)[::-1])[::-1]  # Σ w·n of this one and the lighter ones
    scales = (target_tokens - at_cap) / mass_left
    # With s samples at the cap, c is right when the next one stays under it; the first such s is the one.
    fits = scales * w <= cap
    s = int(np.argmax(fits)) if fits.any() else len(w) - 1  # rounding alone can deny the last one
    scale = float(scales[s])
    x = np.minimum(float(cap), scale * weight)
    nearest = np.round(x)
    return Rates(np.where(np.abs(x - nearest) <= _SNAP * x, nearest, x), scale, 0.0)


def systematic_repeats(x: np.ndarray, u: float) -> np.ndarray:
    """repeat_j = ⌊u + X_j⌋ − ⌊u + X_{j−1}⌋ with X the running sum of x: (m,) int32, each ⌊x⌋ or ⌈x⌉.

    Only the fractional parts are summed: the same in exact arithmetic, and a whole rate gives exactly itself however
    long the sum. The counts are E = x over u, and any run of samples is off by less than 1 in total.

    Args:
        x: (m,) float64 not negative, in order of sample_id.
        u: one uniform variate in (0, 1] for all of them.
    """
    x = np.asarray(x, dtype=np.float64)
    whole = np.floor(x)
    steps = np.floor(u + np.cumsum(x - whole))
    return (whole + np.diff(steps, prepend=np.floor(u))).astype(np.int32)
