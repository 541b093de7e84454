"""Budgets: what users may write, and shares that add up."""

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.kernels.budget import divide, largest_remainder, parse_budget, parse_tokens, token_shares

SHARES = st.lists(st.floats(0, 1e12, allow_subnormal=False), min_size=1, max_size=30).filter(lambda s: sum(s) > 0)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("5%", "fraction", Fraction(1, 20)),
        ("0.5 %", "fraction", Fraction(1, 200)),
        ("100%", "fraction", Fraction(1)),
        ("10000 samples", "samples", 10_000),
        ("1 sample", "samples", 1),
        ("500", "samples", 500),
        ("10_000", "samples", 10_000),
        ("50M tokens", "tokens", 50_000_000),
        ("1.5B tokens", "tokens", 1_500_000_000),
        ("50m Tokens", "tokens", 50_000_000),
        (" 2K samples ", "samples", 2_000),
        ("1,000 tokens", "tokens", 1_000),
    ],
)
def test_parse_budget(text, kind, value):
    budget = parse_budget(text)
    assert (budget.kind, budget.value) == (kind, value)


@pytest.mark.parametrize(
    "text", ["", "%", "0%", "101%", "-5%", "5 apples", "1.5", "1.5 samples", "5M%", "1e3", "5% tokens"]
)
def test_parse_budget_refuses_with_the_text(text):
    with pytest.raises(ValueError, match="^" + re.escape(repr(text))):
        parse_budget(text)


def test_fraction_is_exact_and_rounds_down():
    assert parse_budget("0.1%").of(29_999) == 29
    assert parse_budget("29%").of(100) == 29  # 0.29 * 100 is 28.999... in floating point
    assert parse_budget("50M tokens").of(7) == 50_000_000
    assert token_shares(49, np.ones(49)).tolist() == [1] * 49


def test_parse_tokens():
    assert parse_tokens("20M") == parse_tokens("20M tokens") == parse_tokens("20_000_000") == 20_000_000
    for text in ("5%", "20 samples", "many"):
        with pytest.raises(ValueError, match="not a number of tokens"):
            parse_tokens(text)


@given(st.integers(0, 10**9), SHARES)
def test_largest_remainder_sums_and_stays_within_one(total, shares):
    counts = largest_remainder(total, np.array(shares))
    quotas = total * (np.array(shares) / np.sum(shares))
    assert counts.sum() == total
    assert (np.abs(counts - quotas) < 1 + 1e-6).all()
    assert (counts[np.array(shares) == 0] == 0).all()


def test_largest_remainder_gives_ties_to_the_first():
    assert largest_remainder(4, np.ones(3)).tolist() == [2, 1, 1]
    assert largest_remainder(2, np.array([0.1, 0.3, 0.3, 0.3])).tolist() == [0, 1, 1, 0]


@given(st.integers(0, 10**12), SHARES)
def test_token_shares_never_exceed(total, shares):
    given_tokens = token_shares(total, np.array(shares))
    exact = [Fraction(total) * Fraction(s) / sum(map(Fraction, shares)) for s in shares]
    noise = 1 + Fraction(1, 10**14)
    assert given_tokens.sum() <= total
    assert all(e / noise - 1 <= g <= e * noise for g, e in zip(given_tokens.tolist(), exact, strict=True))


@given(st.integers(0, 10_000), st.lists(st.tuples(st.floats(0.01, 1e6), st.integers(0, 500)), min_size=1, max_size=20))
def test_divide_fills_caps_and_loses_nothing(total, parts):
    shares, caps = (np.array(column) for column in zip(*parts, strict=True))
    for unit in ("samples", "tokens"):
        result = divide(total, shares, caps, unit)
        assert (result <= caps).all()
        assert (result >= 0).all()
        wanted = min(total, caps.sum())
        slack = len(parts) if unit == "tokens" else 0  # tokens are rounded down once a part
        assert wanted - slack <= result.sum() <= wanted


def test_divide_is_in_proportion_where_no_cap_bites():
    assert divide(10, np.array([3.0, 2.0]), np.array([100, 100]), "samples").tolist() == [6, 4]
    assert divide(10, np.array([3.0, 2.0]), np.array([6, 4]), "samples").tolist() == [6, 4]
    assert divide(10, np.array([3.0, 1.0, 1.0]), np.array([2, 100, 100]), "samples").tolist() == [2, 4, 4]
