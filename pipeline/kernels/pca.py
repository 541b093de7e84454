"""Principal components (Pearson 1901; Hotelling 1933): the directions in which rows differ most.

With x̄ the mean of n rows, the covariance is C = Σ_i (x_i − x̄)(x_i − x̄)ᵀ / (n − 1). Its eigenvectors by falling
eigenvalue are the components; a row's scores are its coordinates along them. C is summed in float64, block by block, so
that rows may be float32 and many.
"""

from dataclasses import dataclass

import numpy as np

_BLOCK = 4096  # rows that are centred at a time


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of n rows.

    Attributes:
        scores: (n, k) float64, coordinates of the rows.
        shares: (k,) float64, the share of the whole variance that each component has; 0 where rows are all alike.
    """

    scores: np.ndarray
    shares: np.ndarray


def principal_components(x: np.ndarray, k: int = 2) -> Components:
    """Scores of rows on their first k principal components.

    The largest loading of every component is positive, so that equal rows give equal scores. Components beyond the
    number of columns are 0.

    Args:
        x: (n, d) floats.
        k: how many components.

    Raises:
        ValueError: ``x`` is not a matrix with a row and a column, or ``k`` is not positive.
    """
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"x must be (n, d) with n and d above 0, not {x.shape}")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    n, d = x.shape
    mean = x.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((d, d))
    for start in range(0, n, _BLOCK):
        centred = x[start : start + _BLOCK] - mean
        covariance += centred.T @ centred
    covariance /= max(1, n - 1)
    values, vectors = np.linalg.eigh(covariance)
    kept = min(k, d)
    loadings = vectors[:, ::-1][:, :kept]
    loadings = loadings * np.sign(loadings[np.abs(loadings).argmax(axis=0), np.arange(kept)])
    whole = float(np.trace(covariance))
    scores, shares = np.zeros((n, k)), np.zeros(k)
    for start in range(0, n, _BLOCK):
        scores[start : start + _BLOCK, :kept] = (x[start : start + _BLOCK] - mean) @ loadings
    if whole > 0:
        shares[:kept] = np.maximum(values[::-1][:kept], 0.0) / whole
    return Components(scores, shares)
