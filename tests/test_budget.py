"""Budgets: what users may write, and shares that add up."""

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.kernels.budget import carry, deal, divide, largest_remainder, parse_budget, parse_tokens

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
    assert largest_remainder(49, np.ones(49)).tolist() == [1] * 49


def test_parse_tokens():
    assert parse_tokens("20M") == parse_tokens("20M tokens") == parse_tokens("20_000_000") == 20_000_000
    for text in ("5%", "20 samples", "many"):
        with pytest.raises(ValueError, match="not a number of tokens"):
            parse_tokens(text)


@given(st.integers(0, 10**13), SHARES)
def test_largest_remainder_sums_and_stays_within_one(total, shares):
    counts = largest_remainder(total, np.array(shares))
    quotas = total * (np.array(shares) / np.sum(shares))
    assert counts.sum() == total
    assert (np.abs(counts - quotas) < 1 + 1e-6).all()
    assert (counts[np.array(shares) == 0] == 0).all()


def test_largest_remainder_gives_ties_to_the_first():
    assert largest_remainder(4, np.ones(3)).tolist() == [2, 1, 1]
    assert largest_remainder(2, np.array([0.1, 0.3, 0.3, 0.3])).tolist() == [0, 1, 1, 0]


@given(st.integers(0, 10_000), st.lists(st.tuples(st.floats(0.01, 1e6), st.integers(0, 500)), min_size=1, max_size=20))
def test_divide_fills_caps_and_loses_nothing(total, parts):
    shares, caps = (np.array(column) for column in zip(*parts, strict=True))
    result = divide(total, shares, caps)
    assert (result <= caps).all()
    assert (result >= 0).all()
    assert result.sum() == min(total, caps.sum())


def test_divide_is_in_proportion_where_no_cap_bites():
    assert divide(10, np.array([3.0, 2.0]), np.array([100, 100])).tolist() == [6, 4]
    assert divide(10, np.array([3.0, 2.0]), np.array([6, 4])).tolist() == [6, 4]
    assert divide(10, np.array([3.0, 1.0, 1.0]), np.array([2, 100, 100])).tolist() == [2, 4, 4]


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 300), st.booleans()), max_size=40))
def test_dealing_keeps_the_first_choices_of_any_number_within_a_sample(parts):
    left = [min(rest, cost - 1) for rest, cost, _ in parts]  # what is left fits no sample
    costs = [cost if has_more else 0 for _, cost, has_more in parts]
    dealt = deal(left, costs)
    unspent = np.cumsum(
        [rest * (cost > 0) - cost * takes for rest, cost, takes in zip(left, costs, dealt, strict=True)]
    )
    assert (np.abs(unspent) <= max(costs, default=0)).all()
    assert not any(takes for takes, cost in zip(dealt, costs, strict=True) if not cost)


def test_dealing_gives_every_other_choice_that_leaves_half_a_sample_one_more():
    assert deal([128] * 6, [256] * 6) == [True, False] * 3
    assert deal([100, 100, 0, 100], [0, 256, 256, 256]) == [False, False, False, True]


@given(st.lists(st.tuples(st.integers(1, 2000), st.lists(st.integers(1, 300), max_size=30)), min_size=1, max_size=12))
def test_groups_that_hand_on_what_they_leave_use_the_budget_to_within_a_sample(groups):
    left, used_in_all, budgets = 0, 0, 0
    for share, costs in groups:
        budget = min(share, sum(costs))
        filled = np.cumsum(costs)
        taken = int(np.searchsorted(filled, budget + left, side="right"))
        used = int(filled[taken - 1]) if taken else 0
        left = carry(left, budget, used, taken < len(costs))
        used_in_all, budgets = used_in_all + used, budgets + budget
        assert 0 <= left <= 300
    assert 0 <= budgets - used_in_all <= 300
