"""Replay rates and their rounding to whole plays."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cptsel.pipeline.kernels.sampling.repeats import repeat_purpose, replay_rates, systematic_repeats

SAMPLES = st.lists(st.tuples(st.floats(0.01, 1000), st.integers(1, 2048)), min_size=1, max_size=40)


def bisect(weight, n_tokens, target, cap):
    """c by bisection: slow and obvious."""
    low, high = 0.0, cap / weight.min()
    for _ in range(200):
        middle = (low + high) / 2
        played = (np.minimum(cap, middle * weight) * n_tokens).sum()
        low, high = (middle, high) if played < target else (low, middle)
    return high


@given(SAMPLES, st.floats(0, 1.5), st.integers(1, 6))
@example([(1.0, 1001)], 1e-9, 1)  # next to nothing is not nothing
def test_rates_meet_the_target_or_the_cap(samples, share, cap):
    weight, n_tokens = (np.array(column) for column in zip(*samples, strict=True))
    target = share * cap * n_tokens.sum()
    rates = replay_rates(weight, n_tokens, target, cap)
    assert (rates.x <= cap).all()
    if share >= 1:
        assert (rates.x == cap).all()
        assert rates.shortfall == pytest.approx(target - cap * n_tokens.sum(), abs=1e-6)
        return
    assert rates.shortfall == 0
    assert (rates.x * n_tokens).sum() == pytest.approx(target, rel=1e-6, abs=1e-6)
    expected = np.minimum(cap, bisect(weight, n_tokens, target, cap) * weight)
    assert np.allclose(rates.x, expected, rtol=1e-6, atol=1e-8)


@given(st.lists(st.floats(0, 5), max_size=60), st.floats(2**-53, 1.0))
def test_repeats_are_floor_or_ceiling_and_follow_the_sum(x, u):
    repeat = systematic_repeats(np.array(x), u)
    assert repeat.dtype == np.int32
    assert all(math.floor(value) <= r <= math.ceil(value) for value, r in zip(x, repeat.tolist(), strict=True))
    drift = np.cumsum(repeat) - np.cumsum(x)
    assert (np.abs(drift) <= 1 + 1e-9).all()


@given(st.lists(st.integers(0, 64).map(lambda i: i / 16), max_size=60), st.integers(1, 64).map(lambda i: i / 64))
def test_repeats_are_the_definition(x, u):
    """On multiples of 1/64 floating point is exact, so the formula of the design can be written down as it stands."""
    running = np.concatenate([[0.0], np.cumsum(x)])
    expected = np.diff(np.floor(u + running))
    assert systematic_repeats(np.array(x), u).tolist() == expected.tolist()


def test_expectation_over_u_is_the_rate():
    rng = np.random.default_rng(3)
    x = rng.random(40) * 4
    offsets = (np.arange(2000) + 0.5) / 2000
    mean = np.mean([systematic_repeats(x, u) for u in offsets], axis=0)
    assert np.abs(mean - x).max() < 2e-3


def test_equal_weights_play_everything_once():
    n_tokens = np.arange(1, 1001)
    weight = np.full(1000, 1 / 3) * (1 + 1e-13 * np.sin(np.arange(1000)))  # equal up to noise
    rates = replay_rates(weight, n_tokens, float(n_tokens.sum()), 4)
    assert (systematic_repeats(rates.x, 0.37) == 1).all()


def test_a_long_sum_never_breaks_the_cap():
    x = np.full(300_001, 4.0)
    x[::7] = 0.1
    repeat = systematic_repeats(x, 0.999999)
    assert repeat.max() == 4
    assert abs(int(repeat.sum()) - x.sum()) < 1.001


def test_every_phase_has_a_variate_of_its_own():
    """Manifests that exist are verified by these names."""
    assert [repeat_purpose(phase) for phase in (0, 1, 12)] == ["repeat", "repeat 1", "repeat 12"]
