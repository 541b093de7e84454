"""Cells of equal size whatever the rows are, and candidates worth having."""

import numpy as np
import pytest

from cptsel.pipeline.kernels.coverage import shortlist
from cptsel.pipeline.kernels.coverage.shortlist import candidate_links, cells
from cptsel.pipeline.kernels.neighbours import nearest


def rows(n: int, seed: int) -> np.ndarray:
    """Clusters with norms over orders of magnitude: most rows lie in one heap near the origin."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((12, 6))[random.integers(0, 12, n)]
    return ((centres + 0.3 * random.standard_normal((n, 6))) * random.lognormal(0, 1.5, (n, 1))).astype(np.float32)


def links_of(x: np.ndarray, picks: int, seed: int = 0, **options: np.ndarray):
    n = len(x)
    mass, costs = options.get("mass", np.ones(n)), options.get("costs", np.ones(n, np.int64))
    worth = options.get("worth", np.ones(n))
    return candidate_links(x, mass, costs, picks * int(costs.mean()), worth, neighbours=64, seed=seed)


@pytest.mark.parametrize("kind", ["heavy-tailed", "equal", "two heaps", "one column"])
def test_cells_are_a_partition_into_equal_sizes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortlist, "CELL_ROWS", 100)
    x = rows(1111, 1)
    if kind == "equal":
        x[:] = x[0]
    if kind == "two heaps":
        x = np.repeat(x[:2], [1110, 1], axis=0)
    if kind == "one column":
        x = x[:, :1]
    parts = cells(x)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1111))
    sizes = [len(part) for part in parts]
    assert max(sizes) <= 100
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == 16
    for part, again in zip(parts, cells(x), strict=True):
        np.testing.assert_array_equal(part, again)


def test_cells_keep_neighbours_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortlist, "CELL_ROWS", 100)
    x = rows(800, 2)
    cell = np.empty(800, np.int64)
    for number, part in enumerate(cells(x)):
        cell[part] = number
    closest = nearest(x, x, 6).indices[:, 1:]
    assert (cell[closest] == cell[:, None]).mean() > 0.5  # 1 in 8 at random


def test_links_are_exact_links_to_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortlist, "CELL_ROWS", 100)
    x = rows(700, 3)
    links, listed = links_of(x, 15)
    assert (np.diff(listed) > 0).all()
    assert len(listed) == 60
    apart = np.linalg.norm(x[:, None].astype(np.float64) - x[listed], axis=2)
    np.testing.assert_array_equal(links.indices[:, 0], apart.argmin(axis=1))
    np.testing.assert_allclose(links.distances, np.sort(apart, axis=1)[:, : links.distances.shape[1]], rtol=1e-4)
    np.testing.assert_array_equal(listed, links_of(x, 15)[1])


def test_rows_of_no_worth_are_no_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortlist, "CELL_ROWS", 100)
    x = rows(700, 4)
    worth = np.random.default_rng(4).integers(0, 2, 700).astype(float)
    _, listed = links_of(x, 10, worth=worth)
    assert (worth[listed] > 0).all()
    costs = np.random.default_rng(5).integers(1, 100, 700)
    _, listed = links_of(x, 10, costs=costs)
    assert costs[listed].sum() <= 4.2 * 10 * costs.mean()


def test_there_is_no_shortlist_where_every_pair_costs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows(700, 5)
    assert links_of(x, 10) is None
    monkeypatch.setattr(shortlist, "CELL_ROWS", 100)
    assert links_of(x, 10) is not None
    assert links_of(x, 300) is None
    assert links_of(x, 0) is None
    assert links_of(x, 10, mass=np.zeros(700)) is None
    assert links_of(x[:0], 10, costs=np.ones(1, np.int64)) is None
