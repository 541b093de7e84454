"""CRAIG as a whole: budgets, masses, edges, and what it reports against the definitions."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptsel.pipeline.kernels import craig as module
from cptsel.pipeline.kernels.craig import CraigResult, craig


def cell(n: int, seed: int, distinct: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clustered heavy-tailed rows, masses and tokens; with ``distinct``, so many different rows at most."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((8, 12))[random.integers(0, 8, n)] + 0.5 * random.standard_normal((n, 12))
    x *= random.lognormal(0, 1, (n, 1))
    if distinct:
        x = x[random.integers(0, min(distinct, n), n)]
    tokens = random.integers(1, 300, n)
    return x.astype(np.float32), tokens / random.choice([1.0, 0.05], n), tokens


def check(result: CraigResult, x: np.ndarray, mass: np.ndarray) -> None:
    """What holds for every coreset, whatever the budget."""
    picks = result.picks
    assert len(set(picks.tolist())) == len(picks) == len(result.gains) == len(result.cluster_mass)
    json.dumps(result.report, allow_nan=False)
    if not len(picks):
        assert (result.owner == -1).all()
        return
    distances = np.linalg.norm(x[:, None].astype(np.float64) - x[picks], axis=2)
    np.testing.assert_allclose(result.distance, distances.min(axis=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(distances[np.arange(len(x)), result.owner], distances.min(axis=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(result.owner[picks], np.arange(len(picks)))
    np.testing.assert_allclose(result.cluster_mass, [mass[result.owner == c].sum() for c in range(len(picks))])
    assert result.cluster_mass.sum() == pytest.approx(mass.sum())
    assert (result.cluster_mass >= mass[picks] * (1 - 1e-12)).all()
    assert result.mean_distance == pytest.approx(mass @ distances.min(axis=1) / mass.sum(), rel=1e-4, abs=1e-6)


@given(
    st.integers(1, 80), st.integers(0, 10_000), st.integers(0, 100), st.integers(1, 40), st.sampled_from([None, 3, 20])
)
@settings(max_examples=80, deadline=None)
def test_any_cell_and_budget(n: int, seed: int, budget: int, neighbours: int, distinct: int | None) -> None:
    x, mass, tokens = cell(n, seed, distinct)
    result = craig(x, mass, tokens, budget, neighbours=neighbours)
    assert len(result.picks) == min(budget, n)
    check(result, x, mass)
    tokens_budget = budget * 60
    result = craig(x, mass, tokens, tokens_budget, "tokens", neighbours=neighbours)
    check(result, x, mass)
    left = tokens_budget - tokens[result.picks].sum()
    assert left >= 0
    assert (np.delete(tokens, result.picks) > left).all()


def test_objective_and_gain_over_random_are_as_defined() -> None:
    x, mass, tokens = cell(400, 1)
    result = craig(x, mass, tokens, 20, neighbours=30, refine=0)
    distances = np.linalg.norm(x[:, None].astype(np.float64) - x, axis=2)
    d0 = np.sort(distances, axis=1)[:, 29]
    objective = mass @ np.maximum(d0 - distances[:, result.picks].min(axis=1), 0)
    assert result.objective == pytest.approx(objective, rel=1e-4)
    assert result.gains.sum() == pytest.approx(objective, rel=1e-4)
    random = np.random.default_rng(0)
    losses = [mass @ distances[:, random.choice(400, 20, replace=False)].min(axis=1) / mass.sum() for _ in range(300)]
    assert result.random_distance == pytest.approx(np.mean(losses), rel=0.15)
    gain = (result.random_distance - result.mean_distance) / result.random_distance
    assert result.gain_over_random == pytest.approx(gain)
    assert result.gain_over_random > 0.1
    assert result.objective > result.random_objective > 0


def test_medoid_passes_lower_the_mean_distance() -> None:
    x, mass, tokens = cell(500, 2)
    means = [craig(x, mass, tokens, 15, neighbours=60, refine=r).mean_distance for r in (0, 1, 2, 5)]
    assert means == sorted(means, reverse=True)
    assert means[-1] < means[0]


def test_coarse_graph_changes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the exact size every step goes another way; on rows few enough for cells to reach all, to the same end."""
    x, mass, tokens = cell(900, 3)
    exact = craig(x, mass, tokens, 30, neighbours=40)
    monkeypatch.setattr(module, "EXACT_ROWS", 100)
    coarse = craig(x, mass, tokens, 30, neighbours=40)
    np.testing.assert_array_equal(coarse.picks, exact.picks)
    np.testing.assert_array_equal(coarse.owner, exact.owner)
    assert coarse.random_distance == pytest.approx(exact.random_distance)
    monkeypatch.setattr(module, "_RANDOM_ROWS", 300)
    assert craig(x, mass, tokens, 30, neighbours=40).random_distance == pytest.approx(exact.random_distance, rel=0.1)


def test_order_of_the_input_only_settles_ties() -> None:
    x, mass, tokens = cell(300, 4)
    order = np.random.default_rng(4).permutation(300)
    there = craig(x, mass, tokens, 25)
    here = craig(x[order], mass[order], tokens[order], 25)
    assert set(order[here.picks].tolist()) == set(there.picks.tolist())
    again = craig(x.copy(), mass, tokens, 25)
    np.testing.assert_array_equal(again.picks, there.picks)
    np.testing.assert_array_equal(again.cluster_mass, there.cluster_mass)


def test_zero_gain_picks_the_largest_mass_times_distance() -> None:
    """Five heaps of equal rows, each larger than K: no pick has any gain, and every heap must still get one."""
    heaps = np.array([[0, 0], [1, 0], [0, 10], [40, 0], [0, 100]], np.float32).repeat(50, axis=0)
    result = craig(heaps, np.ones(250), np.ones(250, np.int64), 6, neighbours=8)
    assert result.report["zero_gain_picks"] == 6
    assert result.picks.tolist() == [0, 200, 150, 100, 50, 1]
    assert result.cluster_mass.tolist() == [49, 50, 50, 50, 50, 1]
    assert result.mean_distance == 0


def test_equal_rows_are_picked_by_index() -> None:
    result = craig(np.ones((30, 3), np.float32), np.ones(30), np.full(30, 5), 4)
    assert result.picks.tolist() == [0, 1, 2, 3]
    assert result.cluster_mass.tolist() == [27, 1, 1, 1]
    assert result.gain_over_random == 0


def test_rows_without_mass_are_picked_last() -> None:
    x, mass, tokens = cell(60, 5)
    mass[::2] = 0
    result = craig(x, mass, tokens, 40, neighbours=10, refine=0)
    assert set(range(1, 60, 2)) <= set(result.picks.tolist())
    check(result, x, mass)


def test_empty_cells_and_budgets() -> None:
    nothing = np.empty(0)
    result = craig(np.empty((0, 4), np.float32), nothing, nothing.astype(np.int64), 3)
    assert len(result.picks) == 0
    x, mass, tokens = cell(9, 6)
    for kind in ("samples", "tokens"):
        result = craig(x, mass, tokens, 0, kind)  # type: ignore[arg-type]
        assert len(result.picks) == 0
        assert result.objective == result.mean_distance == 0
        check(result, x, mass)
    assert len(craig(x, mass, tokens + 10, 9, "tokens").picks) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mass": np.ones(3)}, "as many masses"),
        ({"mass": np.full(9, np.nan)}, "finite"),
        ({"mass": np.full(9, -1.0)}, "not negative"),
        ({"budget": -1}, "a budget is"),
        ({"budget_kind": "bytes"}, "a budget is"),
        ({"budget_kind": "tokens", "n_tokens": np.zeros(9, np.int64)}, "at least one"),
        ({"x": np.full((9, 2), np.inf, np.float32)}, "not finite"),
    ],
)
def test_bad_arguments_are_refused(change: dict, message: str) -> None:
    x, mass, tokens = cell(9, 6)
    arguments = {"x": x, "mass": mass, "n_tokens": tokens, "budget": 3, **change}
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message):
        craig(**arguments)
