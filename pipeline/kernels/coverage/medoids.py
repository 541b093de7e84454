"""Clusters round picks: exact assignment of every row to its nearest pick, and medoid passes that improve the picks.

A pass assigns all rows and then lets each cluster choose the member with the least Σ a_i · d(i, member) as its pick:
Lloyd's alternation with members for means (Maranzana 1964; Park & Jun 2009). It starts from greedy's picks and stops
where the total no longer falls.

Not every row may become a pick, and what others serve better (picks of earlier rounds) should pull none: ``worth`` and
``served`` say so.
"""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

import numpy as np

from cptsel.pipeline.kernels.neighbours import Links, nearest

#: In a cluster of up to so many members each may become its medoid; in a larger one, the NEAR members nearest the mean.
EXACT_MEMBERS, NEAR = 512, 256

_BLOCK = 4_096
_OFFERED = 65_536  # rows that are copied at a time to be compared with picks
_LESS = 1 - 1e-9  # a swap must lower the cost by more than rounding, or passes could swap equals for ever
_PAIRS, _CLOSE = 4_096, 1 + 1e-4  # above so many pairs float32 rules out all but members within this of the best


class Assignment(NamedTuple):
    """Each row's nearest pick; equal distances go to the pick of the lowest row, and a pick is always its own."""

    owner: np.ndarray  # (n,) int64, position in the picks; -1 where there are no picks
    distance: np.ndarray  # (n,) float32, Euclidean; infinite where there are no picks


class Refined(NamedTuple):
    """Picks after the medoid passes: pick by pick in the old order."""

    picks: np.ndarray  # (m,) int64
    assignment: Assignment  # to these picks
    passes: int  # passes that changed something


def assign(x: np.ndarray, picks: np.ndarray, graph: Links | None = None) -> Assignment:
    """Assign every row to its nearest pick, or to the nearest that ``graph`` knows of.

    Args:
        x: Rows (n, d), float32.
        picks: Distinct rows (m,) of ``x``.
        graph: The nearest of all rows, or of some (``among``), to each row of ``x``, if they are known: the first pick
            in a row's list is then the nearest of those it lists from, and only the other picks are compared with it;
            rows that list none are compared with all picks. Without it the assignment is exact.

    Returns:
        Owners and distances of the n rows.
    """
    assignment = Assignment(np.full(len(x), -1, np.int64), np.full(len(x), np.inf, np.float32))
    if len(picks):
        _assign_rows(x, np.arange(len(x)), picks, graph, assignment)
        assignment.owner[picks], assignment.distance[picks] = np.arange(len(picks)), 0
    return assignment


def assign_one_more(x: np.ndarray, picks: np.ndarray, assignment: Assignment) -> Assignment:
    """The assignment to picks (m,), from that to all but the last of them."""
    after = Assignment(assignment.owner.copy(), assignment.distance.copy())
    _offer(x, np.arange(len(x)), picks, np.array([len(picks) - 1]), after)
    after.owner[picks], after.distance[picks] = np.arange(len(picks)), 0
    return after


def _assign_rows(x: np.ndarray, rows: np.ndarray, picks: np.ndarray, graph: Links | None, into: Assignment) -> None:
    """Assign the rows given, ascending int64, whatever they were assigned to before."""
    into.owner[rows], into.distance[rows] = -1, np.inf
    outside = np.empty(0, np.int64)
    if graph is not None:
        position = np.full(len(x), -1, np.int64)
        position[picks] = np.arange(len(picks))
        for block in np.array_split(rows, len(rows) // _BLOCK + 1):
            indices = graph.indices[block]
            listed = position[indices] >= 0
            here = np.flatnonzero(listed.any(axis=1))
            first = listed[here].argmax(axis=1)
            into.owner[block[here]] = position[indices[here, first]]
            into.distance[block[here]] = graph.distances[block[here], first]
        if graph.among is not None:
            outside = np.flatnonzero(~graph.among[picks])
    known = into.owner[rows] >= 0
    _offer(x, rows[known], picks, outside, into)
    _offer(x, rows[~known], picks, np.arange(len(picks)), into)


def _offer(x: np.ndarray, rows: np.ndarray, picks: np.ndarray, some: np.ndarray, into: Assignment) -> None:
    """Give rows to the nearest of some of the picks, by position, where it is nearer, or as near and a lower row."""
    if not len(rows) or not len(some):
        return
    some = some[np.argsort(picks[some])]
    for start in range(0, len(rows), _OFFERED):
        block = rows[start : start + _OFFERED]
        links = nearest(x[block], x[picks[some]], 1)
        offered, distance = some[links.indices[:, 0]], links.distances[:, 0]
        old, old_distance = into.owner[block], into.distance[block]
        lower = (old >= 0) & (distance == old_distance) & (picks[offered] < picks[old])
        better = (distance < old_distance) | lower
        into.owner[block[better]], into.distance[block[better]] = offered[better], distance[better]


def _reassign(
    x: np.ndarray, picks: np.ndarray, moved: np.ndarray, assignment: Assignment, graph: Links | None
) -> Assignment:
    """The assignment to ``moved``, from that to ``picks``: only what a pick that moved can change is compared again."""
    change = np.flatnonzero(moved != picks)
    lost = np.isin(assignment.owner, change)
    after = Assignment(assignment.owner.copy(), assignment.distance.copy())
    _offer(x, np.flatnonzero(~lost), moved, change, after)
    _assign_rows(x, np.flatnonzero(lost), moved, graph, after)
    after.owner[moved], after.distance[moved] = np.arange(len(moved)), 0
    return after


def refine(
    x: np.ndarray,
    mass: np.ndarray,
    picks: np.ndarray,
    passes: int | None,
    *,
    graph: Links | None = None,
    costs: np.ndarray | None = None,
    capacity: int = 0,
    worth: np.ndarray | None = None,
    served: np.ndarray | None = None,
) -> Refined:
    """Run medoid passes over picks and assign every row to what they leave.

    Args:
        x: Rows (n, d), float32.
        mass: Masses (n,), finite and >= 0.
        picks: Distinct rows (m,) of ``x``.
        passes: The most passes to make; 0 only assigns, None goes on until nothing moves.
        graph: See ``assign``.
        costs: Costs (n,), int64, where the picks together may cost at most ``capacity``; None where any swap will do.
        capacity: The budget of ``costs``.
        worth: What a row is worth as a pick (n,), 0 where it can't be one: a pick never moves to a row of less worth.
            None where all are worth the same.
        served: Distance (n,) at which each row is served whatever the picks; None where none is. Rows that are nearer
            to that than to a pick pull no medoid.

    Returns:
        Picks of a total Σ a_i · min(d(i, nearest pick), served_i) no larger than that of the picks given, and the
        assignment of all rows to them.
    """

    def total(distance: np.ndarray) -> float:
        return float(mass @ (distance if served is None else np.minimum(distance, served)))

    assignment = assign(x, picks, graph)
    changed = np.ones(len(picks), bool)  # clusters that may have another medoid than when they were last looked at
    for done in count() if passes is None else range(passes):
        pull = mass if served is None else np.where(assignment.distance < served, mass, 0.0)
        moved = _medoids(x, pull, picks, assignment.owner, changed, costs, capacity, worth)
        if np.array_equal(moved, picks):
            return Refined(picks, assignment, done)
        proposal = _reassign(x, picks, moved, assignment, graph)
        if not total(proposal.distance) < total(assignment.distance):
            return Refined(picks, assignment, done)
        if costs is None:  # else what other clusters leave of the budget counts too
            changed = moved != picks
            passed_on = proposal.owner != assignment.owner
            changed[assignment.owner[passed_on]] = changed[proposal.owner[passed_on]] = True
        picks, assignment = moved, proposal
    return Refined(picks, assignment, passes or 0)


def _medoids(
    x: np.ndarray,
    mass: np.ndarray,
    picks: np.ndarray,
    owner: np.ndarray,
    changed: np.ndarray,
    costs: np.ndarray | None,
    capacity: int,
    worth: np.ndarray | None,
) -> np.ndarray:
    """The medoid of each changed cluster; under a budget the best that it still leaves room for, in pick order."""
    if not len(picks):
        return picks
    moved = picks.copy()
    left = capacity - int(costs[picks].sum()) if costs is not None else 0
    members = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=len(picks)))
    for c, cluster in enumerate(np.split(members, ends[:-1])):
        if len(cluster) == 1 or not changed[c]:
            continue
        able = cluster if worth is None else cluster[(worth[cluster] > 0) & (worth[cluster] >= worth[picks[c]])]
        pool = _pool(x, mass, cluster, able)
        if costs is not None:
            pool = pool[costs[pool] <= costs[picks[c]] + left]
        rows, pull = x[cluster], mass[cluster]
        if len(rows) * len(pool) > _PAIRS:
            rough = _total_distances(rows, pull, x[pool], np.float32)
            pool = pool[rough <= rough.min() * _CLOSE]
        pool = np.concatenate([picks[c : c + 1], pool])
        totals = _total_distances(rows, pull, x[pool])
        best = int(np.argmin(totals))
        if totals[best] < totals[0] * _LESS:
            moved[c] = pool[best]
            left -= int(costs[moved[c]] - costs[picks[c]]) if costs is not None else 0
    return moved


def _pool(x: np.ndarray, mass: np.ndarray, cluster: np.ndarray, able: np.ndarray) -> np.ndarray:
    """The members that are tried, ascending: those able to be a pick, or in a large cluster the nearest its mean."""
    total = mass[cluster].sum()
    if len(able) <= EXACT_MEMBERS or total <= 0:
        return able[:EXACT_MEMBERS]
    mean = (mass[cluster] / total) @ x[cluster]
    near = nearest(mean[None].astype(np.float32), x[able], NEAR).indices[0]
    return able[np.sort(near)]


def _total_distances(
    rows: np.ndarray, mass: np.ndarray, pool: np.ndarray, dtype: type[np.floating] = np.float64
) -> np.ndarray:
    """Σ_i a_i · d(i, p) for each p: ``rows`` (s, d), ``mass`` (s,), ``pool`` (p, d); float64 keeps enough digits."""
    centre = rows.mean(axis=0, dtype=np.float64).astype(dtype)
    pool = pool - centre
    lengths = np.einsum("ij,ij->i", pool, pool)
    totals = np.zeros(len(pool))
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK] - centre
        squares = np.einsum("ij,ij->i", block, block)[:, None] + lengths - 2 * (block @ pool.T)
        totals += mass[start : start + _BLOCK].astype(dtype) @ np.sqrt(np.maximum(squares, 0))
    return totals
