"""From picks to weights, plays and order: where a phase's picks meet, by their narrow columns.

Picks are on disk and are read a part at a time, as often as it takes, so that memory does not grow with their number.
See docs/design.md, Weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.sampling.repeats import Chunk, repeat_purpose
from cptsel.pipeline.kernels.sampling.weights import effective_tokens, loss_factor
from cptsel.pipeline.selection.outcome.spilled_picks import Scored, SpilledPicks, spill_picks
from cptsel.pipeline.selection.outcome.tallies import Counts, Plays, Weights, count_picks, tally_plays, tally_weights
from cptsel.pipeline.selection.outcome.weighted import GroupResult, Weighted
from cptsel.pipeline.selection.plan import Plan, no_pick
from cptsel.pipeline.spill.columns import PART_ROWS, Column
from cptsel.pipeline.spill.plays import count_repeats, rank_by_score

# What a curriculum goes by: the column of picks, and whether it is divided by their tokens.
_SCORES = {"loss": ("loss_sum", True), "norm": ("grad_norm", True), "gain": ("score", False)}


@dataclass(frozen=True)
class Weighing:
    """How picks are weighed and ordered.

    Attributes:
        realisation: a key of ``kernels.sampling.weights.REQUIRED_FEATURES``.
        replay_tokens: R, None for the tokens of the picks.
        max_repeats: cap of repeats.
        seed: of rounding and of buckets.
        curriculum: what ``order_rank`` follows instead of the corpus: ``loss`` and ``norm`` a token, or ``gain``.
        descending: whether it falls.
        buckets: of the curriculum, inside which the order is random.
    """

    realisation: str = "repeat"
    replay_tokens: int | None = None
    max_repeats: int = 4
    seed: int = 0
    curriculum: str | None = None
    descending: bool = False
    buckets: int | None = None

    @property
    def order(self) -> str:
        """The order in words, as the manifest names it."""
        if self.curriculum is None:
            return "corpus"
        buckets = f" in {self.buckets} buckets" if self.buckets else ""
        return f"{self.curriculum} {'descending' if self.descending else 'ascending'}{buckets}"


def weigh(work: str, number: int, plan: Plan, budget_text: str, weighing: Weighing, rows: int = PART_ROWS) -> Weighted:
    """Weigh the picks of a phase, which lie under ``work``.

    Args:
        work: directory of the phase.
        number: of the phase.
        plan: its budgets.
        budget_text: the options that set the budget, for sentences.
        weighing: how.
        rows: picks that are held at once.

    Raises:
        UsageError: a group that is to stand for some mass has no pick.
    """
    names, target = [group.group for group in plan.groups], np.array([group.target_mass for group in plan.groups])
    picks = spill_picks(work, names, ids=weighing.realisation == "repeat", scored=_scored(number, weighing))
    counts = count_picks(picks, len(names), rows)
    for group, samples in zip(plan.groups, counts.samples.tolist(), strict=True):
        if group.target_mass > 0 and not samples:
            raise no_pick(group, plan.unit, budget_text)
    weighted = Weighted(number, picks, target, counts.found)
    weights = tally_weights(weighted.parts(rows), picks.group, counts.samples)
    tokens, mass = int(counts.tokens.sum()), float(weights.mass.sum())
    requested = tokens if weighing.replay_tokens is None else weighing.replay_tokens
    shares = requested * (target / plan.mass)
    shortfall, cap_scale = np.zeros(len(names)), np.zeros(len(names))
    if weighing.realisation == "repeat":
        repeat, shortfall = _repeats(weighted, names, shares, weighing, rows)
        weighted = replace(weighted, repeat=repeat)
        cap_scale = np.divide(shares, weights.mass, out=cap_scale, where=weights.mass > 0)
    plays = tally_plays(weighted.parts(rows), picks.group, cap_scale, weighing.max_repeats)
    return replace(
        weighted,
        loss_factor=loss_factor(tokens, mass) if weighing.realisation in {"repeat", "loss"} else None,
        order_rank=_order_rank(picks, weighing, rows),
        groups=_results(plan, counts, weights, plays, shares, shortfall),
        replay_requested=requested,
        effective_tokens=effective_tokens(mass, float(weights.squares.sum())),
        weight_quantiles=weights.quantiles_of_all,
    )


def _results(
    plan: Plan, counts: Counts, weights: Weights, plays: Plays, shares: np.ndarray, shortfall: np.ndarray
) -> list[GroupResult]:
    """What became of every group that is to stand for something; ``shares`` and ``shortfall`` are (g,) tokens."""
    return [
        GroupResult(
            group=group.group,
            samples=int(counts.samples[at]),
            tokens=int(counts.tokens[at]),
            plays=int(plays.plays[at]),
            played_samples=int(plays.samples[at]),
            replay_tokens=int(plays.tokens[at]),
            replay_requested=float(shares[at]),
            cut_tokens=float(plays.cut[at]),
            shortfall=float(shortfall[at]),
            effective_tokens=effective_tokens(float(weights.mass[at]), float(weights.squares[at])),
            weight_quantiles=weights.quantiles[at],
            found_mass=float(counts.found[at]),
        )
        for at, group in enumerate(plan.groups)
        if group.target_mass > 0
    ]


def _repeats(
    weighted: Weighted, groups: Sequence[str], shares: np.ndarray, weighing: Weighing, rows: int
) -> tuple[Column, np.ndarray]:
    """Plays of every pick, and the tokens of each group's share that not even all of its picks at the cap play."""

    def chunks() -> Iterator[Chunk]:
        return (Chunk(part.cell, part.weight, part.n_tokens) for part in weighted.parts(rows))

    picks, purpose = weighted.picks, repeat_purpose(weighted.number)
    u = np.concatenate([uniform(weighing.seed, purpose, [name]) for name in groups])
    return count_repeats(chunks, picks.group, shares, weighing.max_repeats, picks.ids, u, rows)


def _scored(number: int, weighing: Weighing) -> Scored | None:
    """What the curriculum needs of every pick."""
    if weighing.curriculum is None:
        return None
    column, per_token = _SCORES[weighing.curriculum]
    return Scored(column, per_token, f"curriculum {number}" if weighing.buckets else None, weighing.seed)


def _order_rank(picks: SpilledPicks, weighing: Weighing, rows: int) -> Column | None:
    """Place of each pick in its phase, where it is not that in the corpus."""
    if weighing.curriculum is None:
        return None
    buckets = weighing.buckets or None
    return rank_by_score(picks.score, picks.ids, picks.u, descending=weighing.descending, buckets=buckets, rows=rows)
