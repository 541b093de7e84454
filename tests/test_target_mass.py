"""Target mass by group."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.kernels.sampling.target_mass import target_mass

MASSES = st.lists(st.floats(1e-3, 1e15), min_size=1, max_size=20)


@given(MASSES, st.floats(0, 3))
def test_keeps_the_total_and_the_order(masses, alpha):
    mass = np.array(masses)
    target = target_mass(mass, alpha)
    assert np.isclose(target.sum(), mass.sum(), rtol=1e-12)
    order = np.argsort(mass, kind="stable")
    assert (np.diff(target[order]) >= -1e-12 * mass.sum()).all()


def test_alpha_one_is_the_corpus_and_zero_is_equal():
    mass = np.array([8.0, 1.0, 0.0, 3.0])
    assert target_mass(mass, 1.0).tolist() == mass.tolist()
    assert target_mass(mass, 0.0).tolist() == [4.0, 4.0, 0.0, 4.0]


def test_alpha_half_by_hand():
    assert np.allclose(target_mass(np.array([16.0, 4.0]), 0.5), [20 * 4 / 6, 20 * 2 / 6])


def test_nothing_overflows():
    assert np.isfinite(target_mass(np.array([1e300, 1e-300]), 3.0)).all()
    assert target_mass(np.zeros(2), 0.5).tolist() == [0.0, 0.0]
