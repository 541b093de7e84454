"""The law of how forgetting falls with replay: recovered from runs that follow it, and held against a slow fit."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from cptsel.pipeline.kernels.replay_law import ReplayLaw, budgets_of, fit_replay_law, foretell_left_out

TOKENS = np.array([0, 0, 10_000, 20_000, 20_000, 40_000, 80_000], np.float64)


@pytest.mark.parametrize(
    "law", [ReplayLaw(0.23, 0.03, 400.0), ReplayLaw(0.06, 0.05, 9_000.0), ReplayLaw(0.5, 0.5, 200_000.0)]
)
def test_a_law_is_found_again(law):
    rise = law.rise(TOKENS)
    found = fit_replay_law(TOKENS, rise)
    assert found.rise(TOKENS) == pytest.approx(rise, abs=1e-4)
    assert foretell_left_out(TOKENS, rise)[TOKENS > 0] == pytest.approx(rise[TOKENS > 0], abs=2e-3)
    assert np.isnan(foretell_left_out(TOKENS, rise)[TOKENS == 0]).all()
    for tokens in (1.0, 15_000.0, 60_000.0):
        assert law.tokens(float(law.rise(tokens))) == pytest.approx(tokens)


def test_the_fit_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    for _ in range(10):
        rise = ReplayLaw(0.2, 0.03, float(np.exp(rng.uniform(5, 10)))).rise(TOKENS) + rng.normal(0, 0.01, len(TOKENS))
        slow = min(
            (
                least_squares(lambda p, r=rise: p[0] - p[1] * np.log1p(TOKENS / np.exp(p[2])) - r, [0.2, 0.03, start])
                for start in (4.0, 7.0, 10.0)
            ),
            key=lambda found: found.cost,
        )
        ours = 0.5 * np.square(fit_replay_law(TOKENS, rise).rise(TOKENS) - rise).sum()
        assert ours <= slow.cost * 1.001 or slow.x[1] < 0 or not np.log(10) < slow.x[2] < np.log(8e6)


def test_replay_that_only_harms_saves_nothing():
    law = fit_replay_law(TOKENS, 0.1 + TOKENS / 1e6)
    assert law.slope == 0
    assert law.tokens(0.0) == np.inf
    assert law.tokens(1.0) == 0


def test_what_is_left_out_is_not_fitted_to():
    rise = ReplayLaw(0.2, 0.03, 400.0).rise(TOKENS)
    wrong = rise.copy()
    wrong[TOKENS == 40_000] += 1.0
    of = TOKENS == 40_000
    assert foretell_left_out(TOKENS, wrong)[of] == pytest.approx(foretell_left_out(TOKENS, rise)[of])


def test_budgets_that_windows_made_differ_are_one():
    assert budgets_of(np.array([20_480, 0, 10_234, 10_239, 20_472, 0, 12_000])).tolist() == [3, 0, 1, 1, 3, 0, 2]


def test_three_budgets_at_least():
    with pytest.raises(ValueError, match="three"):
        fit_replay_law(np.array([0.0, 1.0]), np.array([1.0, 0.5]))
