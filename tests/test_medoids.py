"""Exact assignment against brute force, and medoid passes that never make a choice worse."""

import numpy as np
import pytest

from cptsel.pipeline.kernels.coverage import medoids
from cptsel.pipeline.kernels.coverage.medoids import assign, refine
from cptsel.pipeline.kernels.neighbours import knn_graph


def rows(n: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal((n, 6)) * random.lognormal(0, 1, (n, 1))).astype(np.float32)


def cost(x: np.ndarray, mass: np.ndarray, picks: np.ndarray) -> float:
    distances = np.linalg.norm(x[:, None].astype(np.float64) - x[picks], axis=2)
    return float(mass @ distances.min(axis=1))


@pytest.mark.parametrize("neighbours", [None, 1, 12, 250])
def test_assignment_is_brute_force(neighbours: int | None) -> None:
    x = rows(250, seed=1)
    picks = np.random.default_rng(0).permutation(250)[:30]
    owner, distance = assign(x, picks, knn_graph(x, neighbours) if neighbours else None)
    distances = np.linalg.norm(x[:, None].astype(np.float64) - x[picks], axis=2)
    np.testing.assert_array_equal(owner, distances.argmin(axis=1))
    np.testing.assert_allclose(distance, distances.min(axis=1), rtol=1e-4)


def test_blocks_of_rows_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    x, picks = rows(250, seed=1), np.random.default_rng(0).permutation(250)[:30]
    whole = assign(x, picks)
    monkeypatch.setattr(medoids, "_OFFERED", 60)
    parts = assign(x, picks)
    np.testing.assert_array_equal(parts.owner, whole.owner)
    np.testing.assert_allclose(parts.distance, whole.distance, rtol=1e-5)


@pytest.mark.parametrize("use_graph", [False, True])
def test_equal_distances_go_to_the_lowest_row_and_picks_own_themselves(use_graph: bool) -> None:
    x = np.array([[0], [2], [1], [2], [0], [3]], np.float32)
    graph = knn_graph(x, 4) if use_graph else None
    owner, distance = assign(x, np.array([3, 1, 0]), graph)
    assert owner.tolist() == [2, 1, 2, 0, 2, 1]  # row 2 is as far from 0 as from 1 and 3; row 5 from 1 as from 3
    assert distance.tolist() == [0, 0, 1, 0, 0, 1]


def test_no_picks() -> None:
    owner, distance = assign(rows(3, 0), np.empty(0, np.int64))
    assert owner.tolist() == [-1, -1, -1]
    assert np.isinf(distance).all()
    refined = refine(rows(3, 0), np.ones(3), np.empty(0, np.int64), 2)
    assert len(refined.picks) == 0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("use_graph", [False, True])
def test_passes_never_raise_the_cost(seed: int, use_graph: bool) -> None:
    x = rows(300, seed)
    random = np.random.default_rng(seed)
    mass, picks = random.integers(0, 50, 300).astype(float), random.permutation(300)[:25]
    graph = knn_graph(x, 40) if use_graph else None
    costs = [cost(x, mass, refine(x, mass, picks, passes, graph=graph).picks) for passes in range(5)]
    assert costs[0] == pytest.approx(cost(x, mass, picks))
    assert (np.diff(costs) <= 1e-6 * costs[0]).all()
    assert costs[-1] < 0.95 * costs[0]


def test_where_passes_end_every_pick_is_the_medoid_of_its_cluster() -> None:
    x, mass = rows(200, 3), np.random.default_rng(3).integers(1, 9, 200).astype(float)
    refined = refine(x, mass, np.arange(15), 100)
    assert refined.passes < 100
    for c in range(15):
        members = np.flatnonzero(refined.assignment.owner == c)
        apart = np.linalg.norm(x[members, None].astype(np.float64) - x[members], axis=2)
        assert members[np.argmin(mass[members] @ apart)] == refined.picks[c]


@pytest.mark.parametrize("slack", [0, 40])
def test_swaps_keep_a_token_budget(slack: int) -> None:
    moved = dearer = 0
    for seed in range(6):
        x = rows(200, seed)
        random = np.random.default_rng(seed)
        costs, picks = random.integers(1, 100, 200), random.permutation(200)[:20]
        capacity = int(costs[picks].sum()) + slack
        refined = refine(x, np.ones(200), picks, 4, costs=costs, capacity=capacity)
        assert costs[refined.picks].sum() <= capacity
        assert len(set(refined.picks.tolist())) == 20
        assert cost(x, np.ones(200), refined.picks) <= cost(x, np.ones(200), picks)
        moved += int((refined.picks != picks).sum())
        dearer += int(costs[refine(x, np.ones(200), picks, 4).picks].sum() > capacity)
    assert moved > 6
    assert dearer >= 2  # without the budget, swaps would break it


def test_large_clusters_try_the_members_near_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    x = np.concatenate([random.standard_normal((200, 4)), 50 + random.standard_normal((200, 4))]).astype(np.float32)
    mass = random.integers(1, 5, 400).astype(float)
    exact = refine(x, mass, np.array([0, 399]), 2)
    monkeypatch.setattr(medoids, "EXACT_MEMBERS", 50)
    monkeypatch.setattr(medoids, "NEAR", 40)
    monkeypatch.setattr(medoids, "_BLOCK", 64)
    near = refine(x, mass, np.array([0, 399]), 2)
    np.testing.assert_array_equal(near.picks, exact.picks)
    without_mass = refine(x, np.zeros(400), np.array([0, 399]), 2)
    assert without_mass.picks.tolist() == [0, 399]
