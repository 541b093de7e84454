"""How the forgetting of a model falls with the tokens that are replayed (docs/evidence.md, How much replay).

    rise(T) = r₀ - b · ln(1 + T / s)

r₀ is the rise of the old corpus's held-out loss without replay, b what every multiple of the replay saves, s the tokens
below which replay saves in proportion. It may fall below 0: where a model learns the old corpus from its replay.
"""

from dataclasses import dataclass

import numpy as np

LEAST_BUDGETS = 4  # three numbers are fitted, and one budget tells what they are worth
ALIKE = 1.1  # budgets within that factor are one: choosing whole windows never meets a budget to the token
_STEPS, _ROUNDS = 61, 4


@dataclass(frozen=True)
class ReplayLaw:
    """rise(T) = r₀ - b · ln(1 + T / s).

    Attributes:
        without: r₀, in the unit of the loss.
        slope: b, not negative, in the same unit.
        scale: s, in tokens, above 0.
    """

    without: float
    slope: float
    scale: float

    def rise(self, tokens: np.ndarray | float) -> np.ndarray:
        """Rises of the loss after replays of so many tokens; of the shape of ``tokens``, float64."""
        return np.asarray(self.without - self.slope * np.log1p(np.asarray(tokens, np.float64) / self.scale))

    def tokens(self, rise: float) -> float:
        """The least replay after which the loss has risen by no more than ``rise``; infinite where none is enough."""
        if rise >= self.without:
            return 0.0
        if self.slope == 0.0:
            return float("inf")
        with np.errstate(over="ignore"):
            return float(self.scale * np.expm1((self.without - rise) / self.slope))


def fit_replay_law(tokens: np.ndarray, rise: np.ndarray) -> ReplayLaw:
    """The law of least squares.

    Given s it is a line in ln(1 + T / s); s is looked for on a grid of logarithms, which is narrowed around the best
    value, from a thousandth of the smallest replay to a hundred times the largest.

    Args:
        tokens: (n,) replayed tokens, not negative, of three different values or more.
        rise: (n,) of the loss, in any unit.

    Raises:
        ValueError: there are fewer than three different values of ``tokens``.
    """
    tokens, rise = np.asarray(tokens, np.float64), np.asarray(rise, np.float64)
    if len(np.unique(tokens)) < 3:
        raise ValueError("three different numbers of tokens are needed")
    low, high = np.log(tokens[tokens > 0].min() / 1000), np.log(tokens.max() * 100)
    best, law = np.inf, ReplayLaw(float(rise.mean()), 0.0, 1.0)
    for _ in range(_ROUNDS):
        grid = np.linspace(low, high, _STEPS)
        for scale in np.exp(grid):
            found = _line(np.log1p(tokens / scale), rise, float(scale))
            missed = float(np.square(found.rise(tokens) - rise).sum())
            if missed < best:
                best, law = missed, found
        step = grid[1] - grid[0]
        low, high = np.log(law.scale) - step, np.log(law.scale) + step
    return law


def budgets_of(tokens: np.ndarray) -> np.ndarray:
    """(n,) number of each run's budget, 0, 1, … from the smallest; within a factor of ``ALIKE`` it is the same one."""
    order, numbers = np.argsort(tokens, kind="stable"), np.zeros(len(tokens), np.int64)
    number, first = -1, -1.0
    for i in order:
        if first < 0 or tokens[i] > first * ALIKE:
            number, first = number + 1, float(tokens[i])
        numbers[i] = number
    return numbers


def foretell_left_out(tokens: np.ndarray, rise: np.ndarray) -> np.ndarray:
    """What the law says of every run, fitted to the runs of all other budgets.

    Args:
        tokens: (n,) as above, of ``LEAST_BUDGETS`` budgets or more.
        rise: (n,).

    Returns:
        (n,) rises; nan for runs without replay, of which other budgets tell nothing.
    """
    budgets, said = budgets_of(tokens), np.full(len(tokens), np.nan)
    for left in np.unique(budgets[tokens > 0]):
        out = budgets == left
        said[out] = fit_replay_law(tokens[~out], rise[~out]).rise(tokens[out])
    return said


def _line(x: np.ndarray, rise: np.ndarray, scale: float) -> ReplayLaw:
    """The line rise = r₀ - b · x of least squares, b not negative."""
    centred = x - x.mean()
    slope = max(0.0, -float(centred @ rise) / float(centred @ centred))
    return ReplayLaw(float(rise.mean() + slope * x.mean()), slope, scale)
