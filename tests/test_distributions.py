"""Shares and quantiles of distributions, against counting one by one."""

import numpy as np
import pytest

from cptsel.pipeline.reporting.distributions import QUANTILES, Bins, Series, bins_of


def series(values, counts=None):
    values = np.asarray(values, np.float64)
    return Series(
        "corpus", "corpus", values, np.ones(len(values)) if counts is None else np.asarray(counts, np.float64)
    )


def test_quantiles_are_those_of_repeated_values():
    rng = np.random.default_rng(0)
    values, counts = rng.normal(size=50), rng.integers(1, 9, 50)
    expected = np.quantile(np.repeat(values, counts), QUANTILES, method="inverted_cdf")
    np.testing.assert_allclose(series(values, counts).quantiles(), expected)
    assert series([]).quantiles() == [None] * len(QUANTILES)


@pytest.mark.parametrize("values", [[1, 1, 2, 4], np.arange(1000), np.geomspace(0.1, 1e6, 40), [3.5], [0, 0], [-2, 5]])
@pytest.mark.parametrize("whole", [False, True])
def test_shares_add_up_whatever_the_values(values, whole):
    one = series(values)
    bins = bins_of([one, series([])], whole)
    assert bins.shares(one).sum() == pytest.approx(1)
    assert (np.diff(bins.edges) > 0).all()
    ticks = np.array(bins.ticks())
    assert 1 <= len(ticks) <= 8
    assert ((bins.places(ticks) >= -1e-9) & (bins.places(ticks) <= 1 + 1e-9)).all()
    if whole:
        assert (ticks == ticks.round()).all()


def test_a_wide_range_is_logarithmic_and_few_counts_have_a_bin_each():
    assert bins_of([series(np.geomspace(1, 1e4, 99))]).log
    assert not bins_of([series(np.linspace(1, 2, 99))]).log
    counts = bins_of([series([1, 1, 3])], whole_numbers=True)
    np.testing.assert_allclose(counts.shares(series([1, 1, 3])), [2 / 3, 0, 1 / 3])
    assert bins_of([series([])]) is None


def test_what_is_not_known_is_left_out():
    assert series([1, np.nan, 2]).finite().values.tolist() == [1, 2]
    assert isinstance(bins_of([series([1, np.nan]).finite()]), Bins)
