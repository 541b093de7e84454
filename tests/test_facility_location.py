"""Lazy greedy against naive greedy, the exact optimum and the budget it was given."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptsel.pipeline.kernels.coverage.facility_location import Coverage, cover, farthest_first, lazy_greedy, maximise
from cptsel.pipeline.kernels.neighbours import Links, knn_graph


def random_links(seed: int, n: int, candidates: int, k: int, ties: bool) -> Links:
    """Links of n clients to k distinct candidates each; with ``ties``, distances are small integers."""
    random = np.random.default_rng(seed)
    indices = np.array([random.permutation(candidates)[:k] for _ in range(n)], np.int32).reshape(n, k)
    distances = random.integers(0, 4, (n, k)) if ties else random.random((n, k))
    return Links(np.sort(distances, axis=1).astype(np.float32), indices)


def dense(links: Links, mass: np.ndarray, candidates: int) -> np.ndarray:
    """What candidate j is worth to client i, (n, candidates), straight from the definition; nothing is covered."""
    values = np.zeros((len(mass), candidates), np.float32)
    for i, (distances, indices) in enumerate(zip(links.distances, links.indices, strict=True)):
        for d, j in zip(distances, indices, strict=True):
            values[i, j] = np.float32(mass[i]) * (distances[-1] - d)
    return values


def naive_greedy(
    coverage: Coverage, costs: np.ndarray, capacity: int, per_cost: bool, factor: np.ndarray | None = None
) -> tuple[list[int], list[float]]:
    """Every gain of every candidate, at every pick."""
    starts, clients, values, n = coverage
    factor = np.ones(len(costs)) if factor is None else factor
    best = np.zeros(n, np.float32)
    picks: list[int] = []
    gains: list[float] = []
    while True:
        gain = np.zeros(len(costs))
        for j in range(len(costs)):
            if j not in picks and costs[j] <= capacity:
                rows = slice(starts[j], starts[j + 1])
                gain[j] = np.maximum(values[rows] - best[clients[rows]], 0).sum(dtype=np.float64)
        key = gain * factor / (costs if per_cost else 1)
        if not (key > 0).any():
            return picks, gains
        j = int(np.argmax(key))
        rows = slice(starts[j], starts[j + 1])
        best[clients[rows]] = np.maximum(best[clients[rows]], values[rows])
        picks.append(j)
        gains.append(float(gain[j]))
        capacity -= int(costs[j])


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 30), st.integers(1, 12), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_lazy_is_naive(seed: int, n: int, candidates: int, k: int, ties: bool, per_cost: bool) -> None:
    random = np.random.default_rng(seed)
    mass = random.integers(0, 3, n).astype(float) if ties else random.lognormal(0, 2, n)
    costs = random.integers(1, 6, candidates) if per_cost else np.ones(candidates, np.int64)
    capacity = int(random.integers(0, costs.sum() + 1))
    coverage = cover(random_links(seed, n, candidates, min(k, candidates), ties), mass, candidates)
    lazy = lazy_greedy(coverage, costs, capacity, per_cost=per_cost)
    picks, gains = naive_greedy(coverage, costs, capacity, per_cost)
    assert lazy.picks.tolist() == picks
    assert lazy.gains.tolist() == gains
    assert costs[lazy.picks].sum() <= capacity


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 30), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_lazy_is_naive_under_factors_and_reach(seed: int, n: int, candidates: int, per_cost: bool, ties: bool) -> None:
    random = np.random.default_rng(seed)
    links = random_links(seed, n, candidates, min(8, candidates), ties)
    reach = np.minimum(links.distances[:, -1], random.choice([0, 0.5, 2, np.inf], n)).astype(np.float32)
    coverage = cover(links, random.lognormal(0, 2, n), candidates, reach)
    costs = random.integers(1, 6, candidates) if per_cost else np.ones(candidates, np.int64)
    factor = 0.5 ** random.integers(0, 4, candidates) * (random.random(candidates) < 0.8)
    capacity = int(random.integers(0, costs.sum() + 1))
    lazy = lazy_greedy(coverage, costs, capacity, per_cost=per_cost, factor=factor)
    picks, gains = naive_greedy(coverage, costs, capacity, per_cost, factor)
    assert lazy.picks.tolist() == picks
    assert lazy.gains.tolist() == gains
    assert (factor[picks] > 0).all()
    if not per_cost:  # under a budget of costs, a pick of a high key may have to wait until a dearer one doesn't fit
        assert (np.diff(factor[picks] * gains) <= 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_gains_over_what_is_covered_are_conditional_gains(seed: int) -> None:
    """f(S ∪ C) − f(C), the reach of every client drawn in to its distance to C."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((60, 4)).astype(np.float32)
    mass, covered = random.integers(1, 9, 60).astype(float), random.permutation(60)[:7]
    links = knn_graph(x, 12)
    values = dense(links, mass, 60)
    before = values[:, covered].max(axis=1)
    served = np.linalg.norm(x[:, None] - x[covered], axis=2).min(axis=1).astype(np.float32)
    greedy = maximise(cover(links, mass, 60, np.minimum(links.distances[:, -1], served)), np.ones(60, np.int64), 10)
    total = before.sum()
    for k, gain in enumerate(greedy.gains, 1):
        after = np.maximum(before, values[:, greedy.picks[:k]].max(axis=1)).sum()
        assert gain == pytest.approx(after - total, rel=1e-3, abs=1e-4)
        best = max(np.maximum(values[:, [*covered, *greedy.picks[: k - 1], j]].max(axis=1), 0).sum() for j in range(60))
        assert after == pytest.approx(best, rel=1e-5)
        total = after


def test_a_token_budget_compares_discounted_gains() -> None:
    """Gain per token takes the cheap row, which is all but worthless once discounted; plain greedy the dear one."""
    links = Links(np.array([[0, 1], [0, 1]], np.float32), np.array([[0, 1], [1, 0]], np.int32))
    coverage = cover(links, np.array([6.0, 5.0]), 2)
    costs = np.array([1, 100])
    assert maximise(coverage, costs, 100).picks.tolist() == [0]
    assert maximise(coverage, costs, 100, np.array([0.5, 1.0])).picks.tolist() == [1]
    assert maximise(coverage, costs, 101, np.array([0.5, 1.0])).gains.tolist() == [6, 5]


def test_lazy_is_naive_on_real_neighbours() -> None:
    random = np.random.default_rng(0)
    x = (random.standard_normal((300, 8)) * random.lognormal(0, 1, (300, 1))).astype(np.float32)
    coverage = cover(knn_graph(x, 25), random.integers(1, 500, 300) / 0.02, 300)
    ones = np.ones(300, np.int64)
    lazy = lazy_greedy(coverage, ones, 120, per_cost=False)
    assert lazy.picks.tolist() == naive_greedy(coverage, ones, 120, per_cost=False)[0]
    assert len(lazy.picks) == 120


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=40, deadline=None)
def test_gains_fall_and_add_up_to_the_objective(seed: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    links = random_links(seed, 60, 40, 8, ties)
    mass = random.integers(1, 9, 60).astype(float)
    greedy = lazy_greedy(cover(links, mass, 40), np.ones(40, np.int64), 40, per_cost=False)
    assert (np.diff(greedy.gains) <= 0).all()
    assert (greedy.gains > 0).all()
    objective = dense(links, mass, 40)[:, greedy.picks].max(axis=1, initial=0).sum(dtype=np.float64)
    assert greedy.gains.sum() == pytest.approx(objective, rel=1e-5)


def test_links_are_read_from_the_side_of_the_client() -> None:
    """Candidate 0 is listed by all three clients and lists nobody; a graph read the wrong way would never pick it."""
    links = Links(np.array([[1, 3]] * 3, np.float32), np.array([[0, 1], [0, 2], [0, 3]], np.int32))
    assert lazy_greedy(cover(links, np.ones(3), 4), np.ones(4, np.int64), 1, per_cost=False).picks.tolist() == [0]


def test_equal_gains_go_to_the_lowest_index() -> None:
    links = Links(np.array([[0, 1]] * 4, np.float32), np.array([[3, 0], [1, 0], [2, 0], [0, 1]], np.int32))
    assert lazy_greedy(cover(links, np.ones(4), 4), np.ones(4, np.int64), 4, per_cost=False).picks.tolist() == [
        0,
        1,
        2,
        3,
    ]


@pytest.mark.parametrize("seed", range(8))
def test_greedy_is_near_the_exact_optimum(seed: int) -> None:
    """1 − 1/e by Nemhauser, Wolsey & Fisher (1978); on a complete graph, found by trying all subsets."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((14, 3)).astype(np.float32)
    mass = random.integers(1, 10, 14).astype(float)
    links = knn_graph(x, 14)
    values = dense(links, mass, 14)
    greedy = maximise(cover(links, mass, 14), np.ones(14, np.int64), 4)
    best = max(values[:, list(s)].max(axis=1).sum() for s in combinations(range(14), 4))
    assert (1 - 1 / np.e) * best <= greedy.gains.sum() <= best * (1 + 1e-6)


def test_token_budget_takes_the_better_of_two_greedies() -> None:
    """By gain per token a tiny sample shuts out the large one; by gain alone a dear one eats the budget."""
    far = np.float32(100)
    trap = Links(np.array([[1, far], [0, far]], np.float32), np.array([[0, 1], [1, 0]], np.int32))
    costs = np.array([1, 100])
    coverage = cover(trap, np.array([1.0, 50.0]), 2)
    assert lazy_greedy(coverage, costs, 100, per_cost=True).picks.tolist() == [0]
    greedy = maximise(coverage, costs, 100)
    assert not greedy.per_cost
    assert greedy.picks.tolist() == [1]
    cheap = Links(np.tile(np.array([[0, 1]], np.float32), (5, 1)), np.array([[i, 5] for i in range(5)], np.int32))
    coverage = cover(cheap, np.array([3.0, 2, 2, 2, 2]), 6)
    greedy = maximise(coverage, np.array([8, 2, 2, 2, 2, 9]), 8)
    assert greedy.per_cost
    assert greedy.picks.tolist() == [1, 2, 3, 4]


def test_clients_without_mass_and_last_links_are_worth_nothing() -> None:
    links = random_links(1, 6, 5, 3, ties=False)
    coverage = cover(links, np.array([0.0, 1, 0, 1, 1, 0]), 5)
    assert set(coverage.clients.tolist()) <= {1, 3, 4}
    assert len(coverage.values) == 6
    assert (coverage.values > 0).all()


def reference_farthest(
    x: np.ndarray, mass: np.ndarray, start: list[int], costs: np.ndarray, capacity: int, factor: np.ndarray
) -> list[int]:
    """The rule in plain words, with distances computed anew for every pick."""
    picks: list[int] = []
    while True:
        fits = [i for i in range(len(x)) if i not in start + picks and costs[i] <= capacity and factor[i] > 0]
        if not fits:
            return picks
        chosen = x[start + picks].astype(np.float64)
        apart = {i: np.linalg.norm(chosen - x[i], axis=1).min() if len(chosen) else 1 for i in fits}
        j = max(fits, key=lambda i: (factor[i] * mass[i] * apart[i], mass[i] > 0, factor[i], -i))
        picks.append(j)
        capacity -= int(costs[j])


@pytest.mark.parametrize("start", [[], [4, 9]])
def test_farthest_first(start: list[int]) -> None:
    random = np.random.default_rng(2)
    x = random.integers(-9, 9, (40, 4)).astype(np.float32)[random.integers(0, 25, 40)]
    mass = random.choice([0, 1, 1.37, 2.11, 3.3], 40)  # no integers: 2 · √2 and √8 would be ties by rounding
    distance = np.full(40, np.inf)
    if start:
        distance = np.linalg.norm(x[:, None] - x[start], axis=2).min(axis=1)
    factors = (np.ones(40), (random.random(40) < 0.7).astype(float), 0.5 ** random.integers(0, 3, 40))
    for factor, (costs, capacity) in product(factors, ((np.ones(40, np.int64), 35), (random.integers(1, 9, 40), 60))):
        factor[start] = 0
        picks = farthest_first(x, mass, distance, costs, capacity, factor)
        assert picks.tolist() == reference_farthest(x, mass, start, costs, capacity, factor)
        left = capacity - costs[picks].sum()
        others = np.setdiff1d(np.flatnonzero(factor), picks)
        assert left >= 0
        assert (costs[others] > left).all()
