"""What the picks of each group come to: one pass over them each, a part at a time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cptsel.pipeline.kernels.sampling.repeats import sum_by_group
from cptsel.pipeline.selection.outcome.spilled_picks import SpilledPicks
from cptsel.pipeline.selection.outcome.weighted import Worth
from cptsel.pipeline.spill.sorting import by_value

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

# Weights that quantiles are made of, at most and about: of more, evenly spaced ones are taken, of a group those of its
# equal part of that number.
_KEPT = 1 << 20


@dataclass(frozen=True, eq=False)
class Counts:
    """``samples`` and ``tokens`` (g,) int64 of the picks, and ``found`` (g,) float64, Σ found_mass."""

    samples: np.ndarray
    tokens: np.ndarray
    found: np.ndarray


def count_picks(picks: SpilledPicks, groups: int, rows: int) -> Counts:
    """Count the picks of every group.

    Args:
        picks: those of a phase.
        groups: g.
        rows: picks that are held at once.
    """
    samples, tokens = np.zeros(groups, np.int64), np.zeros(groups, np.int64)
    found = np.zeros(len(picks.group))
    for part in picks.picks.parts(rows):
        group = picks.group[part["cell"]]
        np.add.at(samples, group, 1)
        np.add.at(tokens, group, part["n_tokens"].astype(np.int64))
        np.add.at(found, part["cell"], part["found_mass"])
    return Counts(samples, tokens, sum_by_group(found, picks.group, groups))


@dataclass(frozen=True, eq=False)
class Weights:
    """What weights w come to.

    Attributes:
        mass: (g,) float64, Σ w n.
        squares: (g,) float64, Σ w² n.
        quantiles: of each group, empty for one without a pick.
        quantiles_of_all: of the phase.
    """

    mass: np.ndarray
    squares: np.ndarray
    quantiles: Sequence[Sequence[float]]
    quantiles_of_all: Sequence[float]


def tally_weights(parts: Iterable[Worth], group: np.ndarray, samples: np.ndarray) -> Weights:
    """Sum the weights of every group, and see how they are spread.

    Args:
        parts: all picks, in order.
        group: (c,) int64 that of every cell.
        samples: (g,) int64 picks of each group.
    """
    groups, every = len(samples), max(1, -(-int(samples.sum()) // _KEPT))
    every_of = np.maximum(1, -(-samples * groups // _KEPT)) if every > 1 else np.ones(groups, np.int64)
    mass, squares = np.zeros(len(group)), np.zeros(len(group))
    least, largest = np.full(groups, np.inf), np.full(groups, -np.inf)
    kept: list[list[np.ndarray]] = [[] for _ in range(groups)]
    kept_of_all: list[np.ndarray] = []
    seen, seen_of_all = np.zeros(groups, np.int64), 0
    for part in parts:
        np.add.at(mass, part.cell, part.weight * part.n_tokens)
        np.add.at(squares, part.cell, part.weight**2 * part.n_tokens)
        np.minimum.at(least, part.group, part.weight)
        np.maximum.at(largest, part.group, part.weight)
        for number, mine in by_value(part.group):
            kept[number].append(part.weight[mine[-seen[number] % every_of[number] :: every_of[number]]])
            seen[number] += len(mine)
        kept_of_all.append(part.weight[-seen_of_all % every :: every].copy())  # a view would hold all
        seen_of_all += len(part.group)
    return Weights(
        mass=sum_by_group(mass, group, groups),
        squares=sum_by_group(squares, group, groups),
        quantiles=[_quantiles(*of) for of in zip(kept, least, largest, strict=True)],
        quantiles_of_all=_quantiles(kept_of_all, least.min(initial=np.inf), largest.max(initial=-np.inf)),
    )


def _quantiles(kept: Sequence[np.ndarray], least: float, largest: float) -> list[float]:
    if not kept:
        return []
    return [float(least), *np.quantile(np.concatenate(kept), QUANTILES[1:-1]).tolist(), float(largest)]


@dataclass(frozen=True, eq=False)
class Plays:
    """What is played, (g,) int64: ``plays``, ``samples`` that are played at all, and ``tokens``; ``cut`` (g,) float64,
    tokens that plays in proportion to the weights would play beyond the cap."""

    plays: np.ndarray
    samples: np.ndarray
    tokens: np.ndarray
    cut: np.ndarray


def tally_plays(parts: Iterable[Worth], group: np.ndarray, scale: np.ndarray, cap: int) -> Plays:
    """Count what every group plays.

    Args:
        parts: all picks, in order.
        group: (c,) int64 that of every cell.
        scale: (g,) float64 plays for each 1 of weight, were there no cap.
        cap: most plays of one sample.
    """
    plays, samples, tokens = (np.zeros(len(scale), np.int64) for _ in range(3))
    cut = np.zeros(len(group))
    for part in parts:
        np.add.at(plays, part.group, part.repeat)
        np.add.at(samples, part.group, part.repeat > 0)
        np.add.at(tokens, part.group, part.repeat * part.n_tokens)
        np.add.at(cut, part.cell, np.maximum(part.weight * scale[part.group] - cap, 0.0) * part.n_tokens)
    return Plays(plays, samples, tokens, sum_by_group(cut, group, len(scale)))
