"""Parts of a cell for matching: clusters of directions, joined and absorbed."""

import numpy as np

from cptsel.pipeline.kernels.matching.parts import absorb, cluster, coarsen


def bundles(count: int, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows around some directions, of any length, and which direction each is of."""
    random = np.random.default_rng(seed)
    centres = np.linalg.qr(random.normal(size=(16, count)))[0].T
    kind = np.repeat(np.arange(count), each)
    rows = centres[kind] + 0.02 * random.normal(size=(len(kind), 16))
    return (rows * random.uniform(0.1, 50, (len(kind), 1))).astype(np.float32), kind


def test_clusters_are_of_directions_whatever_the_length() -> None:
    g, kind = bundles(4, 40, 0)
    labels, centroids = cluster(g, 4, seed=0)
    assert len(centroids) == labels.max() + 1
    for label in range(len(centroids)):
        assert len(set(kind[labels == label].tolist())) == 1


def test_coarser_parts_are_unions_of_finer_ones() -> None:
    g, _ = bundles(6, 30, 1)
    fine, centroids = cluster(g, 12, seed=0)
    coarse, _ = coarsen(fine, centroids, np.ones(len(g)), 3, seed=0)
    assert coarse.max() + 1 <= 3
    for label in range(fine.max() + 1):
        assert len(set(coarse[fine == label].tolist())) == 1


def test_parts_that_are_too_small_go_to_the_nearest() -> None:
    centroids = np.array([[0.0, 0.0], [10.0, 0.0], [1.0, 0.0]], np.float32)
    labels = np.array([0, 0, 1, 2, 2])
    assert absorb(labels, centroids, np.array([False, False, True])).tolist() == [0, 0, 1, 0, 0]
    assert absorb(labels, centroids, np.array([True, False, True])).tolist() == [0, 0, 0, 0, 0]
    assert absorb(labels, centroids, np.ones(3, bool)).tolist() == [0] * 5
    assert absorb(labels, centroids, np.zeros(3, bool)).tolist() == labels.tolist()


def test_few_or_equal_rows_are_one_part() -> None:
    labels, centroids = cluster(np.ones((1, 4), np.float32), 5, seed=0)
    assert (labels.tolist(), centroids.shape) == ([0], (1, 4))
