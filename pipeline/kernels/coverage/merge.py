"""Merging the coresets of parts: a second greedy round over the union of what the parts picked.

As in GreeDi (Mirzasoleiman et al. 2013; Barbosa et al. 2015), with the two changes that measured well: each part picks
several times its share, so that the second round has a choice, and that round is scored on clients of all parts, not on
the picks alone, each client through its K nearest candidates. Medoid passes over all clients follow, and then every
part assigns its own samples to the picks, which adds up to exact cluster masses wherever the samples lie.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cptsel.pipeline.kernels.coverage.craig import BudgetKind, Cell, CraigResult, choose
from cptsel.pipeline.kernels.neighbours import Links, nearest
from cptsel.pipeline.kernels.threads import same_on_any_threads

#: How many times its share of the budget each part picks, and the samples it picks at least, unless the whole budget is
#: less. Of few picks, a random part spends all on what is large everywhere; then what is small is in no part's list.
OVERSAMPLING, LEAST = 4, 128


class PartAssignment(NamedTuple):
    """A part's rows at the merged picks; masses, sums and totals of parts add up."""

    owner: np.ndarray  # (n,) int64, position of each row's pick
    distance: np.ndarray  # (n,) float32, to it
    cluster_mass: np.ndarray  # (m,) float64, Σ a_i over the part's rows that each pick stands for
    distance_sum: np.ndarray  # (m,) float64, Σ a_i · distance_i over the same rows


def part_budget(budget: int, share: float, mean_cost: float = 1.0) -> int:
    """What a part picks for a merge under ``budget``.

    Args:
        budget: The merged budget, in samples or tokens.
        share: The part's share of the mass.
        mean_cost: What a sample takes of the budget on average: 1, or its tokens.

    Returns:
        A budget in the same unit, at most max(``OVERSAMPLING`` times the share, the whole); it may exceed what the part
        has.
    """
    return max(math.ceil(OVERSAMPLING * budget * share), min(budget, math.ceil(LEAST * mean_cost)))


@same_on_any_threads
def merge(
    x: np.ndarray,
    mass: np.ndarray,
    n_tokens: np.ndarray,
    shortlist: np.ndarray,
    budget: int,
    budget_kind: BudgetKind = "samples",
    *,
    neighbours: int = 128,
    refine: int | None = 2,
    seed: int = 0,
    candidates: np.ndarray | None = None,
    gain_factor: np.ndarray | None = None,
    covered: np.ndarray | None = None,
) -> CraigResult:
    """Choose the global coreset among the picks of all parts.

    Args:
        x: Clients (n, d), float32: all rows of all parts or a sample of them, every row of the shortlist, and the
            covered rows if there are any. Their order (by sample_id) settles ties.
        mass: Masses (n,), float64, of what each client stands for; 0 for a row that the sample of clients missed.
        n_tokens: Tokens (n,), int64.
        shortlist: Rows of ``x`` that parts picked, in any order, repetitions allowed.
        budget: Samples or tokens, as in ``craig``; at most the shortlist can be picked.
        budget_kind: The unit of ``budget``.
        neighbours: K, the rows of the shortlist that each client is linked to; its d0 is the distance to the K-th.
        refine: Medoid passes, None for as many as change something; they may move a pick to any candidate.
        seed: Seed of the random choices of the report, which are drawn from all candidates.
        candidates: Rows (n,), bool, that may be picked, as in ``craig``; all by default. A row of the shortlist that is
            none is passed over.
        gain_factor: As in ``craig``.
        covered: As in ``craig``.

    Returns:
        The coreset, as rows of ``x``. Its masses and distances are those of the clients in ``x``; ``assign_part`` gives
        the exact ones where ``x`` is a sample.

    Raises:
        ValueError: If ``shortlist`` are not rows of ``x``, or another argument is not what ``Cell`` says.
    """
    cell = Cell(x, mass, n_tokens, budget, budget_kind, candidates, gain_factor, covered)
    listed = np.unique(shortlist).astype(np.int64)
    if len(listed) and not 0 <= listed[0] <= listed[-1] < len(x):
        raise ValueError(f"shortlist must be rows of x (0 to {len(x) - 1}), not {listed[0]} to {listed[-1]}")
    listed = listed[cell.worth[listed] > 0]
    nothing = Links(np.zeros((len(x), 1), np.float32), np.zeros((len(x), 1), np.int32))
    links = nearest(x, x[listed], neighbours) if len(listed) else nothing
    return choose(cell, links, listed, None, passes=refine, seed=seed)


def assign_part(x: np.ndarray, mass: np.ndarray, picks: np.ndarray, own: np.ndarray | None = None) -> PartAssignment:
    """Assign the rows of one part to the merged picks, exactly.

    Args:
        x: The part's rows (n, d), float32.
        mass: Their masses (n,).
        picks: Rows (m, d), float32, of the merged picks, m >= 1; give them in the order of sample_id, as equal
            distances go to the lower position.
        own: Position (n,), int64, in the picks of each row that is one, -1 for the others: a pick is always its own, so
            that none of several equal picks is left without mass. None where the part has no picks.

    Returns:
        Owners, distances and the sums that add up over parts.
    """
    links = nearest(x, picks, 1)
    owner, distance = links.indices[:, 0].astype(np.int64), links.distances[:, 0]
    if own is not None:
        owner, distance = np.where(own >= 0, own, owner), np.where(own >= 0, np.float32(0), distance)
    return PartAssignment(
        owner, distance, np.bincount(owner, mass, len(picks)), np.bincount(owner, mass * distance, len(picks))
    )
