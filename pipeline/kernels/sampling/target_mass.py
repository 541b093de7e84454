"""Target mass: how much of the corpus's mass each group is to stand for (docs/design.md, Target mass).

The corpus's own mix tempered (``--group-alpha``), shares set by hand, or shares by how much each group suffers
(``--group-mass``). All three keep T, the mass of everything.
"""

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


def target_mass_by_share(group_mass: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """T_g = T · share_g / Σ share.

    Args:
        group_mass: (G,) not negative, in tokens of the corpus; T is its sum.
        shares: (G,) not negative, any scale, not all 0 where there is mass.

    Returns:
        (G,) float64 with the sum of ``group_mass``.
    """
    shares = np.asarray(shares, dtype=np.float64)
    return np.asarray(group_mass, dtype=np.float64).sum() * (shares / shares.sum())


def target_mass_by_rise(group_mass: np.ndarray, rise: np.ndarray, beta: float) -> np.ndarray:
    """T_g ∝ mass_g · max(0, δ_g)^β: groups count by how much moving along the new domain raises their loss.

    Maximally interfered retrieval (Aljundi et al. 2019), offline and by group: the mean of a group is not faked by the
    noise of single samples.

    Args:
        group_mass: (G,) not negative, in tokens of the corpus; T is its sum.
        rise: (G,) δ_g, mean rise of the loss a token, in any scale; a group whose loss falls gets nothing.
        beta: exponent, not negative.

    Returns:
        (G,) float64 with the sum of ``group_mass``.

    Raises:
        ValueError: no group with mass has a loss that rises.
    """
    mass, rise = np.asarray(group_mass, dtype=np.float64), np.maximum(np.asarray(rise, dtype=np.float64), 0.0)
    largest = rise[mass > 0].max(initial=0.0)
    if largest == 0.0:
        raise ValueError("no group's loss rises")
    return target_mass_by_share(mass, mass * np.where(rise > 0, (rise / largest) ** beta, 0.0))
