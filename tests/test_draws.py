"""Priority sampling against its definition and its promise: inclusion probabilities that make sums unbiased."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.kernels.sampling.draws import crossing_room, priority_sample

ROWS = st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.001, 1), st.integers(1, 50)), min_size=1, max_size=30)


def reference(scores, u, budget, n_tokens):
    """The definition, one sample after the other."""
    keys = [(-s / x, i) for i, (s, x) in enumerate(zip(scores, u, strict=True))]
    picked, used = [], 0
    for negative, i in sorted(keys):
        used += 1 if n_tokens is None else n_tokens[i]
        if used > budget:
            return picked, -negative
        picked.append(i)
    return picked, 0.0


@given(ROWS, st.integers(0, 200), st.booleans())
def test_matches_the_definition(rows, budget, by_tokens):
    scores, u, n_tokens = (np.array(column) for column in zip(*rows, strict=True))
    draw = priority_sample(scores, u, budget, n_tokens if by_tokens else None)
    picked, threshold = reference(scores, u, budget, n_tokens if by_tokens else None)
    assert draw.picked.tolist() == picked
    assert draw.threshold == pytest.approx(threshold)
    expected = [1.0 if threshold == 0 else min(1.0, scores[i] / threshold) for i in picked]
    assert draw.inclusion_prob.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("by_tokens", [False, True])
def test_sums_are_unbiased(by_tokens):
    rng = np.random.default_rng(7)
    n, trials = 60, 4000
    scores = rng.lognormal(size=n)
    n_tokens = rng.integers(1, 40, n)
    values = rng.lognormal(size=n) * n_tokens
    estimates = []
    for _ in range(trials):
        u = 1.0 - rng.random(n)
        draw = priority_sample(scores, u, 300 if by_tokens else 15, n_tokens if by_tokens else None)
        estimates.append((values[draw.picked] / draw.inclusion_prob).sum())
    error = np.std(estimates) / np.sqrt(trials)
    assert abs(np.mean(estimates) - values.sum()) < 4 * error
    assert error < 0.02 * values.sum()  # or the line above would say nothing


def test_nested_in_the_budget_and_zero_scores_stay_out():
    rng = np.random.default_rng(1)
    u = 1.0 - rng.random(50)
    scores = np.where(np.arange(50) % 5 == 0, 0.0, 1.0)
    small, large = priority_sample(scores, u, 10), priority_sample(scores, u, 20)
    assert large.picked[:10].tolist() == small.picked.tolist()
    everything = priority_sample(scores, u, 50)
    assert sorted(everything.picked) == [i for i in range(50) if i % 5]
    assert (everything.inclusion_prob == 1).all()


def test_ties_go_to_the_first():
    assert priority_sample(np.ones(4), np.full(4, 0.5), 2).picked.tolist() == [0, 1]


@pytest.mark.parametrize("lengths", ["equal", "mixed"])
def test_room_for_the_crossing_sample_makes_tokens_right_on_average(lengths):
    rng = np.random.default_rng(3)
    n, budget, trials = 400, 1_150, 3000
    n_tokens = np.full(n, 256) if lengths == "equal" else rng.integers(1, 257, n)
    scores = rng.lognormal(0.0, 0.5, n)
    taken = []
    for _ in range(trials):
        room = crossing_room(scores, n_tokens, 1.0 - rng.random())
        draw = priority_sample(scores, 1.0 - rng.random(n), budget + room, n_tokens)
        taken.append(n_tokens[draw.picked].sum())
    error = np.std(taken) / np.sqrt(trials)
    assert abs(np.mean(taken) - budget) < 4 * error + (0 if lengths == "equal" else 0.01 * budget)
    assert error < 0.003 * budget
    assert crossing_room(np.zeros(3), np.ones(3), 0.5) == 0
