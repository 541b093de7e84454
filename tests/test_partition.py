"""Partitions: rows to their nearest centroid, neighbours together, parts of about equal size, the same every time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptsel.pipeline.kernels.coverage import partition as module
from cptsel.pipeline.kernels.coverage.partition import Partitions, route, train_centroids


def heavy_tailed(n: int, seed: int, d: int = 6) -> np.ndarray:
    random = np.random.default_rng(seed)
    x = random.standard_normal((20, d))[random.integers(0, 20, n)] + 0.2 * random.standard_normal((n, d))
    return (x * random.lognormal(0, 1.5, (n, 1))).astype(np.float32)


@pytest.mark.parametrize("partitions", [1, 2, 3, 7, 16])
def test_partitions_are_about_equal_where_k_means_is_not(partitions: int) -> None:
    x = heavy_tailed(6_000, seed=partitions)
    trained = train_centroids(x, partitions, seed=0)
    sizes = np.bincount(route(x, trained), minlength=partitions)
    assert len(sizes) == partitions
    assert sizes.max() <= 1.5 * len(x) / partitions
    assert sizes.min() > 0
    if partitions > 2:
        cells = module._k_means(x, partitions, 0)
        plain = np.bincount(route(x, Partitions(cells, np.arange(len(cells), dtype=np.int32))), minlength=partitions)
        assert plain.max() > sizes.max()


def test_rows_go_with_their_nearest_centroid_the_lower_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    x = heavy_tailed(500, seed=1)
    trained = train_centroids(x, 5, seed=0)
    apart = np.linalg.norm(x[:, None].astype(np.float64) - trained.centroids, axis=2)
    np.testing.assert_array_equal(route(x, trained), trained.partition[apart.argmin(axis=1)])
    monkeypatch.setattr(module, "_BLOCK", 7)
    np.testing.assert_array_equal(route(x, trained), trained.partition[apart.argmin(axis=1)])
    between = Partitions(np.array([[0, 0], [2, 0], [4, 0]], np.float32), np.array([1, 0, 2], np.int32))
    assert route(np.array([[1, 0], [3, 5], [2, 9]], np.float32), between).tolist() == [1, 0, 0]
    assert route(x[:0], trained).tolist() == []


def test_neighbours_meet() -> None:
    """Well separated heaps of unequal size: none is cut in two, as packing whole heaps can be equal enough."""
    random = np.random.default_rng(2)
    heap = np.repeat(np.arange(24), random.integers(20, 60, 24))
    x = (60 * random.standard_normal((24, 5))[heap] + random.standard_normal((len(heap), 5))).astype(np.float32)
    part = route(x, train_centroids(x, 4, seed=0))
    whole = sum(len(np.unique(part[heap == h])) == 1 for h in range(24))
    assert whole >= 21
    # Rows of a part lie nearer to each other than rows at random do.
    within = np.mean([x[part == p].var(axis=0).sum() for p in range(4)])
    assert within < 0.8 * x.var(axis=0).sum()


def test_large_cells_are_cut() -> None:
    """Most rows are short and lie nearest to one centroid."""
    random = np.random.default_rng(3)
    x = random.standard_normal((4_000, 16)) * np.where(np.arange(4_000) % 8, 0.05, 5)[:, None]
    x = x.astype(np.float32)
    centroids = np.concatenate([x[1::8].mean(axis=0)[None], x[::8][:63]])
    plain = np.bincount(route(x, Partitions(centroids, np.arange(len(centroids), dtype=np.int32))))
    assert plain.max() > 2_000
    cut, rows = module._cut_large(x, centroids, 250)
    np.testing.assert_array_equal(rows, np.bincount(route(x, Partitions(cut, np.arange(len(cut), dtype=np.int32)))))
    assert rows.sum() == 4_000
    assert rows.max() <= 500


def test_halves_are_those_of_a_line() -> None:
    x = np.array([0, 1, 2, 3, 10, 11, 12, 13], np.float32)[:, None]
    trained = train_centroids(x, 2, seed=0)
    part = route(x, trained)
    assert len(set(part[:4])) == len(set(part[4:])) == 1
    assert part[0] != part[4]
    four = route(x, train_centroids(x, 4, seed=0))
    assert [len(set(four[i : i + 2])) for i in (0, 2, 4, 6)] == [1, 1, 1, 1]
    assert sorted(set(four)) == [0, 1, 2, 3]


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 90), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_any_sample(rows: int, distinct: int, partitions: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.standard_normal((distinct, 3)).astype(np.float32)[random.integers(0, distinct, rows)]
    trained = train_centroids(x, partitions, seed)
    different = len(np.unique(x, axis=0))
    assert set(trained.partition.tolist()) == set(range(min(partitions, different)))
    assert len(np.unique(trained.centroids, axis=0)) == len(trained.centroids) <= different
    assert trained.centroids.dtype == np.float32
    assert trained.partition.dtype == route(x, trained).dtype == np.int32
    again = train_centroids(x.copy(), partitions, seed)
    assert again.centroids.tobytes() == trained.centroids.tobytes()
    assert again.partition.tobytes() == trained.partition.tobytes()


def test_equal_rows_are_routed_together_whatever_their_number() -> None:
    x = np.concatenate([np.ones((900, 4)), np.eye(4).repeat(5, axis=0)]).astype(np.float32)
    part = route(x, train_centroids(x, 3, seed=0))
    assert len(set(part[:900].tolist())) == 1
    assert set(part.tolist()) == {0, 1, 2}
    assert route(x[:900], train_centroids(x[:900], 5, seed=0)).tolist() == [0] * 900


@pytest.mark.parametrize(
    ("sample", "partitions"),
    [(np.ones((0, 3)), 2), (np.ones(3), 2), (np.full((3, 2), np.nan), 2), (np.ones((3, 2)), 0)],
)
def test_bad_samples_are_refused(sample: np.ndarray, partitions: int) -> None:
    with pytest.raises(ValueError, match="centroids need"):
        train_centroids(sample.astype(np.float32), partitions, 0)
