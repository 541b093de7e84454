"""What random choices would do, against choices made one by one."""

import numpy as np
import pytest

from cptsel.pipeline.kernels.coverage import medoids
from cptsel.pipeline.kernels.coverage.random_choice import Clients, mean_distance, random_choice


def test_the_mean_over_draws_is_that_of_the_same_choices_made_by_hand() -> None:
    random = np.random.default_rng(0)
    x, mass = random.normal(size=(200, 4)).astype(np.float32), random.uniform(1, 5, 200)
    costs, picks = random.integers(1, 30, 200), np.arange(5)
    clients = Clients(mass, np.full(200, 9.0), np.full(200, np.inf, np.float32))
    found = random_choice(x, costs, 300, np.arange(200), clients, picks, medoids.assign(x, picks), None, seed=3)
    drawn, again = [], np.random.default_rng(3)
    for _ in range(3):
        order = again.permutation(200)
        chosen = order[np.cumsum(costs[order]) <= 300]
        distance = np.linalg.norm(x[:, None] - x[chosen], axis=2).min(axis=1)
        drawn.append((mass @ (9.0 - distance), mass @ distance / mass.sum()))
    assert found == pytest.approx(np.mean(drawn, axis=0), rel=1e-4)


def test_only_candidates_are_drawn_and_nothing_is_compared_with_nothing() -> None:
    x = np.arange(20, dtype=np.float32)[:, None]
    clients = Clients(np.ones(20), np.full(20, 50.0), np.full(20, np.inf, np.float32))
    picks, ones = np.array([0]), np.ones(20, np.int64)
    found = random_choice(x, ones, 1, np.array([19]), clients, picks, medoids.assign(x, picks), None, seed=0)
    assert found[1] == pytest.approx(np.arange(20).mean())  # the one candidate is at the end
    nothing = np.empty(0, np.int64)
    assert random_choice(x, ones, 1, picks, clients, nothing, medoids.assign(x, nothing), None, 0) == (0.0, 0.0)
    assert mean_distance(np.zeros(3), np.ones(3)) == 0
