"""Non-negative OMP against scikit-learn, NNLS, a factorisation from scratch and planted solutions."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.linear_model import orthogonal_mp

from cptsel.pipeline.kernels.matching.nnomp import InverseFactor, even_pursuit, pursue


def ones(g: np.ndarray) -> np.ndarray:
    return np.ones(len(g), np.int64)


def ridge_nnls(g: np.ndarray, target: np.ndarray, ridge: float, centre: np.ndarray) -> np.ndarray:
    """min ‖b − u g‖² + λ Σ (u − c)² over u >= 0, as plain NNLS with rows √λ I below."""
    stacked = np.vstack([g.T.astype(np.float64), np.sqrt(ridge) * np.eye(len(g))])
    return nnls(stacked, np.concatenate([target, np.sqrt(ridge) * centre]))[0]


@given(st.integers(0, 10_000), st.lists(st.integers(0, 9), max_size=30))
@settings(max_examples=100, deadline=None)
def test_updated_factor_is_the_inverse_from_scratch(seed: int, moves: list[int]) -> None:
    """A move below the size takes that row out, any other brings a new one in."""
    random = np.random.default_rng(seed)
    factor, rows = InverseFactor(), np.empty((0, 40))
    for move in moves:
        if move < len(rows):
            factor.remove(move)
            rows = np.delete(rows, move, axis=0)
        else:
            row = random.standard_normal(40)
            assert factor.append(rows @ row, row @ row + 0.1)
            rows = np.vstack([rows, row])
        k = rows @ rows.T + 0.1 * np.eye(len(rows))
        np.testing.assert_allclose(factor.root.T @ factor.root @ k, np.eye(len(rows)), atol=1e-9)


def test_factor_grows_beyond_its_first_space_and_refuses_what_depends() -> None:
    rows = np.random.default_rng(0).standard_normal((150, 200))
    factor = InverseFactor()
    for i, row in enumerate(rows):
        assert factor.append(rows[:i] @ row, row @ row)
    right = rows @ np.arange(200.0)
    np.testing.assert_allclose(factor.solve(right), np.linalg.solve(rows @ rows.T, right))
    twin = rows[3] + rows[7]
    assert not factor.append(rows @ twin, twin @ twin)
    assert factor.size == 150


@given(st.integers(0, 10_000), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_agrees_with_scikit_learn_where_no_weight_would_be_negative(seed: int, m: int) -> None:
    random = np.random.default_rng(seed)
    g = np.linalg.qr(random.standard_normal((20, 12)).T)[0].T  # orthonormal rows: OMP can't meet a negative weight
    g = np.vstack([g, -g[:4]]).astype(np.float32)
    target = random.random(12) @ g[:12].astype(np.float64)
    theirs = orthogonal_mp(g[:12].T.astype(np.float64), target, n_nonzero_coefs=m)
    ours = pursue(g, target, ones(g), m, ridge=0.0, centre=0.0)
    assert sorted(ours.picks) == np.flatnonzero(theirs).tolist()
    np.testing.assert_allclose(ours.u, theirs[ours.picks], rtol=1e-5)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_recovers_a_planted_combination(seed: int) -> None:
    random = np.random.default_rng(seed)
    g = random.standard_normal((300, 64)).astype(np.float32)
    planted, weights = random.permutation(300)[:5], random.uniform(1, 3, 5)
    found = pursue(g, weights @ g[planted].astype(np.float64), ones(g), 5, ridge=0.0, centre=0.0)
    assert sorted(found.picks) == sorted(planted)
    np.testing.assert_allclose(found.u[np.argsort(found.picks)], weights[np.argsort(planted)], rtol=1e-6)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.01, 1.0, 100.0]), st.integers(1, 40), st.booleans())
@settings(max_examples=120, deadline=None)
def test_weights_are_the_ridge_nnls_solution_on_the_support(seed: int, ridge: float, m: int, each: bool) -> None:
    random = np.random.default_rng(seed)
    g = (random.standard_normal((60, 16)) + random.uniform(0, 1)).astype(np.float32)
    a = random.uniform(0.5, 2, 60)
    target = a @ g.astype(np.float64)
    centre = a.sum() / m * (random.uniform(0, 2, 60) if each else np.ones(60))
    found = pursue(g, target, ones(g), m, ridge=ridge, centre=centre if each else centre[0])
    assert len(found.picks) <= m
    assert len(np.unique(found.picks)) == len(found.picks) == len(found.u) == len(found.gains)
    assert (found.u > 0).all()
    assert (found.gains > 0).all()
    expected = ridge_nnls(g[found.picks], target, ridge, centre[found.picks])
    np.testing.assert_allclose(found.u, expected, rtol=1e-5, atol=1e-6 * a.sum())
    slope = g[found.picks] @ (target - found.u @ g[found.picks]) + ridge * (centre[found.picks] - found.u)
    assert np.abs(slope).max() <= 1e-6 * np.linalg.norm(target) * np.linalg.norm(g, axis=1).max()  # KKT on the support


@pytest.mark.parametrize("seed", range(5))
def test_without_a_limit_it_ends_at_the_nnls_optimum_of_all_rows(seed: int) -> None:
    random = np.random.default_rng(seed)
    g = (random.standard_normal((50, 12)) + 0.7).astype(np.float32)
    target = random.standard_normal(12) * 5 + 3
    found = pursue(g, target, ones(g), 50, ridge=0.0, centre=0.0)
    best = nnls(g.T.astype(np.float64), target)[1]
    assert np.linalg.norm(target - found.u @ g[found.picks]) == pytest.approx(best, abs=1e-5)


def test_an_atom_that_falls_to_zero_leaves_and_its_place_is_used() -> None:
    """(1, 1, .8) is nearest to the target, but beside (1, 0, 0) and (0, 1, 0) its weight would be negative."""
    g = np.array([[1, 1, 0.8], [1, 0, 0], [0, 1, 0]], np.float32)
    found = pursue(g, np.array([1.0, 1.0, -0.3]), ones(g), 3, ridge=0.0, centre=0.0)
    assert found.dropped == 1
    assert found.picks.tolist() == [1, 2]
    np.testing.assert_allclose(found.u, [1, 1])


def test_ridge_pulls_to_the_centre_and_not_to_zero() -> None:
    random = np.random.default_rng(0)
    g = (random.standard_normal((400, 32)) + 0.2).astype(np.float32)
    target = g.sum(axis=0, dtype=np.float64)
    sums = [pursue(g, target, ones(g), 40, ridge=r, centre=10.0).u.sum() for r in (1e2, 1e4, 1e8)]
    assert sums[2] == pytest.approx(400, rel=1e-3)
    assert abs(sums[2] - 400) < abs(sums[1] - 400) < abs(sums[0] - 400)


def test_duplicates_ties_and_zeros() -> None:
    g = np.zeros((6, 3), np.float32)
    g[2:5] = [1, 2, 3]
    target = 3 * g[2].astype(np.float64)
    alone = pursue(g, target, ones(g), 4, ridge=0.0, centre=1.0)
    assert alone.picks.tolist() == [2]  # the first of equals; its twins have nothing to add
    assert alone.u == pytest.approx([3])
    spread = pursue(g, target, ones(g), 4, ridge=1.0, centre=1.0)
    assert spread.picks.tolist() == [2, 3, 4]  # a ridge spreads the weight; rows of 0 are never picked
    assert spread.u == pytest.approx([1, 1, 1])
    nothing = pursue(g, np.zeros(3), ones(g), 4, ridge=0.0, centre=1.0)
    assert len(nothing.picks) == 0


def test_budget_discount_candidates_and_stop() -> None:
    random = np.random.default_rng(1)
    g = random.standard_normal((100, 20)).astype(np.float32)
    costs = random.integers(1, 30, 100)
    target = g.sum(axis=0, dtype=np.float64)
    for per_cost in (False, True):
        found = pursue(g, target, costs, 90, ridge=1.0, centre=5.0, per_cost=per_cost)
        assert 60 < costs[found.picks].sum() <= 90
    first = pursue(g, target, ones(g), 1, ridge=1.0, centre=5.0).picks[0]
    free = np.ones(100, bool)
    free[first] = False
    assert pursue(g, target, ones(g), 1, ridge=1.0, centre=5.0, free=free).picks[0] != first
    discount = np.where(free, 1.0, 0.01)
    assert pursue(g, target, ones(g), 1, ridge=1.0, centre=5.0, discount=discount).picks[0] != first
    half = 0.5 * np.linalg.norm(target)
    enough = pursue(g, target, ones(g), 90, ridge=0.0, centre=0.0, stop_at=half)
    fewer = pursue(g, target, ones(g), len(enough.picks) - 1, ridge=0.0, centre=0.0)
    assert np.linalg.norm(target - enough.u @ g[enough.picks]) <= half
    assert np.linalg.norm(target - fewer.u @ g[fewer.picks]) > half


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=60, deadline=None)
def test_even_pursuit_is_naive_herding(seed: int, tokens: bool) -> None:
    random = np.random.default_rng(seed)
    g = (random.standard_normal((25, 6)) + 0.3).astype(np.float32)
    costs = random.integers(1, 9, 25) if tokens else ones(g)
    capacity = int(costs.sum() // 3)
    target = g.sum(axis=0, dtype=np.float64)
    found = even_pursuit(g, target, costs, capacity, total=25.0)
    picks: list[int] = []
    while left := [j for j in range(25) if j not in picks and costs[[*picks, j]].sum() <= capacity]:
        misses = [
            np.linalg.norm(target - 25 / (len(picks) + 1) * g[[*picks, j]].sum(axis=0, dtype=float)) for j in left
        ]
        picks.append(left[int(np.argmin(misses))])
    assert found.picks.tolist() == picks
    assert found.u == pytest.approx(np.full(len(picks), 25 / len(picks)))


def test_even_pursuit_against_brute_force() -> None:
    """Greedy need not be optimal, but of all choices of 3 of 10 it must be near the best."""
    ranks = []
    for seed in range(20):
        g = (np.random.default_rng(seed).standard_normal((10, 2)) + 1).astype(np.float32)
        target = g.sum(axis=0, dtype=np.float64)

        def miss(some: tuple[int, ...], g: np.ndarray = g, target: np.ndarray = target) -> float:
            return float(np.linalg.norm(target - 10 / 3 * g[list(some)].sum(axis=0, dtype=np.float64)))

        everything = sorted(miss(some) for some in combinations(range(10), 3))
        ours = miss(tuple(even_pursuit(g, target, ones(g), 3, total=10.0).picks))
        assert ours >= everything[0] - 1e-6
        ranks.append(np.searchsorted(everything, ours - 1e-6) / len(everything))
    assert np.mean(ranks) < 0.1
