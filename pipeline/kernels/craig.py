"""CRAIG: a coreset whose picks each stand for the mass of the samples nearest to them (Mirzasoleiman et al. 2020).

Greedy facility location on the neighbour graph, then the largest mass · distance where no gain is left, then medoid
passes, and at the end every sample goes to its nearest pick, exactly. What it covers is the space of gradients; it does
not match their sum. The raw objective hides how good a choice is, as random picks have most of it too, so the loss of
random choices of the same size is measured beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cptsel.pipeline.kernels import medoids
from cptsel.pipeline.kernels.facility_location import Greedy, cover, farthest_first, maximise
from cptsel.pipeline.kernels.neighbours import EXACT_ROWS, Links, knn_graph, nearest

BudgetKind = Literal["samples", "tokens"]

_RANDOM_DRAWS = 3
_RANDOM_ROWS = 16_384  # rows on which random choices are measured where the graph isn't exact and can't help


@dataclass(frozen=True, eq=False)
class CraigResult:
    """A coreset of m of n rows. ``gains`` are those of the greedy pick that a medoid pass may have moved since.

    With L the mass-weighted mean distance to the nearest pick, ``gain_over_random`` is (L_random − L) / L_random: 0 for
    what a random choice does, 1 where every row lies on a pick.
    """

    picks: np.ndarray  # (m,) int64, rows in pick order
    gains: np.ndarray  # (m,) float64, 0 where no gain was left
    cluster_mass: np.ndarray  # (m,) float64, Σ a_i over the rows that the pick stands for
    owner: np.ndarray  # (n,) int64, position of each row's pick; -1 without picks
    distance: np.ndarray  # (n,) float32, to it; infinite without picks
    objective: float  # Σ a_i · (d0_i − distance_i)₊
    random_objective: float  # the same of random choices of the budget, mean over seeded draws
    mean_distance: float  # Σ a_i · distance_i / Σ a_i; 0 without picks
    random_distance: float
    gain_over_random: float
    report: dict[str, Any]  # the figures above and the counts, as JSON has them


@dataclass(frozen=True, eq=False)
class Cell:
    """Rows to choose from, in the order (by sample_id) that settles ties, and the budget for them.

    Raises:
        ValueError: If shapes, masses, tokens, the budget or its kind are none of those below.
    """

    x: np.ndarray  # (n, d) float32, finite: mean token gradients, or unit directions for cosine similarity
    mass: np.ndarray  # (n,) float64, finite and >= 0
    n_tokens: np.ndarray  # (n,) int64; >= 1 under a token budget
    budget: int  # >= 0: min(budget, n) samples, or tokens until no free sample fits
    budget_kind: BudgetKind

    def __post_init__(self) -> None:
        n = len(self.x)
        if self.mass.shape != (n,) or self.n_tokens.shape != (n,):
            raise ValueError(f"{n} rows need as many masses {self.mass.shape} and n_tokens {self.n_tokens.shape}")
        if not (np.isfinite(self.mass).all() and (self.mass >= 0).all()):
            raise ValueError("masses must be finite and not negative")
        if self.budget < 0 or self.budget_kind not in ("samples", "tokens"):
            raise ValueError(f"a budget is a number of samples or tokens, not {self.budget} {self.budget_kind}")
        if self.budget_kind == "tokens" and (self.n_tokens < 1).any():
            raise ValueError("under a budget of tokens every sample must have at least one")

    @property
    def costs(self) -> np.ndarray:
        """What each row takes of the budget, (n,) int64."""
        return np.ones(len(self.x), np.int64) if self.budget_kind == "samples" else self.n_tokens.astype(np.int64)


def craig(
    x: np.ndarray,
    mass: np.ndarray,
    n_tokens: np.ndarray,
    budget: int,
    budget_kind: BudgetKind = "samples",
    *,
    neighbours: int = 128,
    refine: int = 2,
    seed: int = 0,
) -> CraigResult:
    """Choose the coreset of one cell.

    Args:
        x: See ``Cell``; so are the next four.
        mass: Masses a.
        n_tokens: Tokens.
        budget: Samples or tokens.
        budget_kind: The unit of ``budget``.
        neighbours: K, the neighbours in the graph, itself included; 1.3 · n / m or more is wanted.
        refine: Medoid passes at the end.
        seed: Seed of the random choices of the report, and of the coarse cells where n is large.

    Returns:
        The coreset; empty for budget 0 or n = 0.

    Raises:
        ValueError: If an argument is not what ``Cell`` says, or ``x`` isn't finite.
    """
    cell = Cell(x, mass, n_tokens, budget, budget_kind)
    graph = knn_graph(x, neighbours, seed=seed)
    greedy = maximise(cover(graph, mass, len(x)), cell.costs, budget)
    free = np.ones(len(x), bool)
    return complete(cell, greedy, graph, free, graph if len(x) <= EXACT_ROWS else None, passes=refine, seed=seed)


def complete(
    cell: Cell, greedy: Greedy, links: Links, free: np.ndarray, graph: Links | None, *, passes: int, seed: int
) -> CraigResult:
    """Bring greedy's picks up to the budget, refine them, assign every row and measure the result.

    Args:
        cell: The rows and the budget.
        greedy: Picks among the rows.
        links: What greedy saw; the last link of row i is at d0_i.
        free: Rows (n,), bool, that may fill the budget up. A medoid may be any row.
        graph: The exact neighbour graph of all rows, or None.
        passes: Medoid passes.
        seed: Seed of the random choices.

    Returns:
        The coreset.
    """
    x, mass = cell.x, cell.mass
    d0 = links.distances[:, -1].astype(np.float64) if len(x) else np.empty(0)
    started = _fill(cell, free, greedy.picks, graph)
    limits = (None, 0) if cell.budget_kind == "samples" else (cell.costs, cell.budget)
    refined = medoids.refine(x, mass, started, passes, graph=graph, costs=limits[0], capacity=limits[1])
    # Medoids with fewer tokens than the picks they replace may have made room for one more.
    picks = _fill(cell, free, refined.picks, graph)
    assignment = refined.assignment if len(picks) == len(started) else medoids.assign(x, picks, graph)
    gains = np.concatenate([greedy.gains, np.zeros(len(picks) - len(greedy.gains))])
    objective, loss = _measure(mass, d0, assignment.distance)
    random_objective, random_loss = _random_choice(cell, d0, picks, assignment, graph, seed)
    figures: dict[str, Any] = {
        "objective": objective,
        "random_objective": random_objective,
        "mean_distance": loss,
        "random_distance": random_loss,
        "gain_over_random": (random_loss - loss) / random_loss if random_loss > 0 else 0.0,
    }
    counts = {
        "samples": len(x),
        "picks": len(picks),
        "tokens": int(cell.n_tokens[picks].sum()),
        "neighbours": links.indices.shape[1],
        "neighbours_advised": min(len(x), math.ceil(1.3 * len(x) / max(1, len(picks)))),
        "greedy_by": "gain per token" if greedy.per_cost else "gain",
        "zero_gain_picks": int((gains == 0).sum()),
        "refine_passes": refined.passes,
        "moved_picks": int((refined.picks != started).sum()),
    }
    cluster_mass = np.bincount(assignment.owner, mass, len(picks)) if len(picks) else np.empty(0)
    return CraigResult(picks, gains, cluster_mass, *assignment, **figures, report=counts | figures)


def _fill(cell: Cell, free: np.ndarray, picks: np.ndarray, graph: Links | None) -> np.ndarray:
    """Append picks while any free row fits what is left of the budget."""
    free = free.copy()
    free[picks] = False
    left = cell.budget - int(cell.costs[picks].sum())
    if not (free & (cell.costs <= left)).any():
        return picks
    distance = medoids.assign(cell.x, picks, graph).distance
    return np.concatenate([picks, farthest_first(cell.x, cell.mass, distance, cell.costs, left, free)])


def _measure(mass: np.ndarray, d0: np.ndarray, distance: np.ndarray) -> tuple[float, float]:
    """Objective and mass-weighted mean distance; 0 where there are no picks or no mass."""
    total = mass.sum()
    if total <= 0 or np.isinf(distance[0]):
        return 0.0, 0.0
    return float(mass @ np.maximum(d0 - distance, 0)), float(mass @ distance.astype(np.float64) / total)


def _random_choice(
    cell: Cell, d0: np.ndarray, picks: np.ndarray, assignment: medoids.Assignment, graph: Links | None, seed: int
) -> tuple[float, float]:
    """Objective and mean distance of random choices of the budget, the mean of a few draws.

    Without an exact graph they are measured on a random part of the rows, and their ratio to the coreset's own figures
    on the same rows is carried over to all rows.
    """
    if not len(picks):
        return 0.0, 0.0
    random = np.random.default_rng(seed)
    rows = np.arange(len(cell.x))
    if graph is None and len(rows) > _RANDOM_ROWS:
        rows = np.sort(random.choice(len(rows), _RANDOM_ROWS, replace=False))
    drawn = []
    for _ in range(_RANDOM_DRAWS):
        order = random.permutation(len(cell.x))
        fitting = int(np.searchsorted(np.cumsum(cell.costs[order]), cell.budget, side="right"))
        choice = order[: max(1, fitting)]
        if graph is None:
            distance = nearest(cell.x[rows], cell.x[choice], 1).distances[:, 0]
        else:
            distance = medoids.assign(cell.x, choice, graph).distance
        drawn.append(_measure(cell.mass[rows], d0[rows], distance))
    mean = np.mean(drawn, axis=0).tolist()
    if len(rows) == len(cell.x):
        return mean[0], mean[1]
    whole = _measure(cell.mass, d0, assignment.distance)
    part = _measure(cell.mass[rows], d0[rows], assignment.distance[rows])
    scaled = [w * m / p if p > 0 else m for w, m, p in zip(whole, mean, part, strict=True)]
    return scaled[0], scaled[1]
