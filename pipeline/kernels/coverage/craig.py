"""CRAIG: a coreset whose picks each stand for the mass of the samples nearest to them (Mirzasoleiman et al. 2020).

Greedy facility location on the neighbour graph, then the largest mass · distance where no gain is left, then medoid
passes, and at the end every sample goes to its nearest pick: exactly, unless the rows are so many that their links come
from codes (``shortlist``). What it covers is the space of gradients; it does not match their sum. The raw objective
hides how good a choice is, as random picks have most of it too, so the loss of random choices of the same size is
measured beside it.

What earlier rounds replayed can be kept from the candidates, discounted, or *covered*: then it isn't picked again, and
picks are chosen for what they add to it. It stays among the clients with its mass, and all mass goes to new picks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from cptsel.pipeline.kernels.coverage import medoids
from cptsel.pipeline.kernels.coverage.facility_location import cover, farthest_first, maximise
from cptsel.pipeline.kernels.coverage.random_choice import Clients, mean_distance, random_choice
from cptsel.pipeline.kernels.coverage.shortlist import candidate_links, links_wanted
from cptsel.pipeline.kernels.neighbours import Links, knn_graph
from cptsel.pipeline.kernels.threads import same_on_any_threads

BudgetKind = Literal["samples", "tokens"]


@dataclass(frozen=True, eq=False)
class CraigResult:
    """A coreset of m of n rows. ``gains`` are those of the greedy pick that a medoid pass may have moved since.

    With L the mass-weighted mean distance to the nearest pick or covered row, ``gain_over_random`` is
    (L_random − L) / L_random: 0 for what a random choice does, 1 where every row lies on a pick.
    """

    picks: np.ndarray  # (m,) int64, rows in pick order
    gains: np.ndarray  # (m,) float64, 0 where no gain was left; without the factor
    cluster_mass: np.ndarray  # (m,) float64, Σ a_i over the rows that the pick stands for
    owner: np.ndarray  # (n,) int64, position of each row's pick; -1 without picks
    distance: np.ndarray  # (n,) float32, to it; infinite without picks
    objective: float  # Σ a_i · (reach_i − distance_i)₊, reach_i = d0_i or the distance to the nearest covered row
    random_objective: float  # the same of random choices of the budget, mean over seeded draws
    mean_distance: float  # Σ a_i · distance_i / Σ a_i; 0 without picks
    covered_distance: float  # L: the same to the nearest pick or covered row
    random_distance: float  # L of random choices
    gain_over_random: float
    report: dict[str, Any]  # the figures above and the counts, as JSON has them
    crossing: CraigResult | None = None  # with one sample more, where budget is left and no free sample fits


@dataclass(frozen=True, eq=False)
class Cell:
    """Rows to choose from, in the order (by sample_id) that settles ties, and the budget for them.

    Raises:
        ValueError: If shapes, masses, tokens, the budget, its kind or what may be picked are none of those below.
    """

    x: np.ndarray  # (n, d) float32, finite: mean token gradients, or unit directions for cosine similarity
    mass: np.ndarray  # (n,) float64, finite and >= 0
    n_tokens: np.ndarray  # (n,) int64; >= 1 under a token budget
    budget: int  # >= 0: min(budget, candidates) samples, or tokens until no free sample fits
    budget_kind: BudgetKind
    candidates: np.ndarray | None = None  # (n,) bool: rows that may be picked; None for all
    gain_factor: np.ndarray | None = None  # (n,) float64 in (0, 1]: what gains are compared by; None for 1
    covered: np.ndarray | None = None  # int64 rows that serve clients already, and are no candidates

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
        candidates, factor, covered = self.candidates, self.gain_factor, self.covered
        if candidates is not None and (candidates.shape != (n,) or candidates.dtype != bool):
            raise ValueError(f"candidates must be {n} bools, not {candidates.shape} of {candidates.dtype}")
        if factor is not None and (factor.shape != (n,) or not ((factor > 0) & (factor <= 1)).all()):
            raise ValueError(f"gain_factor must be {n} numbers above 0 and at most 1")
        if covered is not None and ((covered < 0) | (covered >= n)).any():
            raise ValueError(f"covered rows must be rows of x (0 to {n - 1}), not {covered.min()} to {covered.max()}")

    @property
    def worth(self) -> np.ndarray:
        """What the gain of each row is multiplied by, (n,) float64; 0 for rows that may not be picked."""
        worth = np.ones(len(self.x)) if self.gain_factor is None else self.gain_factor.astype(np.float64)
        if self.candidates is not None:
            worth[~self.candidates] = 0
        worth[self.already] = 0
        return worth

    @property
    def already(self) -> np.ndarray:
        """The covered rows, each once: int64, ascending."""
        return np.unique(np.empty(0, np.int64) if self.covered is None else self.covered).astype(np.int64)

    @property
    def costs(self) -> np.ndarray:
        """What each row takes of the budget, (n,) int64."""
        return np.ones(len(self.x), np.int64) if self.budget_kind == "samples" else self.n_tokens.astype(np.int64)


@same_on_any_threads
def craig(
    x: np.ndarray,
    mass: np.ndarray,
    n_tokens: np.ndarray,
    budget: int,
    budget_kind: BudgetKind = "samples",
    *,
    neighbours: int = 128,
    refine: int | None = 2,
    seed: int = 0,
    candidates: np.ndarray | None = None,
    gain_factor: np.ndarray | None = None,
    covered: np.ndarray | None = None,
) -> CraigResult:
    """Choose the coreset of one cell.

    Args:
        x: See ``Cell``; so are the next four and the last three.
        mass: Masses a.
        n_tokens: Tokens.
        budget: Samples or tokens.
        budget_kind: The unit of ``budget``.
        neighbours: K, the most neighbours of a row that are used, itself included. 1.3 · n / m or more are wanted, and
            5 · n / m are as good as all. Of many rows, only those of a shortlist count as neighbours.
        refine: Medoid passes at the end; None goes on until nothing moves, which makes it k-medoids.
        seed: Seed of the random choices of the report, and of the coarse cells where n is large.
        candidates: Rows that may be picked. The others are clients all the same.
        gain_factor: What the gain of a row is multiplied by when greedy compares it with others; where no gain is left,
            its mass · distance is. A medoid pass never moves a pick to a row of a smaller factor.
        covered: Rows replayed before. A row that is nearer to one of them than to every pick adds to no pick's gain and
            pulls no medoid; its mass still goes to its nearest pick.

    Returns:
        The coreset; empty where the budget is 0 or nothing may be picked.

    Raises:
        ValueError: If an argument is not what ``Cell`` says, or ``x`` isn't finite.
    """
    cell = Cell(x, mass, n_tokens, budget, budget_kind, candidates, gain_factor, covered)
    few = candidate_links(x, mass, cell.costs, budget, cell.worth, neighbours=neighbours, seed=seed)
    if few is None:
        graph = knn_graph(x, min(neighbours, links_wanted(len(x), budget / cell.costs.mean() if len(x) else 0)))
        return choose(cell, graph, np.arange(len(x)), graph, passes=refine, seed=seed)
    links, listed = few
    among = np.zeros(len(x), bool)
    among[listed] = True
    graph = Links(links.distances, listed.astype(np.int32)[links.indices], among)
    return choose(cell, links, listed, graph, passes=refine, seed=seed, fill=cell.worth)


#: CRAIG refined until nothing moves.
kmedoids = partial(craig, refine=None)


def choose(
    cell: Cell,
    links: Links,
    listed: np.ndarray,
    graph: Links | None,
    *,
    passes: int | None,
    seed: int,
    fill: np.ndarray | None = None,
) -> CraigResult:
    """Pick greedily, spend what is left of the budget, refine the picks, assign every row and measure the result.

    Args:
        cell: The rows and the budget.
        links: For each row its nearest of the rows listed; the last of them is at d0_i.
        listed: Rows (c,), int64, that ``links`` point into and that greedy picks from. A medoid may be any row.
        graph: The exact neighbour graph of all rows, or links to some of them (``shortlist``), or None.
        passes: Medoid passes, None for as many as change something.
        seed: Seed of the random choices.
        fill: What the rows are worth (n,) where gains have run out; None for the worth of those listed.

    Returns:
        The coreset.
    """
    x, mass, worth = cell.x, cell.mass, cell.worth
    served = medoids.assign(x, cell.already, graph).distance
    reach = np.minimum(links.distances[:, -1], served) if len(x) else served
    coverage = cover(links, mass, len(listed), reach)
    greedy = maximise(coverage, cell.costs[listed], cell.budget, worth[listed])
    free = np.zeros(len(x)) if fill is None else fill
    free[listed] = worth[listed]
    started = _fill(cell, free, listed[greedy.picks], graph)
    limits = (None, 0) if cell.budget_kind == "samples" else (cell.costs, cell.budget)
    refined = medoids.refine(
        x, mass, started, passes, graph=graph, costs=limits[0], capacity=limits[1], worth=worth, served=served
    )
    # Medoids with fewer tokens than the picks they replace may have made room for one more.
    picks = _fill(cell, free, refined.picks, graph)
    assignment = refined.assignment if len(picks) == len(started) else medoids.assign(x, picks, graph)
    clients = Clients(mass, reach.astype(np.float64), served)
    random = random_choice(x, cell.costs, cell.budget, np.flatnonzero(worth), clients, picks, assignment, graph, seed)
    counts = {
        "samples": len(x),
        "neighbours": links.indices.shape[1],
        "greedy_by": "gain per token" if greedy.per_cost else "gain",
        "refine_passes": refined.passes,
        "moved_picks": int((refined.picks != started).sum()),
    }
    found = partial(_measured, cell, clients, random, len(listed), greedy.gains, counts)
    more = _crossing(cell, free, picks, assignment, served)
    return found(picks, assignment, crossing=None if more is None else found(*more))


def _measured(
    cell: Cell,
    clients: Clients,
    random: tuple[float, float],
    listed: int,
    greedy_gains: np.ndarray,
    counts: dict[str, Any],
    picks: np.ndarray,
    assignment: medoids.Assignment,
    crossing: CraigResult | None = None,
) -> CraigResult:
    """The coreset of some picks with its figures; ``random`` are objective and distance of random choices."""
    gains = np.concatenate([greedy_gains, np.zeros(len(picks) - len(greedy_gains))])
    objective, loss = clients.measure(assignment.distance)
    figures: dict[str, Any] = {
        "objective": objective,
        "random_objective": random[0],
        "mean_distance": mean_distance(cell.mass, assignment.distance),
        "random_distance": random[1],
        "gain_over_random": (random[1] - loss) / random[1] if random[1] > 0 else 0.0,
    }
    counts = counts | {
        "picks": len(picks),
        "tokens": int(cell.n_tokens[picks].sum()),
        "neighbours_advised": min(listed, math.ceil(1.3 * listed / max(1, len(picks)))),
        "zero_gain_picks": int((gains == 0).sum()),
    }
    if len(cell.already):
        counts |= {"covered": len(cell.already), "covered_distance": loss}
    cluster_mass = np.bincount(assignment.owner, cell.mass, len(picks)) if len(picks) else np.empty(0)
    return CraigResult(
        picks,
        gains,
        cluster_mass,
        *assignment,
        **figures,
        covered_distance=loss,
        report=counts | figures,
        crossing=crossing,
    )


def _crossing(
    cell: Cell, free: np.ndarray, picks: np.ndarray, assignment: medoids.Assignment, served: np.ndarray
) -> tuple[np.ndarray, medoids.Assignment] | None:
    """Picks and assignment with one row more: of factor ``free`` (n,) above 0, the largest factor · mass · distance.

    None where the budget is used up, or no row is left.
    """
    free = free.copy()
    free[picks] = 0
    if cell.budget <= cell.costs[picks].sum() or not free.any():
        return None
    distance = np.minimum(assignment.distance, served)
    far = free * cell.mass * (distance if np.isfinite(distance).all() else 1.0)
    picks = np.append(picks, np.argmax(np.where(free > 0, far, -1.0)))
    return picks, medoids.assign_one_more(cell.x, picks, assignment)


def _fill(cell: Cell, free: np.ndarray, picks: np.ndarray, graph: Links | None) -> np.ndarray:
    """Append picks while any row of factor ``free`` (n,) above 0 fits what is left of the budget."""
    free = free.copy()
    free[picks] = 0
    left = cell.budget - int(cell.costs[picks].sum())
    if not ((free > 0) & (cell.costs <= left)).any():
        return picks
    distance = medoids.assign(cell.x, np.concatenate([picks, cell.already]), graph).distance
    return np.concatenate([picks, farthest_first(cell.x, cell.mass, distance, cell.costs, left, free)])
