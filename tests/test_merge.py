"""The second greedy round against the centralised choice, and the merge laws of part assignments."""

import numpy as np
import pytest

from cptsel.pipeline.kernels.coverage.craig import craig
from cptsel.pipeline.kernels.coverage.medoids import assign
from cptsel.pipeline.kernels.coverage.merge import LEAST, OVERSAMPLING, assign_part, merge, part_budget


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((40, 10))[random.integers(0, 40, n)] + 0.4 * random.standard_normal((n, 10))
    tokens = random.integers(5, 200, n)
    return x.astype(np.float32), tokens.astype(float), tokens


def parts_of(n: int, parts: int, seed: int) -> list[np.ndarray]:
    return [np.sort(p) for p in np.array_split(np.random.default_rng(seed).permutation(n), parts)]


@pytest.mark.parametrize(("kind", "budget"), [("samples", 40), ("tokens", 3000)])
def test_all_rows_as_candidates_is_the_centralised_choice(kind: str, budget: int) -> None:
    x, mass, tokens = rows(500, 0)
    central = craig(x, mass, tokens, budget, kind, neighbours=30)  # type: ignore[arg-type]
    merged = merge(x, mass, tokens, np.arange(500), budget, kind, neighbours=30)  # type: ignore[arg-type]
    np.testing.assert_array_equal(merged.picks, central.picks)
    np.testing.assert_allclose(merged.cluster_mass, central.cluster_mass)
    assert merged.mean_distance == pytest.approx(central.mean_distance, rel=1e-5)


@pytest.mark.parametrize(("parts", "floor"), [(1, 0.97), (4, 0.93)])
@pytest.mark.parametrize(("kind", "budget"), [("samples", 60), ("tokens", 4000)])
def test_parts_come_near_the_centralised_choice(parts: int, floor: float, kind: str, budget: int) -> None:
    x, mass, tokens = rows(2000, 1)
    central = craig(x, mass, tokens, budget, kind)  # type: ignore[arg-type]
    candidates = [
        p[craig(x[p], mass[p], tokens[p], part_budget(budget, len(p) / 2000), kind, refine=0).picks]  # type: ignore[arg-type]
        for p in parts_of(2000, parts, seed=1)
    ]
    merged = merge(x, mass, tokens, np.concatenate(candidates), budget, kind)  # type: ignore[arg-type]
    random = central.random_distance
    assert (random - merged.mean_distance) / (random - central.mean_distance) > floor
    if kind == "samples":
        assert len(merged.picks) == budget
    else:
        left = budget - tokens[merged.picks].sum()
        assert left >= 0
        assert (tokens[np.setdiff1d(np.concatenate(candidates), merged.picks)] > left).all()


def test_a_weighted_sample_of_clients_is_enough() -> None:
    x, mass, tokens = rows(2000, 2)
    candidates = craig(x, mass, tokens, OVERSAMPLING * 50, refine=0).picks
    clients = np.random.default_rng(2).choice(2000, 700, replace=False)
    weight = np.zeros(2000)
    weight[clients] = mass[clients] * 2000 / 700
    kept = np.union1d(clients, candidates)
    sampled = merge(x[kept], weight[kept], tokens[kept], np.searchsorted(kept, candidates), 50)
    whole = merge(x, mass, tokens, candidates, 50)
    loss = assign_part(x, mass, x[kept[sampled.picks]]).distance_sum.sum() / mass.sum()
    assert (whole.random_distance - loss) / (whole.random_distance - whole.mean_distance) > 0.85


def test_without_passes_only_candidates_are_picked() -> None:
    x, mass, tokens = rows(400, 3)
    candidates = np.random.default_rng(3).integers(0, 400, 50)
    merged = merge(x, mass, tokens, candidates, 70, refine=0)
    np.testing.assert_array_equal(np.sort(merged.picks), np.unique(candidates))
    once = merge(x, mass, tokens, np.unique(candidates), 70, refine=0)
    np.testing.assert_array_equal(merged.picks, once.picks)


@pytest.mark.parametrize("refine", [0, 2, None])
def test_rounds_hold_in_a_merge_as_they_do_in_one_cell(refine: int | None) -> None:
    x, mass, tokens = rows(400, 6)
    random = np.random.default_rng(6)
    out = {
        "candidates": random.random(400) < 0.7,
        "gain_factor": 0.5 ** random.integers(0, 3, 400),
        "covered": random.permutation(400)[:20],
    }
    central = craig(x, mass, tokens, 30, neighbours=400, refine=refine, **out)
    # K = all of the shortlist, whose farthest is nearer than the farthest of all rows: d0 and with it gains may differ.
    merged = merge(x, mass, tokens, np.arange(400), 30, neighbours=400, refine=refine, **out)
    able = out["candidates"].copy()
    able[out["covered"]] = False
    assert able[merged.picks].all()
    assert merged.cluster_mass.sum() == pytest.approx(mass.sum())
    assert merged.covered_distance == pytest.approx(central.covered_distance, rel=0.02)
    assert merged.covered_distance < merged.mean_distance
    few = merge(x, mass, tokens, np.flatnonzero(~able), 30, refine=refine, **out)
    assert len(few.picks) == 0


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_assignments_of_parts_add_up(parts: int) -> None:
    x, mass, _ = rows(600, 4)
    picks = np.sort(np.random.default_rng(4).permutation(600)[:30])
    x[picks[7]] = x[picks[3]]  # two equal picks: each keeps its own mass
    position = np.full(600, -1)
    position[picks] = np.arange(30)
    owner, distance = assign(x, picks)
    total_mass, total_distance = np.zeros(30), np.zeros(30)
    for p in parts_of(600, parts, seed=parts):
        part = assign_part(x[p], mass[p], x[picks], position[p])
        np.testing.assert_array_equal(part.owner, owner[p])
        np.testing.assert_allclose(part.distance, distance[p], rtol=1e-5, atol=1e-6)
        total_mass += part.cluster_mass
        total_distance += part.distance_sum
    np.testing.assert_allclose(total_mass, np.bincount(owner, mass, 30))
    np.testing.assert_allclose(total_distance, np.bincount(owner, mass * distance, 30), rtol=1e-5)
    assert total_mass.sum() == pytest.approx(mass.sum())
    assert (total_mass > 0).all()


def test_edges() -> None:
    x, mass, tokens = rows(20, 5)
    assert len(merge(x, mass, tokens, np.empty(0, np.int64), 5).picks) == 0
    assert len(merge(x, mass, tokens, np.arange(4), 0).picks) == 0
    assert sorted(merge(x, mass, tokens, np.arange(4), 9, refine=0).picks.tolist()) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="rows of x"):
        merge(x, mass, tokens, np.array([3, 20]), 5)
    empty = assign_part(x[:0], mass[:0], x[:3])
    assert empty.cluster_mass.tolist() == [0, 0, 0]


def test_a_part_picks_several_times_its_share_and_never_too_few_to_choose_from() -> None:
    assert part_budget(10_000, 0.25) == OVERSAMPLING * 2_500
    assert part_budget(10_000, 0.001) == LEAST
    assert part_budget(1_000_000, 0.0001, 300.0) == 300 * LEAST
    assert part_budget(10, 0.25) == 10
    assert part_budget(1, 0.01) == 1
    assert part_budget(0, 0.5) == 0


def test_small_parts_still_find_what_is_rare() -> None:
    """Many tiny heaps beside a few that hold most rows: a random part's own share would go to the large ones alone."""
    random = np.random.default_rng(7)
    heap = np.concatenate([np.repeat(np.arange(10), 300), np.repeat(np.arange(10, 70), 10)])
    x = (20 * random.standard_normal((70, 8))[heap] + random.standard_normal((3600, 8))).astype(np.float32)
    ones = np.ones(3600)
    tokens = ones.astype(np.int64)
    dealt = parts_of(3600, 24, seed=7)
    losses = {}
    for name, budgets in (("share", [OVERSAMPLING * 70 // 24] * 24), ("least", [part_budget(70, 1 / 24)] * 24)):
        picked = [p[craig(x[p], ones[p], tokens[p], b, refine=0).picks] for p, b in zip(dealt, budgets, strict=True)]
        losses[name] = merge(x, ones, tokens, np.concatenate(picked), 70).mean_distance
    central = craig(x, ones, tokens, 70).mean_distance
    assert losses["least"] < 1.02 * central
    assert losses["least"] < losses["share"]
