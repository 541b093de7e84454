"""The neighbour graph against brute force and scikit-learn, and where BLAS distances go wrong."""

import faiss
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from cptsel.pipeline.kernels import neighbours
from cptsel.pipeline.kernels.neighbours import Links, equal_rows, knn_graph, nearest, nearly_nearest


def heavy_tailed(n: int, d: int, seed: int) -> np.ndarray:
    """Rows round a common mean whose norms spread over orders of magnitude, as those of gradients do."""
    random = np.random.default_rng(seed)
    return (1 + random.standard_normal((n, d)) * random.lognormal(0, 1.5, (n, 1))).astype(np.float32)


def brute_force(queries: np.ndarray, base: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices by float64 differences, ties by index."""
    distances = np.linalg.norm(queries[:, None].astype(np.float64) - base[None], axis=2)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


def check(links: Links, queries: np.ndarray, base: np.ndarray) -> None:
    """Every link is at its true distance, and no nearer row is left out; near-equal distances may swap."""
    distances, indices = brute_force(queries, base, links.indices.shape[1])
    np.testing.assert_allclose(links.distances, distances, rtol=1e-4, atol=0)
    apart = np.linalg.norm(queries[:, None].astype(np.float64) - base[links.indices], axis=2)
    np.testing.assert_allclose(links.distances, apart, rtol=1e-4, atol=0)
    assert (links.indices == indices).mean() > 0.999
    assert all(len(set(row)) == len(row) for row in links.indices.tolist())


@pytest.mark.parametrize(("n", "d", "k"), [(1, 3, 5), (2, 1, 1), (50, 4, 50), (400, 16, 9), (333, 64, 128)])
def test_graph_is_brute_force(n: int, d: int, k: int) -> None:
    x = heavy_tailed(n, d, seed=n)
    graph = knn_graph(x, k)
    assert graph.distances.dtype == np.float32
    assert graph.indices.dtype == np.int32
    assert graph.indices.shape == (n, min(k, n))
    check(graph, x, x)
    np.testing.assert_array_equal(graph.indices[:, 0], np.arange(n))


def test_graph_is_that_of_scikit_learn() -> None:
    x = heavy_tailed(500, 32, seed=5)
    distances, indices = NearestNeighbors(n_neighbors=20, algorithm="brute").fit(x.astype(np.float64)).kneighbors()
    graph = knn_graph(x, 21)
    np.testing.assert_array_equal(graph.indices[:, 1:], indices)
    np.testing.assert_allclose(graph.distances[:, 1:], distances, rtol=1e-4)


def test_small_distances_at_large_norms_keep_their_digits() -> None:
    """Pairs 1e-3 apart at norms of 1e3, on either side of the origin: BLAS alone would call them 0 or anything to 1."""
    random = np.random.default_rng(0)
    far = random.standard_normal((40, 32)) * 200
    x = np.concatenate([far, far + random.choice([-1, 1], far.shape) * 2e-4]).astype(np.float32)
    graph = knn_graph(x, 2)
    distances, indices = brute_force(x, x, 2)
    np.testing.assert_array_equal(graph.indices, indices)
    np.testing.assert_allclose(graph.distances, distances, rtol=0.02)


def test_equal_rows_are_at_distance_0_and_come_by_index() -> None:
    random = np.random.default_rng(3)
    x = heavy_tailed(12, 8, seed=3)[random.integers(0, 12, 300)]
    for k in (1, 10, 40, 300):
        graph = knn_graph(x, k)
        distances, indices = brute_force(x, x, k)
        np.testing.assert_array_equal(graph.indices, indices)
        np.testing.assert_allclose(graph.distances, distances, rtol=1e-4, atol=0)


def test_all_rows_equal() -> None:
    graph = knn_graph(np.full((70, 5), 3.7, np.float32), 8)
    np.testing.assert_array_equal(graph.indices, np.tile(np.arange(8), (70, 1)))
    np.testing.assert_array_equal(graph.distances, 0)


@pytest.mark.parametrize("duplicates", [False, True])
def test_links_between_sets_are_brute_force(duplicates: bool) -> None:
    queries, base = heavy_tailed(200, 16, seed=1), heavy_tailed(90, 16, seed=2)
    if duplicates:
        base = base[np.random.default_rng(0).integers(0, 20, 90)]
    for k in (1, 7, 200):
        check(nearest(queries, base, k), queries, base)


@pytest.mark.parametrize("d", [16, 30])
def test_codes_find_most_of_the_nearest_of_short_rows_and_long(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """True distances in order, of distinct rows; few are missed, though lengths spread over orders of magnitude."""
    base = heavy_tailed(1200, d, seed=6)
    queries = base[::3] + heavy_tailed(400, d, seed=7) * np.float32(0.01)
    exact = nearest(queries, base, 8)
    links = nearly_nearest(queries, base, 8)
    apart = np.linalg.norm(queries[:, None].astype(np.float64) - base[links.indices], axis=2)
    np.testing.assert_allclose(links.distances, apart, rtol=1e-4)
    assert (np.diff(links.distances, axis=1) >= 0).all()
    assert links.distances.dtype == np.float32
    assert links.indices.dtype == np.int32
    assert all(len(set(row)) == 8 for row in links.indices.tolist())
    length = np.linalg.norm(base[::3] - base.mean(axis=0), axis=1)
    for some in (length < np.quantile(length, 0.3), length > np.quantile(length, 0.7)):
        assert (links.indices[some, 0] == exact.indices[some, 0]).mean() > 0.94
        found = [len(set(a) & set(b)) for a, b in zip(links.indices[some], exact.indices[some], strict=True)]
        assert np.mean(found) > 0.5 * 8
    monkeypatch.setattr(neighbours, "_BLOCK", 128)
    threads = faiss.omp_get_max_threads()
    for some_threads in (1, 3, threads):
        faiss.omp_set_num_threads(some_threads)
        again = nearly_nearest(queries, base, 8)
        np.testing.assert_array_equal(again.indices, links.indices)
        np.testing.assert_array_equal(again.distances, links.distances)


@pytest.mark.parametrize("spread", [1.5, 0.02])
def test_shells_that_are_passed_over_hold_nothing_nearer(spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is that of looking into every shell, for queries of any length."""
    random = np.random.default_rng(8)
    rows = random.standard_normal((1500, 12)) * random.lognormal(0, spread, (1500, 1))
    base, queries = np.split(rows.astype(np.float32), [1200])
    queries[:50] *= 20
    asked = []
    search = neighbours._Shell.search
    monkeypatch.setattr(neighbours._Shell, "search", lambda *args: asked.append(len(args[1])) or search(*args))
    some, of_some = nearly_nearest(queries, base, 5), sum(asked)
    monkeypatch.setattr(neighbours, "_ROUNDING", np.inf)
    asked.clear()
    every = nearly_nearest(queries, base, 5)
    np.testing.assert_array_equal(some.indices, every.indices)
    np.testing.assert_array_equal(some.distances, every.distances)
    assert sum(asked) == 5 * len(queries)
    assert (of_some < 0.7 * sum(asked)) == (spread > 1)


def test_codes_of_few_rows_or_equal_ones() -> None:
    """Where all would be checked all are; equal rows are found once each."""
    x = heavy_tailed(90, 16, seed=1)
    for k in (1, 7, 200):
        check(nearly_nearest(x, x[:60], k), x, x[:60])
    same = np.repeat(x[:2], [400, 1], axis=0)
    links = nearly_nearest(x, same, 5)
    assert all(len(set(row)) == 5 for row in links.indices.tolist())
    np.testing.assert_allclose(links.distances[:, 0], nearest(x, same, 1).distances[:, 0], rtol=1e-4)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    x = heavy_tailed(300, 8, seed=4)[np.random.default_rng(1).integers(0, 200, 300)]
    whole = knn_graph(x, 30)
    monkeypatch.setattr(neighbours, "_BLOCK", 32)
    parts = knn_graph(x, 30)
    np.testing.assert_array_equal(whole.indices, parts.indices)
    np.testing.assert_allclose(whole.distances, parts.distances, rtol=1e-5)
    check(nearest(x, x[:90], 7), x, x[:90])  # queries are centred block by block


def test_rows_that_share_a_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    x = heavy_tailed(40, 4, seed=1)[np.random.default_rng(2).integers(0, 40, 90)]
    by_hash = equal_rows(x)
    monkeypatch.setattr(neighbours, "_row_hashes", lambda rows: np.arange(len(rows), dtype=np.uint64) % 3 * 0)
    for expected, found in zip(by_hash, equal_rows(x), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_equal_rows_are_grouped_by_their_lowest_row() -> None:
    x = np.array([[1, 0], [2, 0], [1, -0.0], [0, 0], [2, 0]], np.float32)
    classes = equal_rows(x)
    assert classes.first.tolist() == [0, 1, 3]
    assert classes.of_row.tolist() == [0, 1, 0, 2, 1]
    assert classes.members.tolist() == [0, 2, 1, 4, 3]
    assert classes.starts.tolist() == [0, 2, 4, 5]


def test_bad_arguments_are_refused() -> None:
    x = heavy_tailed(5, 2, seed=0)
    with pytest.raises(ValueError, match="at least 1"):
        knn_graph(x, 0)
    large = heavy_tailed(300, 2, seed=0)
    for find, base in ((nearest, x), (nearly_nearest, large)):
        with pytest.raises(ValueError, match="one width"):
            find(x, base[:, :1], 1)
        with pytest.raises(ValueError, match="at least 1"):
            find(x, base, 0)
    with pytest.raises(ValueError, match="not empty"):
        nearest(x, x[:0], 1)
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        knn_graph(x, 2)
    queries = np.ones((8200, 2), np.float32)  # more than a block
    queries[8195, 0] = np.inf
    with pytest.raises(ValueError, match="row 8195 holds"):
        nearest(queries, x[:3], 1)
    assert knn_graph(x[:0], 3).indices.shape == (0, 0)
