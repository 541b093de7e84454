"""Facility location on a sparse graph: max over S of Σ_i a_i · max_{j∈S} (d0_i − d(i, j))₊, by lazy greedy.

Client i, of mass a_i, is served by the nearest pick among its K linked candidates; d0_i, the distance to the K-th, is
where a pick begins to be worth anything to it. A candidate's gain is summed over the clients that *list it*, so the
links are transposed first: the rows a candidate itself lists are other rows, as neighbourhood isn't mutual.

Gains only fall as picks are added. The terms are rounded one by one and summed in an order that never changes, so this
holds for the computed numbers as well, and lazy evaluation (Minoux 1978) gives the very picks of the naive greedy.

What was chosen before serves clients too. What S adds to C is Σ_i a_i · max_{j∈S} (min(d0_i, d(i, C)) − d(i, j))₊:
the same function, with each client's d0 drawn in to where C serves it. A factor on a candidate's gain makes greedy
prefer others to it, and leaves the gain itself alone.
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
    gains: np.ndarray  # (m,) float64, what each added to the objective when it was made, whatever its factor
    per_cost: bool  # whether gain per cost chose them, and not gain alone


def cover(links: Links, mass: np.ndarray, candidates: int, reach: np.ndarray | None = None) -> Coverage:
    """Transpose client links into what every candidate can do.

    Args:
        links: For each of n clients its K nearest candidates, nearest first.
        mass: Masses (n,), finite and >= 0.
        candidates: The number of candidates that ``links.indices`` point into.
        reach: Distance (n,), float32, at which a pick begins to be worth anything to each client; by default that of
            its last link.

    Returns:
        The entries above 0: neither a client's link at its reach nor a client without mass has any.
    """
    n, k = links.indices.shape
    if reach is None:
        reach = links.distances[:, -1] if k else np.zeros(n, np.float32)
    values = reach[:, None] - links.distances
    values *= mass.astype(np.float32)[:, None]
    entries = np.flatnonzero(values > 0).astype(np.int32 if values.size < 2**31 else np.int64)
    listed = links.indices.reshape(-1)[entries]
    starts = np.concatenate([[0], np.cumsum(np.bincount(listed, minlength=candidates))])
    order = np.argsort(listed, kind="stable")
    del listed
    entries = entries[order]
    del order  # the largest array by far, of no use any more
    return Coverage(starts, (entries // max(k, 1)).astype(np.int32), values.reshape(-1)[entries], n)


def maximise(coverage: Coverage, costs: np.ndarray, capacity: int, factor: np.ndarray | None = None) -> Greedy:
    """Pick candidates greedily while any that fits the budget adds to the objective.

    Args:
        coverage: Transposed links of the clients.
        costs: Cost of each candidate (candidates,), int64 >= 1.
        capacity: Budget, in the unit of the costs.
        factor: What each candidate's gain is multiplied by (candidates,), float64 in [0, 1], when candidates are
            compared; one of factor 0 is never picked. None where all are 1.

    Returns:
        For unit costs the greedy picks; else the better by Σ factor · gain of greedy by gain per cost and plain greedy
        (Lin & Bilmes 2010; Leskovec et al. 2007), each of which passes over what no longer fits.
    """
    plain = lazy_greedy(coverage, costs, capacity, per_cost=False, factor=factor)
    if (costs == 1).all():
        return plain
    by_cost = lazy_greedy(coverage, costs, capacity, per_cost=True, factor=factor)
    worth = [(g.gains if factor is None else factor[g.picks] * g.gains).sum() for g in (by_cost, plain)]
    return by_cost if worth[0] >= worth[1] else plain


def lazy_greedy(
    coverage: Coverage, costs: np.ndarray, capacity: int, *, per_cost: bool, factor: np.ndarray | None = None
) -> Greedy:
    """Pick the candidate of the largest factor · gain (per cost), again and again, until none that fits has any.

    Ties go to the lower index. A key is a non-decreasing function of the gain in floating point too, so that an old key
    stays an upper bound.
    """
    starts, clients, values, n_clients = coverage
    best = np.zeros(n_clients, np.float32)  # what each client has from the picks so far
    ends = starts.tolist()
    price = costs.tolist()
    divisor = price if per_cost else [1] * len(price)
    multiplier = [1.0] * len(price) if factor is None else factor.tolist()

    def gain(j: int) -> float:
        listed = slice(ends[j], ends[j + 1])
        more = values[listed] - best[clients[listed]]
        return float(np.maximum(more, 0, out=more).sum(dtype=np.float64))

    def key(j: int) -> float:
        return gain(j) * multiplier[j] / divisor[j]

    # (−key, candidate, number of picks when the key was computed): an old key is an upper bound, a current one is true.
    # The first are sums made in one sweep, a little enlarged, as rounding could make them too small in that order.
    bounds = (_sums(coverage) * (1 + 1e-9)).tolist()
    heap = [(-b * multiplier[j] / divisor[j], j, -1) for j, b in enumerate(bounds) if b > 0 and multiplier[j] > 0]
    heapq.heapify(heap)
    picks: list[int] = []
    gains: list[float] = []
    cheapest = min(price, default=1)
    while heap and capacity >= cheapest:
        _, j, seen = heap[0]
        if price[j] > capacity:
            heapq.heappop(heap)
        elif seen < len(picks):
            k = key(j)
            if k > 0:
                heapq.heapreplace(heap, (-k, j, len(picks)))
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


def _sums(coverage: Coverage) -> np.ndarray:
    """Σ of each candidate's entries, (candidates,) float64."""
    filled = np.flatnonzero(np.diff(coverage.starts))
    sums = np.zeros(len(coverage.starts) - 1)
    if len(filled):
        sums[filled] = np.add.reduceat(coverage.values, coverage.starts[filled], dtype=np.float64)
    return sums


def farthest_first(
    x: np.ndarray, mass: np.ndarray, distance: np.ndarray, costs: np.ndarray, capacity: int, factor: np.ndarray
) -> np.ndarray:
    """Go on where no gain is left: pick the largest factor · mass · distance to the picks, while any that is free fits.

    Args:
        x: Rows (n, d), float32.
        mass: Masses (n,).
        distance: Distance (n,) of each row to what is picked already; all infinite where nothing is, and then the row
            of the largest factor · mass is first.
        costs: Costs (n,), int64 >= 1.
        capacity: What is left of the budget.
        factor: What a row counts (n,), float64 or bool; 0 for rows that are not free.

    Returns:
        Picks (m,), int64, in order. Ties go to the lower index. Once every row that is left lies on a pick, the rest
        follows by index, the largest factors first, rows without mass last.
    """
    factor = factor.astype(np.float64)
    started = bool(np.isfinite(distance).all())
    picks: list[int] = []
    while len(fits := np.flatnonzero((factor > 0) & (costs <= capacity))):
        far = factor[fits] * (mass[fits] * distance[fits] if started else mass[fits])
        j = int(fits[np.argmax(far)])
        if far.max() <= 0:
            for j in fits[np.lexsort((-factor[fits], mass[fits] == 0))].tolist():
                if costs[j] <= capacity:
                    picks.append(j)
                    capacity -= int(costs[j])
            break
        gap = x - x[j]
        distance = np.minimum(distance, np.sqrt(np.einsum("ij,ij->i", gap, gap)))
        started = True
        picks.append(j)
        factor[j] = 0
        capacity -= int(costs[j])
    return np.array(picks, np.int64)
