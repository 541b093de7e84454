"""Matching a cell: against NNLS and slow references, degenerate cells, parts, merges, and the choice by validation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.linear_model import orthogonal_mp

from cptsel.pipeline.kernels.matching import gradmatch as matching
from cptsel.pipeline.kernels.matching.gradmatch import MatchResult, match
from cptsel.pipeline.kernels.matching.mass import MASS, tokens_of_atoms, with_mass


def gradients(n: int, seed: int, k: int = 16, drift: float = 0.4) -> np.ndarray:
    """Noise of unequal lengths around a common direction: their sum is worth matching."""
    random = np.random.default_rng(seed)
    common = random.standard_normal(k)
    return ((random.standard_normal((n, k)) + drift * common) * random.lognormal(0, 0.5, (n, 1))).astype(np.float32)


def tokens(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 50, n)


def residual(g: np.ndarray, a: np.ndarray, found: MatchResult, scale: float = 1.0) -> float:
    target = a @ g.astype(np.float64)
    return float(np.linalg.norm(target - scale * found.u @ g[found.picks].astype(np.float64)) / np.linalg.norm(target))


@given(st.integers(0, 10_000), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_one_part_without_ridge_is_nnls_on_its_support(seed: int, m: int) -> None:
    g, a = gradients(60, seed), np.random.default_rng(seed).uniform(0.5, 2, 60)
    found = match(g, a, tokens(60, seed), m, ridge=0.0, parts=1)
    weights, miss = nnls(g[found.picks].T.astype(np.float64), a @ g.astype(np.float64))
    np.testing.assert_allclose(found.u, weights, rtol=1e-5)
    assert found.residual == pytest.approx(miss / np.linalg.norm(a @ g.astype(np.float64)), abs=1e-8)
    assert found.residual == pytest.approx(residual(g, a, found), abs=1e-9)
    unit = (g / np.linalg.norm(g, axis=1, keepdims=True)).astype(np.float32)
    free = orthogonal_mp(unit.T.astype(np.float64), unit.sum(axis=0, dtype=np.float64), n_nonzero_coefs=m)
    if (free >= 0).all():  # then theirs is no other
        other = match(unit, np.ones(60), tokens(60, seed), m, ridge=0.0, parts=1)
        assert sorted(other.picks) == np.flatnonzero(free).tolist()
        np.testing.assert_allclose(other.u, free[other.picks], rtol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_recovers_rows_that_were_planted(seed: int) -> None:
    """A merge whose target is made of five rows finds these, with the weights they were given."""
    random = np.random.default_rng(seed)
    g = random.standard_normal((200, 128)).astype(np.float32)
    planted, weights = random.permutation(200)[:5], random.uniform(1, 3, 5)
    found = match(
        g, np.ones(200), np.ones(200, np.int64), 5, ridge=0.0, parts=1, target=weights @ g[planted].astype(np.float64)
    )
    assert sorted(found.picks) == sorted(planted)
    np.testing.assert_allclose(found.u[np.argsort(found.picks)], weights[np.argsort(planted)], rtol=1e-5)
    assert found.residual < 1e-6


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("kind", ["samples", "tokens"])
def test_budgets_hold_and_rows_are_picked_once(even: bool, kind: matching.BudgetKind) -> None:
    g, n = gradients(300, 1), tokens(300, 1)
    v = gradients(300, 1)
    for share in (0.01, 0.1, 0.5, 1.0):
        budget = int((n.sum() if kind == "tokens" else 300) * share)
        found = match(g, np.ones(300), n, budget, kind, validation=v, uniform_weights=even)
        spent = n[found.picks].sum() if kind == "tokens" else len(found.picks)
        assert 0 < spent <= budget
        assert found.report["unused_budget"] == budget - spent
        assert len(np.unique(found.picks)) == len(found.picks) == len(found.u) == len(found.gains)
        assert (found.u > 0).all()
        if even:
            assert np.ptp(found.u) == 0
            assert found.u.sum() == pytest.approx(300)
            assert spent >= budget - n.max()
        if found.crossing is not None:
            assert kind == "tokens"
            more = int(n[found.crossing.picks].sum())
            assert spent < more < budget + n.max()
            assert found.crossing.report["unused_budget"] == budget - more
            assert (found.crossing.u > 0).all()


@pytest.mark.parametrize("even", [False, True])
def test_one_sample_more_is_offered_where_budget_is_left(even: bool) -> None:
    g, v, n = gradients(60, 7), gradients(60, 8), np.full(60, 10)
    found = match(g, np.ones(60), n, 57, "tokens", validation=v, uniform_weights=even)
    assert (len(found.picks), found.crossing is not None) == (5, True)
    assert found.crossing is not None
    assert len(found.crossing.picks) == 6
    assert match(g, np.ones(60), n, 50, "tokens", validation=v, uniform_weights=even).crossing is None
    nothing = match(g, np.ones(60), n, 4, "tokens", validation=v, uniform_weights=even)
    assert (len(nothing.picks), nothing.crossing is not None) == (0, True)
    loose = match(g, np.ones(60), n, 57, "tokens", validation=v, uniform_weights=even, tolerance=0.99)
    assert loose.crossing is None  # it is near enough, and wants no more


def test_as_many_picks_as_rows_match_exactly() -> None:
    g = gradients(20, 3)
    for budget in (20, 50):
        found = match(g, np.ones(20), tokens(20, 3), budget, uniform_weights=True)
        assert sorted(found.picks) == list(range(20))
        assert found.residual < 1e-6
    one = match(g[:1], np.ones(1), np.array([7]), 1, validation=g[:1])
    assert one.picks.tolist() == [0]
    assert one.u == pytest.approx([1.0])
    assert one.validation_residual == pytest.approx(0, abs=1e-6)


def test_nothing_to_pick_and_nothing_to_match() -> None:
    g, a, n = gradients(10, 4), np.ones(10), np.full(10, 5)
    assert len(match(g, a, n, 0).picks) == 0
    assert len(match(g, a, n, 4, "tokens").picks) == 0
    assert len(match(g, a, n, 3, candidates=np.zeros(10, bool)).picks) == 0
    assert len(match(g[:0], a[:0], n[:0], 3).picks) == 0
    zeros = match(np.zeros((10, 16), np.float32), a, n, 3)
    assert zeros.picks.tolist() == [0, 1, 2]
    assert zeros.u == pytest.approx([10 / 3] * 3)
    cancel = np.vstack([g, -g])  # Σ g is 0: what remains is the ridge, and the noise is the unit
    found = match(cancel, np.ones(20), np.full(20, 5), 4, ridge=1.0)
    assert len(found.picks) == 4
    assert np.isfinite(found.residual)
    assert found.report["random_residual"] is None or np.isfinite(found.report["random_residual"])


def test_equal_rows_share_what_they_stand_for() -> None:
    g = np.repeat(gradients(1, 5), 40, axis=0)
    for even in (False, True):
        found = match(g, np.ones(40), np.full(40, 3), 5, validation=g, uniform_weights=even)
        assert found.picks.tolist() == [0, 1, 2, 3, 4]  # the first of equals
        np.testing.assert_allclose(found.u, 8, rtol=1e-6)
        assert found.residual < 1e-6


@given(st.integers(0, 1_000), st.booleans())
@settings(max_examples=15, deadline=None)
def test_order_of_the_rows_does_not_matter_where_one_part_is_matched(seed: int, even: bool) -> None:
    g, n = gradients(80, seed), tokens(80, seed)
    order = np.random.default_rng(seed).permutation(80)
    one = match(g, np.ones(80), n, 8, parts=1, ridge=1.0, uniform_weights=even)
    other = match(g[order], np.ones(80), n[order], 8, parts=1, ridge=1.0, uniform_weights=even)
    assert order[other.picks].tolist() == one.picks.tolist()
    np.testing.assert_allclose(other.u, one.u, rtol=1e-6)


def test_the_solution_is_the_best_tried_on_the_validation_sketch() -> None:
    """Two sketches of the same gradients; what is fitted to one is chosen by what it leaves of the other."""
    true, n = gradients(400, 6, k=400, drift=0.1), tokens(400, 6)
    random = np.random.default_rng(6)
    g, v = ((true @ random.choice([-1, 1], (400, 24)) / np.sqrt(24)).astype(np.float32) for _ in range(2))
    found = match(g, np.ones(400), n, 60, validation=v, counts=n)
    tried = found.report["tried"]
    splits = [t for t in tried if t["ridge"] == matching.DEFAULT_RIDGE]
    assert len({t["parts"] for t in splits}) == len(splits) > 1
    best = min(splits, key=lambda t: t["validation_residual_scaled"])
    assert {t["ridge"] for t in tried if t["parts"] == best["parts"]} == set(matching.RIDGES)
    chosen = found.report["validation_residual_scaled"]
    assert chosen == min(t["validation_residual_scaled"] for t in tried)
    scale = n.sum() / (found.u @ n[found.picks])
    assert chosen == pytest.approx(residual(v, np.ones(400), found, scale), abs=1e-9)
    assert found.validation_residual == pytest.approx(residual(v, np.ones(400), found), abs=1e-9)
    overfitted = match(g, np.ones(400), n, 60, validation=v, counts=n, ridge=0.0, parts=1)
    assert overfitted.residual < 0.05 < found.residual  # no virtue: see the other sketch
    assert chosen < overfitted.report["validation_residual_scaled"]


@pytest.mark.parametrize("parts", [1, 4, 16])
def test_parts_add_up_to_the_whole_target(parts: int) -> None:
    g, a = gradients(500, 7, drift=2.0), np.random.default_rng(7).uniform(0.5, 2, 500)
    found = match(g, a, tokens(500, 7), 64, parts=parts, ridge=0.1)
    assert 0 < found.parts <= parts
    assert len(found.picks) <= 64
    assert found.residual < 0.2
    even = match(g, a, tokens(500, 7), 64, parts=parts, ridge=1e5)
    assert even.u.sum() == pytest.approx(a.sum(), rel=0.01)


def test_a_merge_matches_the_target_it_is_given() -> None:
    """Picks of two halves, weighted as they were there, are merged to the sum of all rows."""
    g, n = gradients(400, 8, drift=2.0), tokens(400, 8)
    halves = [match(g[s], np.ones(200), n[s], 40, ridge=0.1, parts=1) for s in (slice(0, 200), slice(200, 400))]
    rows = np.concatenate([halves[0].picks, 200 + halves[1].picks])
    u = np.concatenate([half.u for half in halves])
    target = g.sum(axis=0, dtype=np.float64)
    merged = match(g[rows], u, n[rows], 40, target=target, ridge=0.1)
    assert len(merged.picks) <= 40
    miss = np.linalg.norm(target - merged.u @ g[rows][merged.picks]) / np.linalg.norm(target)
    assert merged.residual == pytest.approx(miss, abs=1e-6)
    assert miss < 0.1


def test_tolerance_stops_early() -> None:
    g, n = gradients(300, 9, drift=2.0), tokens(300, 9)
    whole = match(g, np.ones(300), n, 60, ridge=0.1, parts=1)
    few = match(g, np.ones(300), n, 60, ridge=0.1, parts=1, tolerance=0.3)
    assert len(few.picks) < len(whole.picks)
    assert few.residual <= 0.3
    assert few.picks.tolist() == whole.picks[: len(few.picks)].tolist()


def test_candidates_and_factors_decide_what_is_picked() -> None:
    g, n = gradients(100, 10), tokens(100, 10)
    first = match(g, np.ones(100), n, 5, ridge=1.0, parts=1).picks
    free = np.ones(100, bool)
    free[first] = False
    others = match(g, np.ones(100), n, 5, ridge=1.0, parts=1, candidates=free)
    assert not set(others.picks) & set(first)
    assert others.residual == pytest.approx(residual(g, np.ones(100), others), abs=1e-9)  # of all rows, as ever
    factor = np.where(free, 1.0, 1e-3)
    assert match(g, np.ones(100), n, 5, ridge=1.0, parts=1, gain_factor=factor).picks[0] not in first


def test_mass_as_a_coordinate_keeps_the_sum_of_tokens() -> None:
    """With the mass in the target, weights come out adding up to it, so that scaling them changes little."""
    g, n = gradients(400, 11, drift=0.2), tokens(400, 11)
    target, total = g.sum(axis=0, dtype=np.float64), float(n.sum())
    massive, goal = with_mass(g, n, target, total)
    assert massive.shape == (400, 17)
    each = tokens_of_atoms(n)
    np.testing.assert_allclose((n / each) @ massive.astype(np.float64), goal, rtol=1e-5)
    np.testing.assert_allclose(massive[:, -1] / each, goal[-1] / total, rtol=1e-5)
    assert goal[-1] == pytest.approx(MASS * np.linalg.norm(target))
    plain = match(g, np.ones(400), n, 20, ridge=0.1, parts=1)
    with_it = match(massive, n / each, n, 20, ridge=0.1, parts=1, target=goal, counts=each)
    short = [abs(1 - u / total) for u in (plain.u @ n[plain.picks], with_it.u @ each[with_it.picks])]
    assert short[1] < 0.5 * short[0]
    nothing, zero = with_mass(g, n, np.zeros(16), total)
    assert not nothing[:, -1].any()
    assert not zero.any()


@pytest.mark.parametrize("kind", ["samples", "tokens"])
def test_a_strong_ridge_makes_weights_even_by_token(kind: str) -> None:
    """Then u is one number, whatever the lengths: as many tokens as the mass asks of those picked."""
    g, n = gradients(300, 12), np.random.default_rng(12).integers(20, 200, 300)
    target, total = g.sum(axis=0, dtype=np.float64), float(n.sum())
    atoms, goal = with_mass(g, n, target, total)
    each = tokens_of_atoms(n)
    budget = 30 if kind == "samples" else int(n.sum() * 0.1)
    found = match(atoms, n / each, n, budget, kind, ridge=1e6, parts=1, target=goal, counts=each)
    u = found.u * (each / n)[found.picks]
    np.testing.assert_allclose(u, u.mean(), rtol=1e-2)
