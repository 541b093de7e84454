"""Picks and what each is worth, as the weighing settles it: read from disk, a part at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cptsel.pipeline.kernels.sampling.weights import coreset_weights
from cptsel.pipeline.selection.outcome.spilled_picks import SpilledPicks
from cptsel.pipeline.spill.columns import PART_ROWS, Column


@dataclass(frozen=True)
class GroupResult:
    """What became of a group: counts of its picks, tokens asked for and played, and how even its weights are."""

    group: str
    samples: int = 0
    tokens: int = 0
    plays: int = 0
    played_samples: int = 0  # that are played at all
    replay_tokens: int = 0
    replay_requested: float = 0.0
    cut_tokens: float = 0.0  # that samples at the cap would play beyond it, and others play in their place, or nothing
    shortfall: float = 0.0
    effective_tokens: float = 0.0
    weight_quantiles: Sequence[float] = ()
    found_mass: float = 0.0  # Σ found_mass: what the method's own weights add up to


@dataclass(frozen=True, eq=False)
class Worth:
    """Some picks, and what each is worth.

    Attributes:
        cell: (n,) int32, a group in a shard.
        group: (n,) int64, place of their group in the plan.
        n_tokens: (n,) int64, predicted tokens.
        weight: (n,) float64, tokens of the corpus a token of the pick stands for.
        loss_weight: (n,) float64.
        repeat: (n,) int32.
        order_rank: (n,) int64, place in the phase.
    """

    cell: np.ndarray
    group: np.ndarray
    n_tokens: np.ndarray
    weight: np.ndarray
    loss_weight: np.ndarray
    repeat: np.ndarray
    order_rank: np.ndarray


@dataclass(frozen=True, eq=False)
class Weighted:
    """All picks of a phase, in corpus order, and what makes them worth what they are.

    Attributes:
        number: the phase.
        picks: m picks.
        target_mass: (g,) float64, T_g of the plan's groups.
        found: (g,) float64, Σ found_mass of them.
        loss_factor: what makes a weight a loss weight; None where those are 1.
        repeat: (m,) int32; None where all are 1.
        order_rank: (m,) int64; None where it is that of the corpus.
        groups: results in the plan's order of groups, of those with a share.
        replay_requested: R.
        effective_tokens: of the phase.
        weight_quantiles: of the phase.
    """

    number: int
    picks: SpilledPicks
    target_mass: np.ndarray
    found: np.ndarray
    loss_factor: float | None = None
    repeat: Column | None = None
    order_rank: Column | None = None
    groups: Sequence[GroupResult] = ()
    replay_requested: int = 0
    effective_tokens: float = 0.0
    weight_quantiles: Sequence[float] = ()

    def __len__(self) -> int:
        return len(self.picks)

    def of_shard(self, shard_id: int) -> Worth:
        """The picks of a shard, which may have none."""
        return self.read(*self.picks.offsets.get(shard_id, (0, 0)))

    def parts(self, rows: int = PART_ROWS) -> Iterator[Worth]:
        """All picks, in order, at most ``rows`` at once."""
        for start in range(0, len(self), rows):
            yield self.read(start, min(start + rows, len(self)))

    def read(self, start: int, stop: int) -> Worth:
        """Picks from ``start`` until before ``stop``."""
        rows = self.picks.picks.read(start, stop)
        group, n_tokens = self.picks.group[rows["cell"]], rows["n_tokens"].astype(np.int64)
        weight = coreset_weights(rows["found_mass"], n_tokens, self.target_mass[group], self.found[group])
        return Worth(
            cell=rows["cell"],
            group=group,
            n_tokens=n_tokens,
            weight=weight,
            loss_weight=np.ones(len(rows)) if self.loss_factor is None else weight * self.loss_factor,
            repeat=np.ones(len(rows), np.int32) if self.repeat is None else self.repeat.read(start, stop),
            order_rank=np.arange(start, stop) if self.order_rank is None else self.order_rank.read(start, stop),
        )


def total(results: Sequence[GroupResult], field: str) -> int:
    """Sum of a whole-number field over groups."""
    return sum(getattr(result, field) for result in results)
