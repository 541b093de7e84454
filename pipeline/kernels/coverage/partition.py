"""Partitions of samples that lie near each other, for a choice that is made in parts and merged.

A choice made among rows that lie near each other is close to what would be chosen among all, while a random part sees a
thinned picture of everything. Plain k-means gives cells of very unequal size where rows are heavy-tailed: most rows in
one cell, an outlier in the next. So rows are first cut into many more cells than there are partitions, and cells that
are large all the same are cut at the median of their longest axis. The cells are then packed: halved, again and again,
along the line between the means of the two halves, so that either side has its share of the rows (a balanced
two-means). What is fixed is small, centroids and their partitions, and any worker
can route any row by them alone.
"""

from __future__ import annotations

from typing import NamedTuple

import faiss
import numpy as np

from cptsel.pipeline.kernels.neighbours import equal_rows, nearest

#: Cells that a partition is packed from, and how many training rows a cell should have where there are more than FEW
#: cells: routing and training cost as much as there are cells.
CELLS, ROWS_A_CELL, FEW = 32, 16, 1_024

_LARGE = 4  # a cell of more than a partition's rows / _LARGE is large
_ITERATIONS = 10  # of the k-means, and at most of cutting large cells and of each halving
_BLOCK = 65_536


class Partitions(NamedTuple):
    """What rows are routed by."""

    centroids: np.ndarray  # (c, d) float32, distinct
    partition: np.ndarray  # (c,) int32, of each centroid; every number from 0 to the largest is there


def train_centroids(sample: np.ndarray, partitions: int, seed: int) -> Partitions:
    """Train what routes rows into partitions of about equal size.

    Args:
        sample: Rows (s, d), float32, finite, s >= 1, drawn uniformly from all, in an order that doesn't change (by
            sample_id). Rows of unit length give cells of directions.
        partitions: How many partitions to make, >= 1.
        seed: Seed of the k-means.

    Returns:
        Centroids and their partitions: fewer than asked for where the sample has fewer distinct rows. A partition can
        be larger than others by a cell, so by any number where more rows are equal than it should hold.

    Raises:
        ValueError: If ``sample`` is not a finite matrix with a row, or ``partitions`` is below 1.
    """
    if partitions < 1 or sample.ndim != 2 or not len(sample) or not np.isfinite(sample).all():
        raise ValueError(f"centroids need a finite sample (s, d) and a partition, not {sample.shape} and {partitions}")
    sample = np.ascontiguousarray(sample, np.float32)
    distinct = sample[equal_rows(sample).first]
    cells = min(CELLS * partitions, max(partitions, FEW, len(distinct) // ROWS_A_CELL), len(distinct))
    centroids = distinct if cells == len(distinct) else _k_means(sample, cells, seed)
    centroids, rows = _cut_large(sample, centroids, len(sample) / (_LARGE * partitions))
    partition = np.empty(len(centroids), np.int32)
    _halve(centroids, rows, np.arange(len(centroids)), min(partitions, len(centroids)), 0, partition)
    return Partitions(centroids, partition)


def route(x: np.ndarray, partitions: Partitions) -> np.ndarray:
    """The partition of each row's nearest centroid, the lower of two as near.

    Args:
        x: Rows (n, d), float32, finite.
        partitions: As trained.

    Returns:
        Partitions (n,), int32.

    Raises:
        ValueError: If ``x`` is not finite or of another width than the centroids.
    """
    routed = np.empty(len(x), np.int32)
    for start in range(0, len(x), _BLOCK):
        links = nearest(x[start : start + _BLOCK], partitions.centroids, 1)
        routed[start : start + _BLOCK] = partitions.partition[links.indices[:, 0]]
    return routed


def _k_means(sample: np.ndarray, cells: int, seed: int) -> np.ndarray:
    """Distinct centroids (c <= cells, d) of seeded k-means."""
    means = faiss.Kmeans(
        sample.shape[1], cells, niter=_ITERATIONS, seed=seed, min_points_per_centroid=1, max_points_per_centroid=256
    )
    means.train(sample)
    centroids = np.asarray(means.centroids, np.float32)
    return centroids[equal_rows(centroids).first]


def _cut_large(sample: np.ndarray, centroids: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Put two centroids in the place of each that is nearest to more than ``limit`` rows of the sample, and again.

    Rows move between cells as centroids do, so the limit may be missed; equal rows are never parted.

    Returns:
        Distinct centroids (c, d), and how many rows of the sample (c,) each is nearest to.
    """
    for cut in range(_ITERATIONS + 1):
        cell = nearest(sample, centroids, 1).indices[:, 0]
        rows = np.bincount(cell, minlength=len(centroids))
        halves = []
        for c in np.flatnonzero(rows > limit) if cut < _ITERATIONS else ():
            own = sample[cell == c].astype(np.float64)
            position = _along_longest_axis(own - own.mean(axis=0))
            above = position > np.median(position)
            if above.any():
                centroids[c] = own[~above].mean(axis=0)
                halves.append(own[above].mean(axis=0).astype(np.float32))
        if not halves:
            break
        centroids = np.concatenate([centroids, halves])
        centroids = centroids[equal_rows(centroids).first]
    return centroids, rows


def _along_longest_axis(gap: np.ndarray) -> np.ndarray:
    """Positions of centred rows (n, d) along about their first principal axis, by power iteration from the longest."""
    axis = gap[np.argmax(np.einsum("ij,ij->i", gap, gap))]
    for _ in range(_ITERATIONS):
        axis = gap.T @ (gap @ axis)
        if not axis.any():
            break
        axis /= np.linalg.norm(axis)
    return gap @ axis


def _halve(
    centroids: np.ndarray, rows: np.ndarray, cells: np.ndarray, partitions: int, first: int, partition: np.ndarray
) -> None:
    """Pack ``cells`` into ``partitions`` numbered from ``first``, writing their numbers into ``partition``."""
    if partitions == 1:
        partition[cells] = first
        return
    lower = partitions // 2
    x = centroids[cells].astype(np.float64)
    weight = rows[cells] + 1e-9  # a cell without a training row counts too where no other has one
    x -= weight @ x / weight.sum()
    direction = np.linalg.svd(np.sqrt(weight)[:, None] * x, full_matrices=False)[2][0]
    direction *= np.sign(direction[np.argmax(np.abs(direction))])
    below = np.empty(0, np.int64)
    for _ in range(_ITERATIONS):
        order = np.argsort(x @ direction, kind="stable")
        share = np.cumsum(weight[order]) / weight.sum()
        cut = int(np.argmin(np.abs(share - lower / partitions))) + 1
        cut = min(max(cut, lower), len(cells) - (partitions - lower))  # no partition without a cell
        if np.array_equal(below, before := np.sort(order[:cut])):
            break
        below, above = before, np.sort(order[cut:])
        gap = weight[above] @ x[above] / weight[above].sum() - weight[below] @ x[below] / weight[below].sum()
        if not gap.any():
            break
        direction = gap
    above = np.setdiff1d(np.arange(len(cells)), below)
    _halve(centroids, rows, cells[below], lower, first, partition)
    _halve(centroids, rows, cells[above], partitions - lower, first + lower, partition)
