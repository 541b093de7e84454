"""Shard order: unbiased prefixes, balanced ranks, the same for any order of the input."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.sampling.shard_order import (
    assign_ranks,
    order_report,
    plan_epoch,
    proposal,
)


def draw(rng, shards):
    t = rng.integers(1, 1000, shards)
    return t * rng.lognormal(0, 1, shards), t


@pytest.mark.parametrize("staleness", [0.0, 0.1, 3.0])
def test_proposal_is_the_formula(staleness):
    x, t = draw(np.random.default_rng(0), 50)
    q = proposal(x, t, staleness)
    expected = [xi + staleness * ti * x.sum() / t.sum() for xi, ti in zip(x, t, strict=True)]
    np.testing.assert_allclose(q, expected, rtol=1e-12)


def test_proposal_without_norms_counts_tokens():
    t = np.array([1, 2, 5])
    q = proposal(np.zeros(3), t, 0.5)
    np.testing.assert_allclose(q / q.sum(), t / t.sum())


@pytest.mark.parametrize(
    ("x", "t", "staleness"),
    [([np.nan], [1], 0.1), ([-1.0], [1], 0.1), ([1.0], [0], 0.1), ([1.0], [1], -1), ([0.0, 1.0], [1, 1], 0)],
)
def test_proposal_refuses_what_it_cannot_draw(x, t, staleness):
    with pytest.raises(ValueError, match="must be"):
        proposal(np.array(x), np.array(t), staleness)


@pytest.mark.parametrize("k", [3, 10, 25])
def test_prefix_totals_are_unbiased(k):
    """Monte-Carlo over 4,000 seeds: what CONSUMING.md says to do with a prefix has a mean within 4 standard errors."""
    rng = np.random.default_rng(1)
    x, t = draw(rng, 40)
    q = proposal(x, t, 0.1)
    totals = {"tokens": t, "norms": x, "one": np.ones(40), "odd": rng.normal(size=40) * t}
    names = [f"shard-{i}" for i in range(40)]
    estimates = {name: [] for name in totals}
    naive = []
    for seed in range(4000):
        priority = q / uniform(seed, "order/0/0", names)
        order = plan_epoch(np.ones(40, dtype=np.int16), t, priority, np.arange(40), 1).visit
        first, threshold = order[:k], priority[order[k]]
        pi = np.minimum(1, q[first] / threshold)
        for name, values in totals.items():
            estimates[name].append((values[first] / pi).sum())
        naive.append(t[first].sum() * 40 / k)
    for name, values in totals.items():
        found = np.array(estimates[name])
        error = found.std(ddof=1) / np.sqrt(len(found))
        assert abs(found.mean() - values.sum()) < 4 * error, name
    naive = np.array(naive)  # the same test does see bias: an unweighted prefix fails it by far
    assert abs(naive.mean() - t.sum()) > 10 * naive.std(ddof=1) / np.sqrt(len(naive))


def test_variance_ratio_is_the_measured_one():
    """Vectors g_s with norms x_s: the ratio lies between the two reported, and is met where gradients are parallel."""
    rng = np.random.default_rng(2)
    x, t = draw(rng, 30)
    q = proposal(x, t, 0.1)
    report = order_report(q, x, t)

    def trace(p, g):  # Tr of the covariance of g_s / p_s, s drawn with probability p
        return (p * (g**2).sum(1) / p**2).sum() - (g.sum(0) ** 2).sum()

    directions = rng.normal(size=(30, 8))
    g = x[:, None] * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    p, uniformly = q / q.sum(), np.full(30, 1 / 30)
    assert report.variance_ratio is not None
    assert report.variance_ratio < trace(p, g) / trace(uniformly, g) < report.variance_ratio_bound < 1
    parallel = x[:, None] * np.ones((1, 1))
    assert trace(p, parallel) / trace(uniformly, parallel) == pytest.approx(report.variance_ratio)


def test_effective_shards_is_kish_of_the_importance_weights():
    x, t = draw(np.random.default_rng(3), 30)
    q = proposal(x, t, 0.1)
    p, w = q / q.sum(), t / q
    assert order_report(q, x, t).effective_shards == pytest.approx(30 * (p * w).sum() ** 2 / (p * w * w).sum())
    assert order_report(t.astype(float), x, t).effective_shards == pytest.approx(30)


def test_reports_of_degenerate_inputs():
    one = np.ones(1)
    assert order_report(one, one, one).variance_ratio is None
    assert order_report(np.ones(5), np.ones(5), np.ones(5)).variance_ratio is None  # nothing to reduce
    assert order_report(np.empty(0), np.empty(0), np.empty(0)).shards == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 10_000), max_size=60), st.integers(1, 12))
def test_ranks_are_balanced_within_the_largest_visit(sizes, world_size):
    tokens = np.array(sizes, dtype=np.int64)
    rank = assign_ranks(tokens, world_size)
    loads = np.bincount(rank, weights=tokens, minlength=world_size)
    assert loads.sum() == tokens.sum()
    assert loads.max() - loads.min() <= max(sizes, default=0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 500), min_size=1, max_size=4), min_size=1, max_size=12), st.integers(1, 5),
       st.randoms(use_true_random=False))  # fmt: skip
def test_plan_plays_every_visit_once_and_ignores_the_order_of_its_input(shards, world_size, random):
    visits = [(s, p + 1, size) for s, sizes in enumerate(shards) for p, size in enumerate(sizes)]
    key = {s: random.choice([1.0, 2.0, random.random()]) for s in range(len(shards))}  # with ties

    def plan(rows):
        ids, passes, tokens = (np.array(column) for column in zip(*rows, strict=True))
        made = plan_epoch(passes, tokens, np.array([key[s] for s in ids]), ids, world_size)
        return [
            (r, n, o, *rows[v])
            for r, n, o, v in zip(
                made.rank.tolist(), made.position.tolist(), made.order.tolist(), made.visit.tolist(), strict=True
            )
        ], made

    rows, made = plan(visits)
    assert sorted(row[3:] for row in rows) == visits
    assert sorted(row[2] for row in rows) == list(range(len(visits)))
    for _, of_rank in itertools.groupby(rows, key=lambda row: row[0]):
        of_rank = list(of_rank)
        assert [row[1] for row in of_rank] == list(range(len(of_rank)))
        assert [row[2] for row in of_rank] == sorted(row[2] for row in of_rank)
    played = [row[3:] for row in sorted(rows, key=lambda row: row[2])]
    assert played == sorted(visits, key=lambda row: (row[1], -key[row[0]], row[0]))
    loads = [sum(row[5] for row in rows if row[0] == rank) for rank in range(world_size)]
    assert made.loads.tolist() == loads
    shuffled = visits[:]
    random.shuffle(shuffled)
    assert plan(shuffled)[0] == rows


def test_a_million_shards():
    rng = np.random.default_rng(4)
    x, t = draw(rng, 1_000_000)
    q = proposal(x, t, 0.1)
    u = uniform(0, "order/0/0", map(str, range(1_000_000)))
    made = plan_epoch(np.ones(1_000_000, dtype=np.int16), t, q / u, np.arange(1_000_000), 512)
    assert made.loads.sum() == t.sum()
    assert made.loads.max() - made.loads.min() <= t.max()
    assert 0 < order_report(q, x, t).variance_ratio < 1
