"""Nearest neighbours by Euclidean distance: the graph that facility location runs on, and links between two sets.

FAISS does the scanning. What it leaves open is closed here, because a selection must not hang on it: rows are centred
first, as ``‖x‖² − 2⟨x, y⟩ + ‖y‖²`` loses its digits where norms are large against distances; distances that still lost
them are computed again from the difference; equal rows are found by their bytes, not by a distance that rounds to 0;
and ties go to the lower index. No n × n array is ever made. The work is quadratic all the same: ``shortlist`` is for
sets where that is too much.

``nearly_nearest`` compares by short codes first and exactly afterwards (product quantisation, Jégou et al. 2011;
scanned in registers, André et al. 2015). It may miss a row, but the distances that it gives are true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cptsel.pipeline.kernels.threads import side_by_side

if TYPE_CHECKING:
    import faiss

_BLOCK = 8_192  # rows scanned at a time: bounds FAISS's int64 answer, not its speed
_CODES, _CODE_DIMS = 16, 4  # a code of 4 bits stands for so many numbers
_SHELLS, _CHECKED = 4, 2  # parts of the base by length; rows that each has checked for a link
_LONGEST = 16  # the longest of so many rows have no codes
_ROUNDING = 1e-5  # lengths are off by less than this share of them
_LOST_DIGITS = 0.01  # d² below this share of ‖x‖² + ‖y‖² is computed again: BLAS is off by about 1e-7 of that sum


class Links(NamedTuple):
    """The K nearest rows of each of n rows, nearest first, equal distances by index."""

    distances: np.ndarray  # (n, K) float32, Euclidean, finite and >= 0
    indices: np.ndarray  # (n, K) int32
    among: np.ndarray | None = None  # (base rows,) bool: the rows they are nearest of; None for all


class Classes(NamedTuple):
    """Rows grouped by equality; classes are numbered by their lowest row."""

    first: np.ndarray  # (u,) int64, lowest row of each class, ascending
    of_row: np.ndarray  # (n,) int64, class of each row
    members: np.ndarray  # (n,) int64, rows class by class, ascending inside a class
    starts: np.ndarray  # (u + 1,) int64, where each class begins in ``members``


def knn_graph(x: np.ndarray, k: int) -> Links:
    """Find the k nearest rows of every row of one set, the row itself included, comparing every pair.

    Args:
        x: Rows (n, d), float32, finite.
        k: Neighbours asked for; K = min(k, n) are given. Of more than K equal rows each has the K lowest as neighbours.

    Returns:
        Links of n rows to rows of the same set.

    Raises:
        ValueError: If ``x`` is not a finite matrix, or ``k`` is below 1.
    """
    x = _centred(x)
    n = len(x)
    k = _checked_k(k, n)
    if n == 0:
        return Links(np.empty((0, 0), np.float32), np.empty((0, 0), np.int32))
    classes = equal_rows(x)
    if len(classes.first) == n:
        return _scan(x, x, k)
    distinct = x[classes.first]
    links = _expand(_scan(distinct, distinct, min(k, len(distinct))), classes, k)
    return Links(links.distances[classes.of_row], links.indices[classes.of_row])


def nearest(queries: np.ndarray, base: np.ndarray, k: int) -> Links:
    """Find the k rows of ``base`` nearest to each query, comparing every pair.

    Args:
        queries: Rows (n, d), float32, finite.
        base: Rows (b, d), float32, finite, b >= 1.
        k: Rows asked for; K = min(k, b) are given.

    Returns:
        Links of n queries to rows of ``base``; equal distances by index.

    Raises:
        ValueError: If either is not a finite matrix, their widths differ, ``base`` is empty or ``k`` is below 1.
    """
    _check(queries, base, k)
    centre = base.mean(axis=0, dtype=np.float64).astype(np.float32)
    base = _centred(base, centre)
    k = min(k, len(base))
    classes = equal_rows(base)
    if len(classes.first) == len(base):
        return _scan(queries, base, k, centre)
    return _expand(_scan(queries, base[classes.first], min(k, len(classes.first)), centre), classes, k)


def nearly_nearest(queries: np.ndarray, base: np.ndarray, k: int) -> Links:
    """Find rows of ``base`` near each query: those that codes find near, compared exactly.

    Codes that suit long rows tell short ones badly apart. So the base is cut into shells by length, each with codes of
    its own, and every shell brings rows to be checked. The few longest, whose lengths may be anything, have no codes
    and are all compared. A shell whose lengths say that it holds nothing nearer than what was found is passed over.

    Args:
        queries: Rows (n, d), float32, finite.
        base: Rows (b, d), float32, finite, b >= 1.
        k: Rows asked for; K = min(k, b) are given.

    Returns:
        Links of n queries to distinct rows of ``base`` with their true distances; equal distances by index.

    Raises:
        ValueError: As ``nearest``.
    """
    if base.ndim != 2 or len(base) <= _LONGEST * max(k, _CODES):  # not worth codes
        return nearest(queries, base, k)
    _check(queries, base, k)
    centre = base.mean(axis=0, dtype=np.float64).astype(np.float32)
    base = _padded(_centred(base, centre))
    by_length = np.argsort(np.einsum("ij,ij->i", base, base), kind="stable")
    cuts = [len(base) * i // _SHELLS for i in range(1, _SHELLS)]
    *coded, longest = np.split(by_length, [*cuts, len(base) - len(base) // _LONGEST])
    shells = list(side_by_side(lambda rows: _Shell(base, rows, coded=rows is not longest), (*coded, longest)))
    links = Links(np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int32))

    def search(start: int) -> None:
        block = slice(start, start + _BLOCK)
        squares, links.indices[block] = _search_shells(shells, _padded(_centred(queries[block], centre, start)), k)
        links.distances[block] = np.sqrt(squares)

    for _ in side_by_side(search, range(0, len(queries), _BLOCK)):
        pass
    return _sorted(links)


def equal_rows(x: np.ndarray) -> Classes:
    """Group equal rows of ``x`` (n, d), n >= 1, float32, by their bytes."""
    n = len(x)
    first, of_row = _classes_by_key(_row_hashes(x))
    if len(first) < n and not all(
        np.array_equal(x[rows], x[first[of_row[rows]]]) for rows in np.array_split(np.arange(n), n // _BLOCK + 1)
    ):  # two different rows of one hash: compare whole rows
        rows = np.ascontiguousarray(x + np.float32(0))
        first, of_row = _classes_by_key(rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(n))
    starts = np.concatenate([[0], np.cumsum(np.bincount(of_row, minlength=len(first)))])
    return Classes(first, of_row, np.argsort(of_row, kind="stable"), starts)


def _row_hashes(x: np.ndarray) -> np.ndarray:
    """Σ_j r_j · bits_j modulo 2⁶⁴ of each row, (n,) uint64, for odd random r; equal rows have equal hashes."""
    factors = np.random.default_rng(0).integers(1 << 63, size=x.shape[1], dtype=np.uint64) * 2 + 1
    hashes = np.empty(len(x), np.uint64)
    for start in range(0, len(x), 256):
        rows = np.ascontiguousarray(x[start : start + 256] + np.float32(0), np.float32)  # turns -0.0 into 0.0
        hashes[start : start + 256] = rows.view(np.uint32) @ factors
    return hashes


def _classes_by_key(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest row of each distinct key, ascending, and the position there of each row's key."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.sort(first), rank[inverse.reshape(len(keys))]


def _centred(x: np.ndarray, centre: np.ndarray | None = None, first: int = 0) -> np.ndarray:
    """``x`` less a centre, by default its mean; ``first`` is what its first row is called where one isn't finite."""
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(f"rows must be a matrix (n, d) with d >= 1, not of shape {x.shape}")
    if centre is None:
        centre = x.mean(axis=0, dtype=np.float64) if len(x) else np.zeros(x.shape[1])
    x = np.ascontiguousarray(x, np.float32) - centre.astype(np.float32)
    if not np.isfinite(x).all():
        raise ValueError(f"row {first + int(np.argmin(np.isfinite(x).all(axis=1)))} holds a value that is not finite")
    return x


def _check(queries: np.ndarray, base: np.ndarray, k: int) -> None:
    if queries.ndim != 2 or base.ndim != 2 or queries.shape[1] != base.shape[1] or not len(base):
        raise ValueError(f"queries {queries.shape} and base {base.shape} must be matrices of one width, base not empty")
    _checked_k(k, len(base))


def _padded(x: np.ndarray) -> np.ndarray:
    """``x`` with columns of 0 up to whole codes."""
    return np.pad(x, ((0, 0), (0, -x.shape[1] % _CODE_DIMS))) if x.shape[1] % _CODE_DIMS else x


class _Shell:
    """Rows of a centred base whose lengths are from ``low`` to ``high``, with their index."""

    def __init__(self, base: np.ndarray, rows: np.ndarray, coded: bool):
        lengths = _lengths(base[rows])
        self.low, self.high = lengths.min(), lengths.max()
        self.rows = rows
        self.index = _index(base[rows], coded)

    def search(self, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Squares and base rows, both (q, k), of what is near to each of ``x`` (q, d)."""
        squares, places = self.index.search(np.ascontiguousarray(x), k)
        return squares, self.rows[places]


def _search_shells(shells: list[_Shell], x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest that the shells find to each of ``x`` (q, d): squares and base rows, (q, k), in any order.

    Lengths differ by no more than rows are apart. So each query looks first where lengths are like its own, and into
    another shell only if that may hold a row nearer than the k found so far.
    """
    lengths = _lengths(x)
    low, high = np.array([shell.low for shell in shells]), np.array([shell.high for shell in shells])
    gaps = np.maximum(np.maximum(low - lengths[:, None], lengths[:, None] - high), 0)
    home = gaps.argmin(axis=1)
    gaps -= _ROUNDING * (lengths[:, None] + high)
    squares, indices = np.empty((len(x), k), np.float32), np.empty((len(x), k), np.int64)
    for number, shell in enumerate(shells):
        here = np.flatnonzero(home == number)
        squares[here], indices[here] = shell.search(x[here], k)
    for number, shell in enumerate(shells):
        near = np.flatnonzero((home != number) & (gaps[:, number] <= np.sqrt(squares.max(axis=1))))
        more, of_more = shell.search(x[near], k)
        both, rows = np.hstack([squares[near], more]), np.hstack([indices[near], of_more])
        best = np.argpartition(both, k - 1, axis=1)[:, :k]
        squares[near], indices[near] = np.take_along_axis(both, best, axis=1), np.take_along_axis(rows, best, axis=1)
    return squares, indices


def _lengths(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("ij,ij->i", x, x))


def _index(x: np.ndarray, coded: bool) -> faiss.IndexRefineFlat:
    """The rows (r, d), d a multiple of ``_CODE_DIMS``; codes are trained on them by seeded k-means.

    A search compares codes or rows and once more, by differences, the nearest of these.
    """
    import faiss  # here, as commands that look something up take longer to load it than to answer

    rough: faiss.Index = faiss.IndexFlatL2(x.shape[1])
    if coded:
        rough = codes = faiss.IndexPQFastScan(x.shape[1], x.shape[1] // _CODE_DIMS, 4)
        codes.pq.cp.niter, codes.pq.cp.min_points_per_centroid = 10, 1
    index = faiss.IndexRefineFlat(rough)
    index.k_factor = _CHECKED if coded else 1
    index.train(x)
    index.add(x)
    return index


def _checked_k(k: int, rows: int) -> int:
    if k < 1:
        raise ValueError(f"neighbours must be at least 1, not {k}")
    return min(k, rows)


def _scan(queries: np.ndarray, base: np.ndarray, k: int, centre: np.ndarray | None = None) -> Links:
    """Compare every query with every row of ``base``, which is centred and without equal rows.

    Queries are centred already, or are from ``centre``, block by block: a centred copy of all would be as large as x.
    """
    import faiss  # here, as commands that look something up take longer to load it than to answer

    links = Links(np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int32))
    lengths = np.einsum("ij,ij->i", base, base)

    def scan(start: int) -> None:
        rows = queries[start : start + _BLOCK]
        if centre is not None:
            rows = _centred(rows, centre, start)
        squares, found = faiss.knn(rows, base, k)
        scale = np.einsum("ij,ij->i", rows, rows)[:, None] + lengths[found]
        at_row, at_link = np.nonzero(squares <= _LOST_DIGITS * scale)
        for part in np.array_split(np.arange(len(at_row)), len(at_row) // _BLOCK + 1):
            r, c = at_row[part], at_link[part]
            gap = rows[r] - base[found[r, c]]
            squares[r, c] = np.einsum("ij,ij->i", gap, gap)
        block = slice(start, start + len(rows))
        links.distances[block] = np.sqrt(np.maximum(squares, 0))
        links.indices[block] = found

    for _ in side_by_side(scan, range(0, len(queries), _BLOCK)):
        pass
    return _sorted(links)


def _sorted(links: Links) -> Links:
    """Bring rows that recomputed distances or ties left out of (distance, index) order into it, in place."""
    distances, indices = links.distances, links.indices
    falls = distances[:, 1:] < distances[:, :-1]
    ties = (distances[:, 1:] == distances[:, :-1]) & (indices[:, 1:] < indices[:, :-1])
    rows = np.flatnonzero((falls | ties).any(axis=1))
    order = np.lexsort((indices[rows], distances[rows]), axis=-1)
    distances[rows] = np.take_along_axis(distances[rows], order, axis=1)
    indices[rows] = np.take_along_axis(indices[rows], order, axis=1)
    return links


def _expand(links: Links, classes: Classes, k: int) -> Links:
    """Turn links to classes of equal rows into k links to rows: a class counts once for each of its rows."""
    out = Links(np.empty((len(links.indices), k), np.float32), np.empty((len(links.indices), k), np.int32))
    sizes = np.diff(classes.starts)
    for start in range(0, len(links.indices), _BLOCK):
        found, distances = links.indices[start : start + _BLOCK], links.distances[start : start + _BLOCK]
        ends = np.minimum(np.cumsum(sizes[found], axis=1), k)
        taken = np.diff(ends, axis=1, prepend=0)  # of each class as many rows as still have a place, k in all
        begins = np.repeat((ends - taken).ravel(), taken.ravel()).reshape(-1, k)
        classes_at = np.repeat(found.ravel(), taken.ravel()).reshape(-1, k)
        out.indices[start : start + _BLOCK] = classes.members[classes.starts[classes_at] + np.arange(k) - begins]
        out.distances[start : start + _BLOCK] = np.repeat(distances.ravel(), taken.ravel()).reshape(-1, k)
    return _sorted(out)
