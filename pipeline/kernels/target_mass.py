"""Target mass: how much of the corpus's mass each group is to stand for (DESIGN section 6, ``--group-alpha``)."""

import numpy as np


def target_mass(group_mass: np.ndarray, alpha: float) -> np.ndarray:
    """T_g = T · mass_g^α / Σ mass^α with T = Σ mass: temperature-smoothed sampling of languages (Conneau et al. 2020).

    Args:
        group_mass: (G,) not negative, in tokens of the corpus.
        alpha: 1 keeps the corpus's own mix, 0 makes the groups equal, between them flattens it.

    Returns:
        (G,) float64 with the sum of ``group_mass``; a group without mass gets none, whatever alpha.
    """
    mass = np.asarray(group_mass, dtype=np.float64)
    largest = mass.max(initial=0.0)
    if largest == 0.0:
        return np.zeros_like(mass)
    if alpha == 1.0:  # to the last bit, so that the default changes nothing
        return mass.copy()
    # Relative to the largest, so that neither overflow nor underflow of mass^α decides the mix.
    powers = np.where(mass > 0, (mass / largest) ** alpha, 0.0)
    return mass.sum() * powers / powers.sum()
