"""``cptsel plan``: how much replay a tolerated rise of the old loss needs, from a few small trainings."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from cptsel.pipeline.config import check_values
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.kernels.budget import parse_tokens
from cptsel.pipeline.kernels.replay_law import (
    ReplayLaw,
    budgets_of,
    fit_replay_law,
    foretell_left_out,
)
from cptsel.pipeline.planning.config import PlanConfig
from cptsel.pipeline.planning.trainings import read_trainings
from cptsel.pipeline.results import PlanResult
from cptsel.pipeline.summary import Table

MOST_ERROR = 0.25  # of what the largest replay saved; above it the law tells nothing
FARTHEST = 2.0  # times the largest replay; what was measured beyond is in docs/evidence.md


def plan(config: PlanConfig) -> PlanResult:
    """Fit the law, and tell what it is worth and what it says.

    Returns:
        The law, its error on replays that were left out, and what was asked for.

    Raises:
        UsageError: an option out of range; a file that can't be read, has other columns or too few replays; an amount
            far beyond those that were tried, or trainings that do not follow the law, both with the summary of the fit.
        BadInputError: a row is not of two numbers.
    """
    check_values(config)
    asked = _tokens_of(config.tokens)
    tokens, rise = read_trainings(config.trainings)
    law, left_out = fit_replay_law(tokens, rise), foretell_left_out(tokens, rise)
    fit = _table_of_fit(law, tokens, rise, left_out)
    missed = np.array([row[-1] - row[2] for row in fit.rows if row[-1] is not None])
    error = float(np.sqrt(np.mean(missed**2)))
    none, largest, twice = law.rise(tokens.max() * np.arange(3)).tolist()
    found = PlanResult(
        out=None,
        status="done",
        trainings=len(rise),
        rise_without_replay=law.without,
        saved_by_doubling=largest - twice,
        saved_by_the_largest=none - largest,
        scale=law.scale,
        error=error,
        tables=[fit],
    )
    problem = None
    if found.saved_by_the_largest <= 1e-9 * float(np.abs(rise).max()):  # but for rounding
        problem = UsageError(
            f"{config.trainings}: rise does not fall with replay_tokens, so there is nothing to plan by; look whether "
            "the columns are what they should be, or add trainings with more replay"
        )
    elif not error <= MOST_ERROR * found.saved_by_the_largest:
        problem = UsageError(
            f"{config.trainings}: the rise of replays that were left out is missed by {error:.3g}, and the largest "
            f"replay saves {found.saved_by_the_largest:.3g}: too much to plan by; add trainings with other seeds, or "
            "amounts farther apart"
        )
    if problem is not None:
        problem.summary = replace(found, status="no law")
        raise problem
    farthest = FARTHEST * float(tokens.max())
    try:
        if asked:
            found = replace(found, tables=[fit, _foretold(law, asked, error, farthest)])
        return found if config.rise is None else _needed(found, law, config.rise, farthest)
    except UsageError as too_far:
        too_far.summary = replace(found, status="too far")
        raise


def _foretold(law: ReplayLaw, asked: list[int], error: float, farthest: float) -> Table:
    for amount in asked:
        if amount > farthest:
            raise UsageError(f"--tokens {amount:,}: {_far(farthest)}")
    rises = law.rise(np.array(asked)).tolist()
    rows = [[amount, rise, rise - error, rise + error] for amount, rise in zip(asked, rises, strict=True)]
    return Table("Foretold", ["tokens", "rise", "at least", "at most"], rows)


def _needed(found: PlanResult, law: ReplayLaw, tolerated: float, farthest: float) -> PlanResult:
    """With the replay that a tolerated rise needs."""
    least, needed, most = (law.tokens(tolerated + change) for change in (found.error, 0.0, -found.error))
    if needed > farthest:
        raise UsageError(
            f"--rise {tolerated:g}: by the law it needs more replay than can be told, and {farthest:,.0f} tokens leave "
            f"a rise of {float(law.rise(farthest)):.3g}; {_far(farthest)}"
        )
    far = f"with its error the law may need more than {farthest:,.0f} tokens; train with more to know"
    return replace(
        found,
        tolerated_rise=tolerated,
        tokens_needed=math.ceil(needed),
        tokens_at_least=math.ceil(least),
        tokens_at_most=math.ceil(most) if most <= farthest else None,
        warnings=[] if most <= farthest else [far],
    )


def _tokens_of(texts: tuple[str, ...]) -> list[int]:
    try:
        return [parse_tokens(text) for text in texts]
    except ValueError as error:
        raise UsageError(f"--tokens: {error}") from None


def _far(farthest: float) -> str:
    return f"the law is not trusted beyond {farthest:,.0f} tokens, twice the largest replay; train with more"


def _table_of_fit(law: ReplayLaw, tokens: np.ndarray, rise: np.ndarray, left_out: np.ndarray) -> Table:
    """A row a budget: means over its trainings."""
    rows: list[list[Any]] = []
    budgets = budgets_of(tokens)
    for number in np.unique(budgets):
        of = budgets == number
        mean = float(tokens[of].mean())
        said = None if mean == 0 else float(left_out[of].mean())
        rows.append([round(mean), int(of.sum()), float(rise[of].mean()), float(law.rise(mean)), said])
    return Table("Trainings by replay", ["tokens", "trainings", "rise", "by the law", "by the law without it"], rows)
