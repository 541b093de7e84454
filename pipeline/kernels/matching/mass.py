"""What is matched: gradients by the root of their tokens, with the mass as one more coordinate.

A manifest's weights add up to the group's mass, Σ weight_j n_j = T_g. Weights that match the gradient alone need not,
and scaling them afterwards spoils the match: what they miss of the mass is multiplied with all that they hold. So each
atom has its tokens as one more coordinate, in the unit c = MASS ‖Σ a g‖ / Σ a n, in which an error of the mass costs
MASS times what an equal one of the gradient does. At 1 a match that misses half of the gradient misses half of the mass
as well, and scaled to it is worse than random picks where those are few; from 3 on the figures are much alike.

An atom is g/√n and its weight u√n, pulled to an even share c√n of it: so the ridge is λ Σ n (u − c)², in which a token
counts the same whatever the length of its sample. Under λ Σ (u − c)² short samples, whose gradients are small, are
pulled as hard as long ones and picked for it, and more of the true gradient is missed. Equal weights can only choose
longer samples to meet the mass, and want more of it.
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


def tokens_of_atoms(n_tokens: np.ndarray, *, even: bool = False) -> np.ndarray:
    """Tokens that each atom brings with a weight of 1, (n,) float64: √n, or n where weights are equal."""
    return n_tokens.astype(np.float64) if even else np.sqrt(n_tokens, dtype=np.float64)


def with_mass(
    g: np.ndarray, n_tokens: np.ndarray, target: np.ndarray, mass: float, *, even: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Make atoms and target of gradient sums and what they are to match.

    Args:
        g: (n, k) float32 gradient sums.
        n_tokens: (n,) predicted tokens, at least 1.
        target: (k,) Σ a g.
        mass: Σ a n.
        even: Whether weights will be equal.

    Returns:
        Atoms (n, k + 1), float32, of ``tokens_of_atoms`` each, and the target (k + 1,), float64. A target of 0 leaves
        the mass out of account: the coordinate is 0.
    """
    tokens = tokens_of_atoms(n_tokens, even=even)
    scale = (EVEN_MASS if even else MASS) * float(np.linalg.norm(target)) / mass if mass > 0 else 0.0
    atoms = np.empty((len(g), g.shape[1] + 1), np.float32)
    np.multiply(g, (tokens / n_tokens).astype(np.float32)[:, None], out=atoms[:, :-1])
    atoms[:, -1] = scale * tokens
    return atoms, np.append(np.asarray(target, np.float64), scale * mass)
