"""From weights to whole numbers of plays: capped rates and systematic rounding (docs/design.md, Weights)."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

# A rate this near a whole number is that number: c·w carries float64 noise, and 0.9999999999 plays are one play.
_SNAP = 1e-9


def repeat_purpose(phase: int) -> str:
    """What a group's uniform variate of a phase is drawn for: the second part of its hash (seed, purpose, group)."""
    return "repeat" if phase == 0 else f"repeat {phase}"


class Chunk(NamedTuple):
    """Some samples: the ``cell`` (m,) integer of each, its ``weight`` a token (m,) and ``n_tokens`` (m,) int64."""

    cell: np.ndarray
    weight: np.ndarray
    n_tokens: np.ndarray


@dataclass(frozen=True)
class Scales:
    """``scale`` (g,) float64, c of each group, and ``shortfall`` (g,), tokens that no sample below the cap can play."""

    scale: np.ndarray
    shortfall: np.ndarray


def sum_by_group(by_cell: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """(g,) float64 sums over the cells of each group, correctly rounded, so that the order of cells does not matter.

    Args:
        by_cell: (c,) float64; group: (c,) that of each cell.
        groups: g.
    """
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group, minlength=groups)).tolist()
    values = by_cell[order].tolist()
    return np.array([math.fsum(values[start:end]) for start, end in pairwise([0, *ends])])


def replay_scales(
    chunks: Callable[[], Iterable[Chunk]], group: np.ndarray, target_tokens: np.ndarray, cap: int
) -> Scales:
    """Find c_g with Σ min(cap, c_g·w_j)·n_j = target_g: what reaches the cap stays there, the rest is scaled anew.

    That is Newton's method on a function that is concave, linear between the points where samples reach the cap, and
    met from below: it ends after a few steps, at the root. Sums are of each cell in the order of its samples, then of
    cells correctly rounded: the same bits however samples are cut into chunks and cells come.

    Args:
        chunks: gives all samples, as often as it is called; those of a cell always in one order. What weighs nothing
            is not played.
        group: (c,) the group of each cell.
        target_tokens: (g,) tokens to be played by the samples of each group, not negative.
        cap: most plays of one sample.
    """
    groups = len(target_tokens)
    mass, full, lightest = np.zeros(len(group)), np.zeros(groups, np.int64), np.full(groups, np.inf)
    for cell, weight, n_tokens in chunks():
        some = weight > 0
        np.add.at(mass, cell, weight * n_tokens)
        np.add.at(full, group[cell[some]], cap * n_tokens[some])
        np.minimum.at(lightest, group[cell[some]], weight[some])
    total = sum_by_group(mass, group, groups)
    short = target_tokens >= full
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(short, np.where(full > 0, cap / lightest, 0.0), target_tokens / total)
    at_cap = np.zeros(groups, np.int64)
    going = ~short
    while going.any():
        rest, capped = np.zeros(len(group)), np.zeros(groups, np.int64)
        for cell, weight, n_tokens in chunks():
            full_play = scale[group[cell]] * weight > cap
            np.add.at(capped, group[cell[full_play]], cap * n_tokens[full_play])
            np.add.at(rest, cell[~full_play], (weight * n_tokens)[~full_play])
        left = sum_by_group(rest, group, groups)
        going &= (capped > at_cap) & (left > 0)  # rounding alone can put all at the cap
        at_cap = capped
        scale[going] = (target_tokens - at_cap)[going] / left[going]
    return Scales(scale, np.where(short, target_tokens - full, 0.0))


def capped_rates(weight: np.ndarray, scale: np.ndarray | float, cap: int) -> np.ndarray:
    """x_j = min(cap, c·weight_j), how often each sample is to be played on average: (m,) float64.

    Args:
        weight: (m,) float64 not negative.
        scale: c, (m,) of each sample's group or one for all.
        cap: most plays of one sample.
    """
    x = np.where(weight > 0, np.minimum(float(cap), scale * weight), 0.0)
    nearest = np.round(x)
    return np.where(np.abs(x - nearest) <= _SNAP * x, nearest, x)


def systematic_repeats(x: np.ndarray, u: float, before: float = 0.0) -> tuple[np.ndarray, float]:
    """repeat_j = ⌊u + X_j⌋ − ⌊u + X_{j−1}⌋ with X the running sum of x: (m,) int32, each ⌊x⌋ or ⌈x⌉.

    Only the fractional parts are summed: the same in exact arithmetic, and a whole rate gives exactly itself however
    long the sum. The counts are E = x over u, and any run of samples is off by less than 1 in total.

    Args:
        x: (m,) float64 not negative, in order of sample_id.
        u: one uniform variate in (0, 1] for all of them.
        before: the running sum of the samples that came before these.

    Returns:
        The counts, and the running sum behind the last one.
    """
    x = np.asarray(x, dtype=np.float64)
    whole = np.floor(x)
    running = np.cumsum(np.concatenate([[before], x - whole]))  # one addition after the other: parts give the same bits
    return (whole + np.diff(np.floor(u + running))).astype(np.int32), float(running[-1])
