"""Replay rates and their rounding to whole plays."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cptsel.pipeline.kernels.sampling.repeats import (
    Chunk,
    capped_rates,
    repeat_purpose,
    replay_scales,
    systematic_repeats,
)

SAMPLES = st.lists(st.tuples(st.floats(0.01, 1000), st.integers(1, 2048)), min_size=1, max_size=40)


def bisect(weight, n_tokens, target, cap):
    """c by bisection: slow and obvious."""
    low, high = 0.0, cap / weight.min()
    for _ in range(200):
        middle = (low + high) / 2
        played = (np.minimum(cap, middle * weight) * n_tokens).sum()
        low, high = (middle, high) if played < target else (low, middle)
    return high


def scales_of(weight, n_tokens, target, cap, cells=None, chunks=1):
    """Scale and shortfall of one group, whose samples are read in chunks."""
    cells = np.zeros(len(weight), np.int64) if cells is None else cells

    def read():
        for part in np.array_split(np.arange(len(weight)), chunks):
            yield Chunk(cells[part], weight[part], n_tokens[part])

    found = replay_scales(read, np.zeros(cells.max() + 1, np.int64), np.array([target]), cap)
    return float(found.scale[0]), float(found.shortfall[0])


@given(SAMPLES, st.floats(0, 1.5), st.integers(1, 6))
@example([(1.0, 1001)], 1e-9, 1)  # next to nothing is not nothing
def test_rates_meet_the_target_or_the_cap(samples, share, cap):
    weight, n_tokens = (np.array(column) for column in zip(*samples, strict=True))
    target = share * cap * n_tokens.sum()
    scale, shortfall = scales_of(weight, n_tokens, target, cap)
    x = capped_rates(weight, scale, cap)
    assert (x <= cap).all()
    if share >= 1:
        assert (x == cap).all()
        assert shortfall == pytest.approx(target - cap * n_tokens.sum(), abs=1e-6)
        return
    assert shortfall == 0
    assert (x * n_tokens).sum() == pytest.approx(target, rel=1e-6, abs=1e-6)
    expected = np.minimum(cap, bisect(weight, n_tokens, target, cap) * weight)
    assert np.allclose(x, expected, rtol=1e-6, atol=1e-8)


@given(SAMPLES, st.floats(0, 1.2), st.integers(1, 6), st.integers(1, 7), st.randoms())
def test_scales_are_the_same_bits_however_samples_are_cut_and_cells_come(samples, share, cap, chunks, random):
    weight, n_tokens = (np.array(column) for column in zip(*samples, strict=True))
    target = share * cap * n_tokens.sum()
    cells = np.sort(np.array([random.randrange(5) for _ in samples]))
    cells = np.unique(cells, return_inverse=True)[1]
    expected = scales_of(weight, n_tokens, target, cap, cells)
    assert scales_of(weight, n_tokens, target, cap, cells, chunks) == expected
    order = np.argsort(-cells, kind="stable")  # the cells the other way round, each as it was
    assert scales_of(weight[order], n_tokens[order], target, cap, cells[order], chunks) == expected


def test_groups_are_scaled_each_by_itself():
    rng = np.random.default_rng(0)
    weight, n_tokens = rng.lognormal(0, 2, 600), rng.integers(1, 99, 600)
    cell = np.repeat(np.arange(6), 100)
    group, target = np.array([2, 0, 1, 0, 2, 0]), np.array([9_000.0, 1e9, 4_000.0])
    found = replay_scales(lambda: [Chunk(cell, weight, n_tokens)], group, target, 4)
    for number in range(3):
        mine = group[cell] == number
        cells = np.unique(cell[mine], return_inverse=True)[1]
        expected = scales_of(weight[mine], n_tokens[mine], target[number], 4, cells)
        assert (found.scale[number], found.shortfall[number]) == expected


def test_what_weighs_nothing_is_not_played():
    weight, n_tokens = np.array([0.0, 2.0, 0.0]), np.array([5, 7, 9])
    assert capped_rates(weight, scales_of(weight, n_tokens, 14, 4)[0], 4).tolist() == [0, 2, 0]
    assert scales_of(weight, n_tokens, 30, 4) == (2, 2)
    assert scales_of(np.zeros(3), n_tokens, 30, 4) == (0, 30)


@given(st.lists(st.floats(0, 5), max_size=60), st.floats(2**-53, 1.0))
def test_repeats_are_floor_or_ceiling_and_follow_the_sum(x, u):
    repeat, _ = systematic_repeats(np.array(x), u)
    assert repeat.dtype == np.int32
    assert all(math.floor(value) <= r <= math.ceil(value) for value, r in zip(x, repeat.tolist(), strict=True))
    drift = np.cumsum(repeat) - np.cumsum(x)
    assert (np.abs(drift) <= 1 + 1e-9).all()


@given(st.lists(st.integers(0, 64).map(lambda i: i / 16), max_size=60), st.integers(1, 64).map(lambda i: i / 64))
def test_repeats_are_the_definition(x, u):
    """On multiples of 1/64 floating point is exact, so the formula of the design can be written down as it stands."""
    running = np.concatenate([[0.0], np.cumsum(x)])
    expected = np.diff(np.floor(u + running))
    assert systematic_repeats(np.array(x), u)[0].tolist() == expected.tolist()


@given(st.lists(st.floats(0, 5), max_size=60), st.floats(2**-53, 1.0), st.integers(0, 60))
def test_parts_are_rounded_to_the_bits_of_the_whole(x, u, cut):
    x = np.array(x)
    repeat, end = systematic_repeats(x, u)
    first, before = systematic_repeats(x[:cut], u)
    second, last = systematic_repeats(x[cut:], u, before)
    assert [*first, *second] == repeat.tolist()
    assert last == end


def test_expectation_over_u_is_the_rate():
    rng = np.random.default_rng(3)
    x = rng.random(40) * 4
    offsets = (np.arange(2000) + 0.5) / 2000
    mean = np.mean([systematic_repeats(x, u)[0] for u in offsets], axis=0)
    assert np.abs(mean - x).max() < 2e-3


def test_equal_weights_play_everything_once():
    n_tokens = np.arange(1, 1001)
    weight = np.full(1000, 1 / 3) * (1 + 1e-13 * np.sin(np.arange(1000)))  # equal up to noise
    x = capped_rates(weight, scales_of(weight, n_tokens, float(n_tokens.sum()), 4)[0], 4)
    assert (systematic_repeats(x, 0.37)[0] == 1).all()


def test_a_long_sum_never_breaks_the_cap():
    x = np.full(300_001, 4.0)
    x[::7] = 0.1
    repeat, _ = systematic_repeats(x, 0.999999)
    assert repeat.max() == 4
    assert abs(int(repeat.sum()) - x.sum()) < 1.001


def test_every_phase_has_a_variate_of_its_own():
    """Manifests that exist are verified by these names."""
    assert [repeat_purpose(phase) for phase in (0, 1, 12)] == ["repeat", "repeat 1", "repeat 12"]
