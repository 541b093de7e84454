"""How much may be picked: budgets as users write them, and their division into whole samples or tokens.

See docs/design.md, Budgets.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

Kind = Literal["fraction", "samples", "tokens"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_AMOUNT = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([KMBT]?)\s*(?:(%)|(sample|token|document)s?)?", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """A parsed ``--budget``: a fraction of the candidate samples, or a count of samples or of tokens.

    Attributes:
        kind: what was written.
        value: above 0; at most 1 for a fraction, whole for a count.
    """

    kind: Kind
    value: Fraction

    def of(self, samples: int) -> int:
        """The budget in its own unit (samples or tokens), given the number of candidate samples; rounded down."""
        return int(self.value * samples) if self.kind == "fraction" else int(self.value)

    @property
    def unit(self) -> Literal["samples", "tokens"]:
        """What the budget counts; a fraction counts samples."""
        return "tokens" if self.kind == "tokens" else "samples"


def parse_budget(text: str) -> Budget:
    """Read ``5%``, ``0.5 %``, ``10000 samples``, ``500`` (samples), ``50M tokens``, ``1.5B tokens``.

    K, M, B and T are powers of 1000; digits may be grouped by ``_`` or ``,``.

    Raises:
        ValueError: not of that form, not positive, above 100 %, or not a whole number of samples or tokens.
    """
    try:
        value, unit = parse_amount(text, ("sample", "token"))
    except LookupError:
        raise ValueError(f"{text!r} is not a budget: write 5%, 10000 samples or 50M tokens") from None
    if unit == "%":
        return Budget("fraction", value)
    return Budget("tokens" if unit == "token" else "samples", value)


def parse_amount(text: str, units: Sequence[str]) -> tuple[Fraction, str | None]:
    """Read a share or a count.

    Args:
        text: such as ``2%``, ``500`` or ``50M tokens``.
        units: names of what may be counted, in the singular.

    Returns:
        The share, in (0, 1], and ``%``; or the count and its unit, None where none is written.

    Raises:
        LookupError: not of that form.
        ValueError: not positive, above 100 %, or not a whole number.
    """
    match = _AMOUNT.fullmatch(text.strip())
    digits, suffix, percent, word = match.groups() if match else ("", "", "", "")
    unit = percent or (word.lower() if word else None)
    if match is None or unit not in (None, "%", *units):
        raise LookupError(text)
    value = Fraction(digits.replace("_", "").replace(",", "")) * _UNITS[suffix.upper()]
    if value <= 0:
        raise ValueError(f"{text!r} is nothing: it must be above 0")
    if unit == "%":
        if suffix or value > 100:
            raise ValueError(f"{text!r} is not a share: it must be above 0% and at most 100%")
        return value / 100, "%"
    if value.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number; for a share write it with %")
    return value, unit


def parse_tokens(text: str) -> int:
    """Read a number of tokens: ``20M``, ``20M tokens`` or ``20000000``.

    Raises:
        ValueError: anything else.
    """
    try:
        budget = parse_budget(text)
    except ValueError:
        budget = None
    if budget is None or budget.kind == "fraction" or text.strip().lower().endswith(("sample", "samples")):
        raise ValueError(f"{text!r} is not a number of tokens: write 20M or 20000000")
    return int(budget.value)


def largest_remainder(total: int, shares: np.ndarray) -> np.ndarray:
    """Divide ``total`` whole things in proportion to ``shares`` (Hamilton's method).

    Args:
        total: how many things, at least 0.
        shares: (n,) not negative, any scale; at least one above 0 unless total is 0.

    Returns:
        (n,) int64 with sum ``total``, each within 1 of its exact quota; a share of 0 gets 0. Ties by index.
    """
    shares = np.asarray(shares, dtype=np.float64)
    if total == 0 or len(shares) == 0:
        return np.zeros(len(shares), dtype=np.int64)
    quotas = total * (shares / shares.sum())
    counts = np.floor(quotas).astype(np.int64)
    # Equal remainders may differ in their last bits; rounding makes them ties, and the sort is stable.
    remainders = np.where(shares > 0, np.round(quotas - counts, 9), -1.0)
    first = np.argsort(-remainders, kind="stable")[: total - int(counts.sum())]
    counts[first] += 1
    return counts


def divide(total: int, shares: np.ndarray, caps: np.ndarray, floors: np.ndarray | None = None) -> np.ndarray:
    """Divide a budget in proportion to ``shares``, none above its cap or below its floor.

    Where neither bites this is ``largest_remainder``. Otherwise parts beyond a limit are set aside at it, those at
    their floors first if floors lack more than caps cut off, and what is left is divided again among the others until
    nothing moves (as flexible boxes are laid out).

    Args:
        total: the budget, in samples or tokens; more than all caps together gives the caps.
        shares: (n,) not negative; a share of 0 gets nothing, whatever its floor.
        caps: (n,) int64, what each part holds.
        floors: (n,) int64, the least that a part gets, or its cap if that is less; none by default.

    Returns:
        (n,) int64 with sum ``total``, or the sum of the caps of what has a share.

    Raises:
        ValueError: the floors together exceed the total.
    """
    shares = np.asarray(shares, dtype=np.float64)
    caps = np.asarray(caps, dtype=np.int64)
    is_open = (shares > 0) & (caps > 0)
    least = np.minimum(0 if floors is None else np.asarray(floors, np.int64), caps) * is_open
    if least.sum() > total:
        raise ValueError(f"the floors come to {least.sum():,}, more than the {total:,} that there are to divide")
    result = np.zeros(len(shares), dtype=np.int64)
    left = total
    while left > 0 and is_open.any():
        weights = np.where(is_open, shares, 0.0)
        quotas = left * (weights / weights.sum())
        low, high = is_open & (quotas < least), is_open & (quotas > caps)
        if not (low.any() or high.any()):
            return result + largest_remainder(left, weights)
        lacking, cut_off = (least - quotas)[low].sum(), (quotas - caps)[high].sum()
        set_aside, limits = (low, least) if lacking > cut_off else (high, caps)
        result[set_aside] = limits[set_aside]
        left -= int(limits[set_aside].sum())
        is_open &= ~set_aside
    return result


def carry(left: int, budget: int, used: int, more: bool) -> int:
    """What a group leaves to the next one of the tokens that it was given.

    A choice of whole samples that stops before the first one that doesn't fit leaves a part of a sample. Handed on from
    group to group, these parts are used: all groups together use the budget to within one sample.

    Args:
        left: what the group before left.
        budget: the group's own share.
        used: what was chosen from both; may be less or more than the share.
        more: whether there was a sample that didn't fit. A group that is used up leaves nothing of its own.
    """
    unused = left + budget - used
    return unused if more else min(left, unused)


def deal(left: Sequence[int], costs: Sequence[int]) -> list[bool]:
    """Which of several choices get one sample more than fits, so that all together use their budgets.

    In their order, a choice gets its sample when at least half of it has been left by the choices so far, itself among
    them, and not been given out. So the first choices of any number together are within one sample of their budgets.

    Args:
        left: what each choice leaves of its budget.
        costs: what a sample more costs beyond what was used; 0 where there is none to give.
    """
    dealt, unspent = [], 0
    for rest, cost in zip(left, costs, strict=True):
        if cost > 0:
            unspent += rest
        dealt.append(cost > 0 and 2 * unspent >= cost)
        if dealt[-1]:
            unspent -= cost
    return dealt
