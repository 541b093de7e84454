"""What random choices of the same budget would do, beside which a coreset is measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cptsel.pipeline.kernels.coverage import medoids
from cptsel.pipeline.kernels.neighbours import Links, nearest

_RANDOM_DRAWS = 3
_RANDOM_ROWS = 2_048  # rows on which random choices are measured where the graph isn't exact and can't help


@dataclass(frozen=True, eq=False)
class Clients:
    """What choices are measured on."""

    mass: np.ndarray  # (n,) float64
    reach: np.ndarray  # (n,) float64, distance at which a pick begins to be worth anything
    served: np.ndarray  # (n,) float32, distance to the nearest covered row, or infinite

    def measure(self, distance: np.ndarray) -> tuple[float, float]:
        """Objective, and mean distance to picks and covered rows, of picks at ``distance`` (n,)."""
        gain = float(self.mass @ np.maximum(self.reach - distance, 0))
        return gain, mean_distance(self.mass, np.minimum(distance, self.served))

    def __getitem__(self, rows: np.ndarray) -> Clients:
        return Clients(self.mass[rows], self.reach[rows], self.served[rows])


def mean_distance(mass: np.ndarray, distance: np.ndarray) -> float:
    """Mass-weighted mean distance; 0 where there is no mass, or nothing to be distant from."""
    total = mass.sum()
    return float(mass @ distance.astype(np.float64) / total) if total > 0 and np.isfinite(distance[0]) else 0.0


def random_choice(
    x: np.ndarray,
    costs: np.ndarray,
    budget: int,
    candidates: np.ndarray,
    clients: Clients,
    picks: np.ndarray,
    assignment: medoids.Assignment,
    graph: Links | None,
    seed: int,
) -> tuple[float, float]:
    """Objective and mean distance of random choices of the budget among the candidates, the mean of a few draws.

    Without an exact graph they are measured on a random part of the rows, and their ratio to the coreset's own figures
    on the same rows is carried over to all rows.

    Args:
        x: Rows (n, d), float32.
        costs: What each row takes of the budget (n,), int64 >= 1.
        budget: The budget.
        candidates: Rows that may be picked, int64.
        clients: What choices are measured on.
        picks: The coreset's picks; without any there is nothing to compare with, and both figures are 0.
        assignment: Of all rows to them.
        graph: The neighbour graph that is known, or None.
        seed: Seed of the draws.
    """
    if not len(picks):
        return 0.0, 0.0
    random = np.random.default_rng(seed)
    rows = np.arange(len(x))
    exact = graph is not None and graph.among is None
    if not exact and len(rows) > _RANDOM_ROWS:
        rows = np.sort(random.choice(len(rows), _RANDOM_ROWS, replace=False))
    some = clients[rows]
    drawn = []
    for _ in range(_RANDOM_DRAWS):
        order = candidates[random.permutation(len(candidates))]
        fitting = int(np.searchsorted(np.cumsum(costs[order]), budget, side="right"))
        choice = order[: max(1, fitting)]
        if not exact:
            distance = nearest(x[rows], x[choice], 1).distances[:, 0]
        else:
            distance = medoids.assign(x, choice, graph).distance
        drawn.append(some.measure(distance))
    mean = np.mean(drawn, axis=0).tolist()
    if len(rows) == len(x):
        return mean[0], mean[1]
    whole = clients.measure(assignment.distance)
    part = some.measure(assignment.distance[rows])
    scaled = [w * m / p if p > 0 else m for w, m, p in zip(whole, mean, part, strict=True)]
    return scaled[0], scaled[1]
