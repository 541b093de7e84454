"""Matching the mass together with the gradient: one more coordinate, the tokens.

A manifest's weights add up to the group's mass, Σ weight_j n_j = T_g. Weights u that match the gradient alone need not
(Σ u_j n_j ≠ Σ a_i n_i), and scaling them afterwards spoils the match: what they miss of the mass is multiplied with all
that they hold. So each gradient gets the coordinate c · n_i with c = MASS ‖Σ a g‖ / Σ a n, in which an error of the
mass costs MASS times what an equal one of the gradient does. At 1 a match that misses half of the gradient misses half
of the mass as well, and scaled to it is worse than random picks where those are few; from 3 on the figures are much
alike. Equal weights can only choose longer samples to meet the mass, and want more of it.
"""

import math

import numpy as np

#: Weight of the mass against the gradient, and where weights are equal.
MASS, EVEN_MASS = 4.0, 10.0


def whole_tolerance(tolerance: float, *, even: bool = False) -> float:
    """What share of the joined target may be missed where at most ``tolerance`` of the gradient's own length may.

    The target with its mass is sqrt(1 + MASS²) times as long as without.
    """
    return tolerance / math.hypot(1.0, EVEN_MASS if even else MASS)


def with_mass(
    g: np.ndarray, n_tokens: np.ndarray, target: np.ndarray, mass: float, *, even: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Append the coordinate of the mass to gradients and to what they are to match.

    Args:
        g: (n, k) float32 gradient sums.
        n_tokens: (n,) predicted tokens.
        target: (k,) Σ a g.
        mass: Σ a n.
        even: Whether weights will be equal.

    Returns:
        (n, k + 1) float32 and (k + 1,) float64. A target of 0 leaves the mass out of account: the coordinate is 0.
    """
    scale = (EVEN_MASS if even else MASS) * float(np.linalg.norm(target)) / mass if mass > 0 else 0.0
    column = (scale * np.asarray(n_tokens, np.float64)).astype(np.float32)[:, None]
    return np.concatenate([g, column], axis=1), np.append(np.asarray(target, np.float64), scale * mass)
