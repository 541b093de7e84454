"""A shortlist of candidates for facility location, where comparing every pair of rows would cost too much.

Rows are split into cells of equal size; greedy facility location on the exact neighbour graph inside each cell picks
several times as many rows as are wanted; afterwards all rows are compared with these only. It is the two rounds of
GreeDi (Mirzasoleiman et al. 2016) with parts that keep neighbours together and one greedy over all cells at once, so
that cells share the places by gain. The work is n · (CELL_ROWS + candidates) distances and the memory that of the
links. Cells are of equal size by construction, whatever the lengths of the rows are: k-means puts most rows of
heavy-tailed lengths into one cell, and is quadratic there.

All rows are clients. Greedy on a sample of them would be cheaper, but picks serve themselves and few others then, and
much of the gain is lost on gradients of text.

Every row is compared with every candidate, by their vectors, or by codes of them where there are too many pairs; what
codes find near is compared by vectors again. Comparing the rows of a cell with only the candidates that 128 of its rows
find near was tried. Rows whose nearest candidates are missed then ask for more than they need: of the gain over random,
8 to 12 % was lost on 10,000 gradients of text and noisy copies of them, 40,000 rows in all, and 4 % on synthetic rows.
Asking 1,000 rows of each cell lost 3 to 4 %, and cost more than comparing all.
"""

from __future__ import annotations

import math

import numpy as np

from cptsel.pipeline.kernels.coverage.facility_location import cover, lazy_greedy
from cptsel.pipeline.kernels.neighbours import Links, knn_graph, nearest, nearly_nearest
from cptsel.pipeline.kernels.threads import side_by_side

#: The most rows of a cell. So many are not split, and every pair is compared.
CELL_ROWS = 4_096
#: Candidates for each pick: FEW for any budget, up to MANY while that makes no more than CANDIDATES, or a quarter of
#: the rows.
FEW, MANY, CANDIDATES = 2.5, 4, 4_096
#: So many pairs of row and candidate are compared exactly; of more, those that codes find near.
PAIRS = 1 << 31

_SAMPLE, _ROUNDS = 2_048, 6  # rows and rounds of the 2-means that finds the direction of a split
_LINKS = 16  # the least links of a row, to candidates and in a cell


def candidate_links(
    x: np.ndarray,
    mass: np.ndarray,
    costs: np.ndarray,
    capacity: int,
    worth: np.ndarray,
    *,
    neighbours: int,
    seed: int = 0,
) -> tuple[Links, np.ndarray] | None:
    """Shortlist candidates and compare all rows with them.

    Args:
        x: Rows (n, d), float32, finite.
        mass: Masses (n,), finite and >= 0.
        costs: What each row takes of the budget (n,), int64 >= 1.
        capacity: The budget.
        worth: What the gain of each row is multiplied by (n,), float64 in [0, 1]; rows of 0 are not chosen.
        neighbours: The most links of a row.
        seed: Seed of the splits.

    Returns:
        The links of all rows to the candidates, and these: rows (c,), int64, ascending. Up to ``PAIRS`` pairs the links
        are exact, beyond they may miss a candidate. None where comparing every pair of rows costs no more, or no row
        has anything to gain.
    """
    n = len(x)
    picks = min(n, capacity / costs.mean()) if n else 0
    candidates = math.ceil(max(FEW * picks, min(MANY * picks, CANDIDATES, n / 4)))
    if n <= CELL_ROWS or not picks or (n >> _halvings(n)) + candidates > n / 2:
        return None
    many = n * candidates > PAIRS
    # One and a third times as many links as rows a candidate serves are enough to find candidates by, and .55 times do.
    in_cell = min(neighbours, max(_LINKS, math.ceil((0.55 if many else 1.3) * n / candidates)))
    share = math.ceil(capacity * candidates / picks)
    listed = _shortlist(x, mass, costs, share, worth, in_cell, seed)
    if not len(listed):
        return None
    if many:
        return nearly_nearest(x, x[listed], min(neighbours, links_wanted(len(listed), picks, 1))), listed
    return nearest(x, x[listed], min(neighbours, links_wanted(len(listed), picks))), listed


def links_wanted(candidates: int, picks: float, least: int = _LINKS) -> int:
    """How many links are as good as all: five times as many as candidates a pick serves."""
    return max(least, math.ceil(5 * candidates / picks)) if picks >= 1 else max(least, candidates)


def _shortlist(
    x: np.ndarray, mass: np.ndarray, costs: np.ndarray, capacity: int, worth: np.ndarray, k: int, seed: int
) -> np.ndarray:
    """Greedy's picks on the links inside cells, ascending."""
    n = len(x)
    parts = cells(x, seed)
    k = min(k, *(len(part) for part in parts))
    links = Links(np.empty((n, k), np.float32), np.empty((n, k), np.int32))
    for rows, found in zip(parts, side_by_side(lambda rows: knn_graph(x[rows], k), parts), strict=True):
        links.distances[rows], links.indices[rows] = found.distances, rows[found.indices]
    by_cost = bool((costs != 1).any())
    return np.sort(lazy_greedy(cover(links, mass, n), costs, capacity, per_cost=by_cost, factor=worth).picks)


def cells(x: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    """Halve the rows again and again, each time across the line between two means.

    Args:
        x: Rows (n, d), float32, finite, n >= 1.
        seed: Seed of the rows that the means are taken from.

    Returns:
        Cells of at most CELL_ROWS rows, int64, ascending inside a cell; their sizes differ by one at most.
    """
    random = np.random.default_rng(seed)
    parts = [np.arange(len(x))]
    for _ in range(_halvings(len(x))):
        directions = [_direction(x[_some(rows, random)]) for rows in parts]
        halves = side_by_side(lambda part: _halve(x, *part), list(zip(parts, directions, strict=True)))
        parts = [half for two in halves for half in two]
    return [np.sort(rows) for rows in parts]


def _halvings(n: int) -> int:
    """So many that cells have CELL_ROWS at most, and up to three while they keep a quarter of that."""
    if n <= CELL_ROWS:
        return 0
    return max(math.ceil(math.log2(n / CELL_ROWS)), min(3, math.floor(math.log2(4 * n / CELL_ROWS))))


def _some(rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return rows[random.choice(len(rows), min(len(rows), _SAMPLE), replace=False)]


def _halve(x: np.ndarray, rows: np.ndarray, direction: np.ndarray) -> list[np.ndarray]:
    position = [x[block] @ direction for block in np.array_split(rows, len(rows) // CELL_ROWS + 1)]
    return np.array_split(rows[np.argsort(np.concatenate(position), kind="stable")], 2)


def _direction(sample: np.ndarray) -> np.ndarray:
    """From one to the other of two means of the sample (s, d), by Lloyd's algorithm from its first two rows."""
    a, b = sample[0], sample[1]
    for _ in range(_ROUNDS):
        nearer_b = sample @ (b - a) > (b @ b - a @ a) / 2
        if nearer_b.all() or not nearer_b.any():
            break
        a, b = sample[~nearer_b].mean(axis=0), sample[nearer_b].mean(axis=0)
    return b - a
