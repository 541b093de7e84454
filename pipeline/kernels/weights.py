"""What a weight is: one meaning for every method, and how far a set of weights is from even (DESIGN section 5)."""

import numpy as np


def coreset_weights(raw: np.ndarray, n_tokens: np.ndarray, target_mass: float) -> np.ndarray:
    """weight_j = T_g · raw_j / Σ raw / n_j: how many tokens of the corpus a token of sample j stands for.

    Args:
        raw: (m,) float64 above 0, the mass that the method found for each pick of one group, in any scale.
        n_tokens: (m,) at least 1.
        target_mass: T_g; Σ weight · n_tokens is this.
    """
    raw = np.asarray(raw, dtype=np.float64)
    return target_mass * (raw / raw.sum()) / np.asarray(n_tokens, dtype=np.float64)


def loss_weights(weight: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
    """weight_j · Σn / ΣM: weights whose mean over tokens is 1, by one normaliser for all groups together."""
    n_tokens = np.asarray(n_tokens, dtype=np.float64)
    mass = weight @ n_tokens
    return weight * (n_tokens.sum() / mass) if mass > 0 else np.asarray(weight, dtype=np.float64)


def effective_tokens(weight: np.ndarray, n_tokens: np.ndarray) -> float:
    """(Σ w·n)² / Σ w²·n, Kish's effective sample size counted in tokens: Σ n where all weights are equal, else less."""
    n_tokens = np.asarray(n_tokens, dtype=np.float64)
    squares = (weight * weight) @ n_tokens
    return float((weight @ n_tokens) ** 2 / squares) if squares > 0 else 0.0
