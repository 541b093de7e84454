"""CRAIG as a whole: budgets, masses, edges, and what it reports against the definitions."""

import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cptsel.pipeline.kernels.coverage import random_choice as module
from cptsel.pipeline.kernels.coverage import shortlist
from cptsel.pipeline.kernels.coverage.craig import CraigResult, craig, kmedoids


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
    more = result.crossing
    assert (more is None) == (left == 0 or len(result.picks) == n)
    if more is not None:  # the same picks and one that crosses the budget, with the masses of an exact assignment
        check(more, x, mass)
        np.testing.assert_array_equal(more.picks[:-1], result.picks)
        assert 0 < tokens[more.picks].sum() - tokens_budget < tokens.max()
        assert more.report["tokens"] == tokens[more.picks].sum()
        assert more.mean_distance <= result.mean_distance or not len(result.picks)


def test_the_sample_that_crosses_is_the_farthest_by_mass() -> None:
    x = np.array([[0.0], [0.1], [5.0], [9.0]], np.float32)
    tokens = np.full(4, 10)
    result = craig(x, np.array([50.0, 1.0, 10.0, 9.0]), tokens, 15, "tokens", refine=0)
    assert result.picks.tolist() == [0]
    assert result.crossing is not None
    assert result.crossing.picks.tolist() == [0, 3]  # 9 · 9 is more than 10 · 5
    assert result.crossing.cluster_mass.tolist() == [51.0, 19.0]
    assert craig(x, np.ones(4), tokens, 20, "tokens").crossing is None
    assert craig(x, np.ones(4), tokens, 2).crossing is None


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


def test_a_shortlist_changes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Picks of a shortlist, every row exactly at its nearest, and a report measured on some of the rows."""
    x, mass, tokens = cell(900, 3)
    exact = craig(x, mass, tokens, 30, neighbours=40)
    monkeypatch.setattr(shortlist, "CELL_ROWS", 250)
    for rows in (4096, 300):
        monkeypatch.setattr(module, "_RANDOM_ROWS", rows)
        few = craig(x, mass, tokens, 30, neighbours=40)
        assert few.report["neighbours"] < 40
        assert few.mean_distance < 1.03 * exact.mean_distance
        assert few.random_distance == pytest.approx(exact.random_distance, rel=0.1)
        apart = np.linalg.norm(x[:, None].astype(np.float64) - x[few.picks], axis=2)
        np.testing.assert_allclose(few.distance, apart.min(axis=1), rtol=1e-4)
        np.testing.assert_array_equal(few.owner, apart.argmin(axis=1))


@pytest.mark.parametrize("kind", ["samples", "tokens"])
def test_candidates_found_by_codes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly the choice that exact links give; masses add up, and nearly every row is at its nearest pick."""
    x, mass, tokens = cell(3000, 3)
    monkeypatch.setattr(shortlist, "CELL_ROWS", 400)
    budget = 200 if kind == "samples" else 200 * int(tokens.mean())
    exact = craig(x, mass, tokens, budget, kind)  # type: ignore[arg-type]
    monkeypatch.setattr(shortlist, "PAIRS", 0)
    found = []
    by_codes = shortlist.nearly_nearest
    monkeypatch.setattr(shortlist, "nearly_nearest", lambda *args: found.append(by_codes(*args)) or found[-1])
    few = craig(x, mass, tokens, budget, kind)  # type: ignore[arg-type]
    assert len(found) == 1
    apart = np.linalg.norm(x[:, None].astype(np.float64) - x[few.picks], axis=2)
    np.testing.assert_allclose(few.distance, apart[np.arange(3000), few.owner], rtol=1e-4, atol=1e-6)
    assert (few.owner == apart.argmin(axis=1)).mean() > 0.97
    assert few.mean_distance < 1.02 * mass @ apart.min(axis=1) / mass.sum()
    assert mass @ apart.min(axis=1) / mass.sum() < 1.02 * exact.mean_distance
    np.testing.assert_allclose(few.cluster_mass, [mass[few.owner == c].sum() for c in range(len(few.picks))])
    assert few.cluster_mass.sum() == pytest.approx(mass.sum())
    np.testing.assert_array_equal(few.owner[few.picks], np.arange(len(few.picks)))
    again = craig(x, mass, tokens, budget, kind)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.picks, few.picks)
    assert again.cluster_mass.tobytes() == few.cluster_mass.tobytes()


def test_a_shortlist_leaves_no_budget_unspent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where gains run out in the cells, rows outside the shortlist fill the budget, tokens as well as samples."""
    x, mass, tokens = cell(900, 3)
    x[:800] = x[0]
    monkeypatch.setattr(shortlist, "CELL_ROWS", 250)
    assert len(craig(x, mass, tokens, 120, neighbours=8).picks) == 120
    few = craig(x, mass, tokens, int(tokens.sum()) // 10, "tokens", neighbours=8)
    left = int(tokens.sum()) // 10 - few.report["tokens"]
    rest = np.setdiff1d(np.arange(900), few.picks)
    assert 0 <= left < tokens[rest].min()
    assert len(np.unique(few.picks)) == len(few.picks)


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


def rounds(n: int, seed: int) -> dict[str, np.ndarray]:
    """Some rows out, some discounted, some covered."""
    random = np.random.default_rng(seed)
    return {
        "candidates": random.random(n) < 0.6,
        "gain_factor": 0.5 ** random.integers(0, 3, n),
        "covered": random.integers(0, n, random.integers(0, n)),
    }


@given(
    st.integers(1, 60),
    st.integers(0, 10_000),
    st.integers(0, 60),
    st.sampled_from([None, 4]),
    st.sampled_from([0, 2, None]),
)
@settings(max_examples=120, deadline=None)
def test_any_round(n: int, seed: int, budget: int, distinct: int | None, refine: int | None) -> None:
    x, mass, tokens = cell(n, seed, distinct)
    mass[np.random.default_rng(seed).random(n) < 0.2] = 0
    out = rounds(n, seed)
    able = out["candidates"].copy()
    able[out["covered"]] = False
    assume(mass.sum() > 0)
    result = craig(x, mass, tokens, budget, neighbours=9, refine=refine, **out)
    assert len(result.picks) == min(budget, able.sum())
    assert able[result.picks].all()
    check(result, x, mass)
    if len(out["covered"]) and len(result.picks):
        chosen = np.concatenate([result.picks, out["covered"]])
        distances = np.linalg.norm(x[:, None].astype(np.float64) - x[chosen], axis=2).min(axis=1)
        assert result.covered_distance == pytest.approx(mass @ distances / mass.sum(), rel=1e-4, abs=1e-6)
        assert result.report["covered_distance"] == result.covered_distance <= result.mean_distance
    left = (tokens_budget := budget * 60) - tokens[
        (picks := craig(x, mass, tokens, tokens_budget, "tokens", neighbours=9, refine=refine, **out).picks)
    ].sum()
    assert left >= 0
    assert able[picks].all()
    able[picks] = False
    assert (tokens[able] > left).all()


def test_nothing_said_is_nothing_changed() -> None:
    x, mass, tokens = cell(200, 8)
    plain = craig(x, mass, tokens, 20)
    said = craig(x, mass, tokens, 20, candidates=np.ones(200, bool), gain_factor=np.ones(200), covered=np.empty(0, int))
    np.testing.assert_array_equal(said.picks, plain.picks)
    assert said.report == plain.report
    assert plain.covered_distance == plain.mean_distance
    assert said.gains.tobytes() == plain.gains.tobytes()


def test_one_candidate_takes_all_mass_and_none_takes_none() -> None:
    x, mass, tokens = cell(30, 9)
    only = np.arange(30) == 17
    result = craig(x, mass, tokens, 5, candidates=only, covered=np.array([3]))
    assert result.picks.tolist() == [17]
    assert result.cluster_mass.tolist() == [pytest.approx(mass.sum())]
    for out in ({"candidates": np.zeros(30, bool)}, {"candidates": only, "covered": np.array([17])}):
        result = craig(x, mass, tokens, 5, **out)
        assert len(result.picks) == 0
        assert result.gain_over_random == 0
        check(result, x, mass)
    one = craig(x[:1], mass[:1], tokens[:1], 5)
    assert one.picks.tolist() == [0]
    assert one.cluster_mass.tolist() == [mass[0]]
    assert craig(x, np.zeros(30), tokens, 5).cluster_mass.tolist() == [0] * 5


def test_picks_stay_away_from_what_is_covered() -> None:
    """Four heaps, two covered: two picks go to the others, and take the mass of all four."""
    random = np.random.default_rng(1)
    centres = np.array([[0, 0], [100, 0], [0, 101], [100, 102]])
    x = (centres.repeat(30, axis=0) + random.standard_normal((120, 2))).astype(np.float32)
    for refine in (0, 2, None):
        result = craig(x, np.ones(120), np.ones(120, np.int64), 2, covered=np.array([5, 40]), refine=refine)
        assert sorted(result.picks // 30) == [2, 3]
        assert result.cluster_mass.tolist() == [60, 60]
        assert result.covered_distance < 5 < result.mean_distance
        # Only its own heap pulls a pick: alone with that heap, the medoid passes end at the same row.
        alone = [kmedoids(x[h : h + 30], np.ones(30), np.ones(30, np.int64), 1).picks[0] + h for h in (60, 90)]
        if refine is None:
            assert sorted(result.picks.tolist()) == alone


def test_farthest_first_starts_from_what_is_covered() -> None:
    """Heaps of equal rows, larger than K: no pick has any gain; the heap that is covered comes last."""
    heaps = np.array([[0, 0], [1, 0], [0, 10], [40, 0], [0, 100]], np.float32).repeat(50, axis=0)
    result = craig(heaps, np.ones(250), np.ones(250, np.int64), 5, neighbours=8, covered=np.array([249]))
    assert result.picks.tolist() == [150, 100, 50, 0, 1]
    factor = np.ones(250)
    factor[:50] = 0.001
    result = craig(heaps, np.ones(250), np.ones(250, np.int64), 2, neighbours=8, gain_factor=factor)
    assert result.picks.tolist() == [50, 200]


def test_medoid_passes_do_not_undo_a_discount() -> None:
    x, mass, tokens = cell(400, 10)
    factor = np.where(np.arange(400) % 2, 0.5, 1.0)
    for passes in (0, 2, None):
        result = craig(x, mass, tokens, 25, gain_factor=factor, refine=passes)
        if passes == 0:
            greedy = factor[result.picks]
            assert {0.5, 1.0} <= set(greedy.tolist())
        assert (factor[result.picks] >= greedy).all()
    replayed = craig(x, mass, tokens, 25, gain_factor=np.ones(400)).picks
    factor = np.ones(400)
    factor[replayed] = 0.01
    again = craig(x, mass, tokens, 25, gain_factor=factor).picks
    assert len(np.intersect1d(replayed, again)) <= 1


def test_kmedoids_goes_on_until_every_pick_is_the_medoid_of_its_cluster() -> None:
    x, mass, tokens = cell(300, 11)
    result = kmedoids(x, mass, tokens, 12)
    assert result.mean_distance <= craig(x, mass, tokens, 12).mean_distance
    assert result.report["refine_passes"] > 0
    for c, pick in enumerate(result.picks):
        members = np.flatnonzero(result.owner == c)
        apart = np.linalg.norm(x[members, None].astype(np.float64) - x[members], axis=2)
        assert mass[members] @ apart[:, members == pick] == pytest.approx((mass[members] @ apart).min())


def test_order_of_rounds_only_settles_ties() -> None:
    x, mass, tokens = cell(300, 12)
    out, order = rounds(300, 12), np.random.default_rng(0).permutation(300)
    place = np.argsort(order)
    there = craig(x, mass, tokens, 25, **out)
    moved = {"candidates": out["candidates"][order], "gain_factor": out["gain_factor"][order]}
    here = craig(x[order], mass[order], tokens[order], 25, **moved, covered=place[out["covered"]])
    assert set(order[here.picks].tolist()) == set(there.picks.tolist())


@pytest.mark.parametrize("seed", range(6))
def test_greedy_is_near_the_exact_optimum_over_what_is_covered(seed: int) -> None:
    """All subsets of the candidates tried, on a complete graph; 1 − 1/e by Nemhauser, Wolsey & Fisher (1978)."""
    x, mass, tokens = cell(14, seed)
    out = rounds(14, seed) | {"covered": np.array([2, 9]), "gain_factor": np.ones(14)}
    out["candidates"][[0, 4, 5]] = True
    distances = np.linalg.norm(x[:, None].astype(np.float64) - x, axis=2)
    reach = np.minimum(distances.max(axis=1), distances[:, [2, 9]].min(axis=1))
    able = np.setdiff1d(np.flatnonzero(out["candidates"]), [2, 9])

    def objective(chosen: np.ndarray | tuple[int, ...]) -> float:
        return float(mass @ np.maximum(reach - distances[:, list(chosen)].min(axis=1), 0))

    result = craig(x, mass, tokens, 3, refine=0, **out)
    best = max(objective(s) for s in combinations(able.tolist(), 3))
    assert result.objective == pytest.approx(objective(result.picks), rel=1e-4)
    assert result.gains.sum() == pytest.approx(result.objective, rel=1e-4)
    assert (1 - 1 / np.e) * best <= result.objective <= best * (1 + 1e-4)


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
        ({"candidates": np.ones(8, bool)}, "candidates must be 9 bools"),
        ({"candidates": np.ones(9, np.int64)}, "candidates must be 9 bools"),
        ({"gain_factor": np.zeros(9)}, "above 0"),
        ({"gain_factor": np.full(9, np.nan)}, "above 0"),
        ({"covered": np.array([9])}, "rows of x"),
        ({"covered": np.array([-1])}, "rows of x"),
    ],
)
def test_bad_arguments_are_refused(change: dict, message: str) -> None:
    x, mass, tokens = cell(9, 6)
    arguments = {"x": x, "mass": mass, "n_tokens": tokens, "budget": 3, **change}
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message):
        craig(**arguments)
