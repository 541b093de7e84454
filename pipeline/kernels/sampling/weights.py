"""What a weight is, one meaning for every method, and the four ways in which trainers realise it.

See docs/design.md, Weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cptsel.pipeline.kernels.sampling.repeats import replay_rates, systematic_repeats

# Realisation of weights → what a reader of the manifest must be able to do besides playing samples ``repeat`` times.
REQUIRED_FEATURES: dict[str, tuple[str, ...]] = {
    "repeat": (),
    "loss": ("loss_weight",),
    "sampling": ("sampling",),
    "none": (),
}


def coreset_weights(found_mass: np.ndarray, n_tokens: np.ndarray, target_mass: float) -> np.ndarray:
    """weight_j = T_g · found_mass_j / Σ found_mass / n_j: how many tokens of the corpus a token of sample j stands for.

    Args:
        found_mass: (m,) float64 above 0, the mass that the method found for each pick of one group, in any scale.
        n_tokens: (m,) at least 1.
        target_mass: T_g; Σ weight · n_tokens is this.
    """
    found_mass = np.asarray(found_mass, dtype=np.float64)
    return target_mass * (found_mass / found_mass.sum()) / np.asarray(n_tokens, dtype=np.float64)


def loss_weights(weight: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
    """weight_j · Σn / ΣM: weights whose mean over tokens is 1, by one normaliser for all groups together."""
    n_tokens = np.asarray(n_tokens, dtype=np.float64)
    mass = weight @ n_tokens
    return weight * (n_tokens.sum() / mass) if mass > 0 else np.asarray(weight, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class GroupShare:
    """A group of one phase, and what it is to play.

    Attributes:
        members: (m_g,) int64, where its samples stand in the arrays of the phase, in order of sample_id.
        replay_tokens: R · T_g / T, not negative.
        u: the group's uniform variate in (0, 1], that of ``repeat_purpose``.
    """

    members: np.ndarray
    replay_tokens: float
    u: float


@dataclass(frozen=True, eq=False)
class Realised:
    """How a phase's weights are realised.

    Attributes:
        repeat: (m,) int32, plays in an epoch; 1 throughout but for realisation ``repeat``.
        loss_weight: (m,) float64, factor of the token losses; 1 throughout for ``sampling`` and ``none``. For
            ``repeat`` it is the other choice of a trainer that can weigh losses, never to be used with the repeats.
        shortfall: by group, tokens of its share that not even all samples at the cap can play.
    """

    repeat: np.ndarray
    loss_weight: np.ndarray
    shortfall: list[float]


def realise(
    realisation: str, weight: np.ndarray, n_tokens: np.ndarray, groups: Sequence[GroupShare], max_repeats: int
) -> Realised:
    """Columns ``repeat`` and ``loss_weight`` of one phase.

    Args:
        realisation: a key of ``REQUIRED_FEATURES``.
        weight: (m,) float64 above 0; n_tokens: (m,) int64 at least 1.
        groups: divide the samples; the normaliser of the loss is summed in their order.
        max_repeats: cap of ``repeat``.

    Raises:
        ValueError: an unknown realisation.
    """
    if realisation not in REQUIRED_FEATURES:
        raise ValueError(f"realisation must be one of {', '.join(REQUIRED_FEATURES)}, not {realisation!r}")
    repeat, loss_weight = np.ones(len(weight), dtype=np.int32), np.ones(len(weight))
    shortfall = [0.0] * len(groups)
    if realisation == "repeat":
        for number, group in enumerate(groups):
            rates = replay_rates(weight[group.members], n_tokens[group.members], group.replay_tokens, max_repeats)
            repeat[group.members] = systematic_repeats(rates.x, group.u)
            shortfall[number] = rates.shortfall
    if realisation in {"repeat", "loss"} and len(groups):
        order = np.concatenate([group.members for group in groups])
        loss_weight[order] = loss_weights(weight[order], n_tokens[order])
    return Realised(repeat, loss_weight, shortfall)


def played_weights(realisation: str, weight: np.ndarray, loss_weight: np.ndarray, repeat: np.ndarray) -> np.ndarray:
    """(m,) float64: what a token of each sample counts in a trainer's loss, in expectation and up to one factor.

    Args:
        realisation: a key of ``REQUIRED_FEATURES``: the repeats, the loss weights, the weights where samples are drawn
            in proportion to them, or 1.
        weight, loss_weight: (m,) float64; repeat: (m,) integers.
    """
    counts = {"repeat": repeat, "loss": loss_weight, "sampling": weight, "none": np.ones(len(weight))}
    return np.asarray(counts[realisation], dtype=np.float64)


def effective_tokens(weight: np.ndarray, n_tokens: np.ndarray) -> float:
    """(Σ w·n)² / Σ w²·n, Kish's effective sample size counted in tokens: Σ n where all weights are equal, else less."""
    n_tokens = np.asarray(n_tokens, dtype=np.float64)
    squares = (weight * weight) @ n_tokens
    return float((weight @ n_tokens) ** 2 / squares) if squares > 0 else 0.0
