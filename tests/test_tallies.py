"""Sums and quantiles of picks, a part at a time."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.selection.outcome import tallies
from cptsel.pipeline.selection.outcome.tallies import QUANTILES, tally_weights
from cptsel.pipeline.selection.outcome.weighted import Worth

GROUPS = 3


def worths(weight, group, rows):
    for start in range(0, len(weight), rows):
        some, ones = slice(start, start + rows), np.ones(len(weight[start : start + rows]), np.int64)
        yield Worth(group[some], group[some], ones, weight[some], ones, ones, ones)


@given(st.integers(0, 2**32), st.integers(1, 80), st.integers(1, 9), st.sampled_from([3, 7, 20, 1000]))
def test_quantiles_are_of_evenly_spaced_weights_however_they_are_cut(seed, count, rows, kept):
    rng = np.random.default_rng(seed)
    weight, group = rng.random(count), rng.choice(GROUPS, count, p=[0.7, 0.3, 0.0])
    samples = np.bincount(group, minlength=GROUPS)

    def spaced(values, share):
        if not len(values):
            return []
        every = math.ceil(len(values) * share / kept) if count > kept else 1
        inside = np.quantile(values[::every], QUANTILES[1:-1])
        return [values.min(), *inside.tolist(), values.max()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tallies, "_KEPT", kept)
        found = tally_weights(worths(weight, group, rows), np.arange(GROUPS), samples)
    assert found.quantiles_of_all == spaced(weight, 1)
    for number in range(GROUPS):
        assert found.quantiles[number] == spaced(weight[group == number], GROUPS)
    assert found.mass.tolist() == pytest.approx(np.bincount(group, weight, GROUPS).tolist())


def test_of_many_weights_few_are_held(monkeypatch):
    monkeypatch.setattr(tallies, "_KEPT", 1_000)
    count, rows = 400_000, 5_000

    def parts():
        for start in range(0, count, rows):
            yield from worths(np.arange(start, start + rows, dtype=float), np.arange(rows) % GROUPS, rows)

    tracemalloc.start()
    try:
        tally_weights(parts(), np.arange(GROUPS), np.full(GROUPS, count // GROUPS))
        assert tracemalloc.get_traced_memory()[1] < count * 8 // 2  # all weights are twice that
    finally:
        tracemalloc.stop()
