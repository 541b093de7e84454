"""Atoms with the mass as one more coordinate."""

import numpy as np
import pytest

from cptsel.pipeline.kernels.matching.mass import EVEN_MASS, MASS, tokens_of_atoms, whole_tolerance, with_mass


@pytest.mark.parametrize("even", [False, True])
def test_exact_weights_match_gradient_and_mass(even: bool) -> None:
    """With the weights that sum the target up, atoms sum up to it in every coordinate."""
    random = np.random.default_rng(0)
    g, n, a = random.normal(size=(30, 8)).astype(np.float32), random.integers(1, 300, 30), random.uniform(1, 9, 30)
    target, mass = a @ g.astype(np.float64), float(a @ n)
    atoms, goal = with_mass(g, n, target, mass, even=even)
    each = tokens_of_atoms(n, even=even)
    np.testing.assert_allclose((a * n / each) @ atoms.astype(np.float64), goal, rtol=1e-4)
    assert goal[-1] == pytest.approx((EVEN_MASS if even else MASS) * np.linalg.norm(target))
    assert each == pytest.approx(n if even else np.sqrt(n))


@pytest.mark.parametrize("even", [False, True])
def test_the_tolerance_is_that_of_the_gradient(even: bool) -> None:
    """Whoever misses the share of the whole target that is allowed misses at most as much as the gradient's share."""
    random = np.random.default_rng(1)
    g, n = random.normal(size=(20, 8)).astype(np.float32), random.integers(1, 50, 20)
    target = g.sum(axis=0, dtype=np.float64)
    _, goal = with_mass(g, n, target, float(n.sum()), even=even)
    assert whole_tolerance(0.2, even=even) * np.linalg.norm(goal) == pytest.approx(0.2 * np.linalg.norm(target))
