"""Parts of a cell for matching: clusters of like gradients, nested from fine to coarse, and their shares of a budget.

A sketch of k numbers carries about k/2 weights that mean anything. A larger budget is therefore matched part by part:
every part has a target and a sketch to itself, so that few atoms meet the k numbers, and like gradients, which leave
little of themselves outside what their own kind can match, stand together.
"""

from __future__ import annotations

import numpy as np

from cptsel.pipeline.kernels.neighbours import nearest

_ITERATIONS, _POINTS = 6, 32  # of k-means, and rows a centroid it is trained on: parts need not be the best clusters


def cluster(g: np.ndarray, parts: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clusters of the rows' directions.

    Args:
        g: Rows (n, k), float32; their order settles which of them k-means starts from.
        parts: How many; fewer come back where rows are equal or few.
        seed: Seed.

    Returns:
        Label of each row (n,), int64, counted from 0 without gaps, and centroids (parts', k), float32.
    """
    directions = g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return _kmeans(directions.astype(np.float32), None, parts, seed)


def coarsen(
    labels: np.ndarray, centroids: np.ndarray, mass: np.ndarray, parts: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Join clusters to ``parts`` larger ones by k-means of their centroids, weighted with their mass."""
    weight = np.bincount(labels, mass, len(centroids)).astype(np.float32)
    joined, centres = _kmeans(centroids, weight, parts, seed)
    return joined[labels], centres


def absorb(labels: np.ndarray, centroids: np.ndarray, too_small: np.ndarray) -> np.ndarray:
    """Give the rows of parts that can't stand alone to the nearest part that can.

    Args:
        labels: Part of each row (n,), int64.
        centroids: Centroids (parts, k).
        too_small: Parts (parts,), bool.

    Returns:
        Labels from 0 without gaps; one part for all where every part is too small.
    """
    kept = np.flatnonzero(~too_small)
    if not len(kept):
        return np.zeros(len(labels), np.int64)
    moved = np.arange(len(centroids))
    small = np.flatnonzero(too_small)
    if len(small):
        moved[small] = kept[nearest(centroids[small], centroids[kept], 1).indices[:, 0]]
    return np.unique(moved[labels], return_inverse=True)[1].astype(np.int64)


def _kmeans(x: np.ndarray, weight: np.ndarray | None, parts: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    import faiss  # here, as in neighbours

    parts = min(parts, len(x))
    if parts <= 1:
        return np.zeros(len(x), np.int64), x.mean(axis=0, keepdims=True)
    kmeans = faiss.Kmeans(
        x.shape[1], parts, niter=_ITERATIONS, seed=seed, min_points_per_centroid=1, max_points_per_centroid=_POINTS
    )
    kmeans.train(x, weights=weight)
    labels = kmeans.index.search(x, 1)[1][:, 0]
    used, labels = np.unique(labels, return_inverse=True)
    return labels.astype(np.int64), np.asarray(kmeans.centroids)[used]
