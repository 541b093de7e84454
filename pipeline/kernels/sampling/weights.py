"""What a weight is, one meaning for every method, and the four ways in which trainers realise it.

See docs/design.md, Weights.
"""

import numpy as np

# Realisation of weights → what a reader of the manifest must be able to do besides playing samples ``repeat`` times.
REQUIRED_FEATURES: dict[str, tuple[str, ...]] = {
    "repeat": (),
    "loss": ("loss_weight",),
    "sampling": ("sampling",),
    "none": (),
}


def coreset_weights(
    found_mass: np.ndarray, n_tokens: np.ndarray, target_mass: np.ndarray | float, found: np.ndarray | float
) -> np.ndarray:
    """weight_j = T_g · found_mass_j / Σ found_mass / n_j: how many tokens of the corpus a token of sample j stands for.

    Args:
        found_mass: (m,) float64 above 0, the mass that the method found for each pick, in any scale.
        n_tokens: (m,) at least 1.
        target_mass: T_g of its group, (m,) or one for all; Σ weight · n_tokens over the group is this.
        found: Σ found_mass of its group, in the same way.
    """
    found_mass = np.asarray(found_mass, dtype=np.float64)
    return target_mass * (found_mass / found) / np.asarray(n_tokens, dtype=np.float64)


def loss_factor(tokens: int, mass: float) -> float:
    """Σn / ΣM: what makes weights of a phase loss weights, whose mean over tokens is 1; one for all of its groups.

    Args:
        tokens: of all its picks.
        mass: Σ weight · n_tokens over them.
    """
    return tokens / mass if mass > 0 else 1.0


def played_weights(realisation: str, weight: np.ndarray, loss_weight: np.ndarray, repeat: np.ndarray) -> np.ndarray:
    """(m,) float64: what a token of each sample counts in a trainer's loss, in expectation and up to one factor.

    Args:
        realisation: a key of ``REQUIRED_FEATURES``: the repeats, the loss weights, the weights where samples are drawn
            in proportion to them, or 1.
        weight, loss_weight: (m,) float64; repeat: (m,) integers.
    """
    counts = {"repeat": repeat, "loss": loss_weight, "sampling": weight, "none": np.ones(len(weight))}
    return np.asarray(counts[realisation], dtype=np.float64)


def effective_tokens(mass: float, squares: float) -> float:
    """(Σ w·n)² / Σ w²·n, Kish's effective sample size counted in tokens: Σ n where all weights are equal, else less.

    Args:
        mass: Σ w·n.
        squares: Σ w²·n.
    """
    return mass**2 / squares if squares > 0 else 0.0
