"""Facility location on a sparse graph: max over S of Σ_i a_i · max_{j∈S} (d0_i − d(i, j))₊, by lazy greedy.

Client i, of mass a_i, is served by the nearest pick among its K linked candidates; d0_i, the distance to the K-th, is
where a pick begins to be worth anything to it. A candidate's gain is summed over the clients that *list it*, so the
links are transposed first: the rows a candidate itself lists are other rows, as neighbourhood isn't mutual.

Gains only fall as picks are added. The terms are rounded one by one and summed in an order that never changes, so this
holds for the computed numbers as well, and lazy evaluation (Minoux 1978) gives the very picks of the naive greedy.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np

from cptsel.pipeline.kernels.neighbours import Links


class Coverage(NamedTuple):
    """What each candidate can do for the clients that list it, as rows of a compressed sparse matrix."""

    starts: np.ndarray  # (candidates + 1,) int64
    clients: np.ndarray  # (entries,) int32, ascending for each candidate
    values: np.ndarray  # (entries,) float32, a_i · (d0_i − d(i, j)) > 0
    n_clients: int


class Greedy(NamedTuple):
    """Picks in the order they were made."""

    picks: np.ndarray  # (m,) int64, candidates
    gains: np.ndarray  # (m,) float64, what each added to the objective when it was made
    per_cost: bool  # whether gain per cost chose them, and not gain alone


def cover(links: Links, mass: np.ndarray, candidates: int) -> Coverage:
    """Transpose client links into what every candidate can do.

    Args:
        links: For each of n clients its K nearest candidates, nearest first.
        mass: Masses (n,), finite and >= 0.
        candidates: The number of candidates that ``links.indices`` point into.

    Returns:
        The entries above 0: neither a client's last link nor a client without mass has any.
    """
    n, k = links.indices.shape
    values = links.distances[:, -1:] - links.distances if k else np.empty((n, 0), np.float32)
    values *= mass.astype(np.float32)[:, None]
    entries = np.flatnonzero(values > 0)
    listed = links.indices.reshape(-1)[entries]
    starts = np.concatenate([[0], np.cumsum(np.bincount(listed, minlength=candidates))])
    entries = entries[np.argsort(listed, kind="stable")]
    return Coverage(starts, (entries // max(k, 1)).astype(np.int32), values.reshape(-1)[entries], n)


def maximise(coverage: Coverage, costs: np.ndarray, capacity: int) -> Greedy:
    """Pick candidates greedily while any that fits the budget adds to the objective.

    Args:
        coverage: Transposed links of the clients.
        costs: Cost of each candidate (candidates,), int64 >= 1.
        capacity: Budget, in the unit of the costs.

    Returns:
        For unit costs the greedy picks; else the better by objective of greedy by gain per cost and plain greedy
        (Lin & Bilmes 2010; Leskovec et al. 2007), each of which passes over what no longer fits.
    """
    plain = lazy_greedy(coverage, costs, capacity, per_cost=False)
    if (costs == 1).all():
        return plain
    by_cost = lazy_greedy(coverage, costs, capacity, per_cost=True)
    return by_cost if by_cost.gains.sum() >= plain.gains.sum() else plain


def lazy_greedy(coverage: Coverage, costs: np.ndarray, capacity: int, *, per_cost: bool) -> Greedy:
    """Pick the candidate of the largest gain (per cost), then again, until none that fits has any; ties by index."""
    starts, clients, values, n_clients = coverage
    best = np.zeros(n_clients, np.float32)  # what each client has from the picks so far
    ends = starts.tolist()
    price = costs.tolist()

    def gain(j: int) -> float:
        listed = slice(ends[j], ends[j + 1])
        more = values[listed] - best[clients[listed]]
        return float(np.maximum(more, 0, out=more).sum(dtype=np.float64))

    # (−key, candidate, number of picks when the key was computed): an old key is an upper bound, a current one is true.
    heap = [(-g / (price[j] if per_cost else 1), j, 0) for j in range(len(price)) if (g := gain(j)) > 0]
    heapq.heapify(heap)
    picks: list[int] = []
    gains: list[float] = []
    cheapest = min(price, default=1)
    while heap and capacity >= cheapest:
        _, j, seen = heap[0]
        if price[j] > capacity:
            heapq.heappop(heap)
        elif seen < len(picks):
            g = gain(j)
            if g > 0:
                heapq.heapreplace(heap, (-g / (price[j] if per_cost else 1), j, len(picks)))
            else:
                heapq.heappop(heap)
        else:
            heapq.heappop(heap)
            picks.append(j)
            gains.append(gain(j))
            capacity -= price[j]
            listed = slice(ends[j], ends[j + 1])
            best[clients[listed]] = np.maximum(best[clients[listed]], values[listed])
    return Greedy(np.array(picks, np.int64), np.array(gains, np.float64), per_cost)


def farthest_first(
    x: np.ndarray, mass: np.ndarray, distance: np.ndarray, costs: np.ndarray, capacity: int, free: np.ndarray
) -> np.ndarray:
    """Go on where no gain is left: pick the largest mass · distance to the picks, until nothing that fits is free.

    Args:
        x: Rows (n, d), float32.
        mass: Masses (n,).
        distance: Distance (n,) of each row to its nearest pick; all infinite where there is none yet, and then the row
            of the largest mass is first.
        costs: Costs (n,), int64 >= 1.
        capacity: What is left of the budget.
        free: Rows (n,), bool, that may be picked.

    Returns:
        Picks (m,), int64, in order. Ties go to the lower index. Once every row that is left lies on a pick, the rest
        follows by index, rows without mass last.
    """
    free = free.copy()
    started = bool(np.isfinite(distance).all())
    picks: list[int] = []
    while len(fits := np.flatnonzero(free & (costs <= capacity))):
        far = mass[fits] * distance[fits] if started else mass[fits]
        j = int(fits[np.argmax(far)])
        if far.max() <= 0:
            for j in fits[np.argsort(mass[fits] == 0, kind="stable")].tolist():
                if costs[j] <= capacity:
                    picks.append(j)
                    capacity -= int(costs[j])
            break
        gap = x - x[j]
        distance = np.minimum(distance, np.sqrt(np.einsum("ij,ij->i", gap, gap)))
        started = True
        picks.append(j)
        free[j] = False
        capacity -= int(costs[j])
    return np.array(picks, np.int64)
