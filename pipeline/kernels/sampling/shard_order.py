"""Importance-sampling order of shards, and its distribution over ranks (docs/design.md, Order).

A shard is proposed in proportion to ``q = x + staleness * t * Σx/Σt``: what its samples' gradient norms add up to,
smoothed towards its tokens because norms go stale as the model moves (Alain et al. 2015, "Variance reduction in SGD by
distributed importance sampling"). The order is a priority sample (Duffield, Lund & Thorup 2007): shards by descending
``q / u``, u uniform. Any prefix is then a sample without replacement whose totals are estimated without bias.

Everything here is a function of its arguments alone; shards with equal keys go by ascending id.
"""

import heapq
import math
from dataclasses import dataclass

import numpy as np


def proposal(x: np.ndarray, t: np.ndarray, staleness: float) -> np.ndarray:
    """Unnormalised probability of each shard.

    Args:
        x: (s,) float64, Σ c · grad_norm of a shard, finite and >= 0; c is what counts in the loss.
        t: (s,) float64 or int64, Σ c · n_tokens of a shard, > 0.
        staleness: σ >= 0; 0 trusts the norms wholly, infinity (in the limit) counts tokens only.

    Returns:
        (s,) float64. Where all norms are 0 the proposal is σ · t.

    Raises:
        ValueError: a value out of its range, or a shard that would never be drawn (q = 0).
    """
    x, t = np.asarray(x, dtype=np.float64), np.asarray(t, dtype=np.float64)
    if not (np.isfinite(x).all() and (x >= 0).all() and np.isfinite(t).all() and (t > 0).all()):
        raise ValueError("gradient norms must be finite and not negative, tokens positive")
    if not (math.isfinite(staleness) and staleness >= 0):
        raise ValueError(f"staleness must be finite and at least 0, not {staleness}")
    if not len(x):
        return x
    total = math.fsum(x)  # fsum is exact, hence the same for any order of shards
    q: np.ndarray = x + staleness * t * (total / math.fsum(t) if total else 1.0)
    if (q <= 0).any():
        raise ValueError("a shard with gradient norm 0 would never be drawn; staleness must be positive")
    return q


@dataclass(frozen=True)
class OrderReport:
    """How good a proposal is; see ``order_report``."""

    shards: int
    effective_shards: float
    variance_ratio: float | None
    variance_ratio_bound: float


def order_report(q: np.ndarray, x: np.ndarray, t: np.ndarray) -> OrderReport:
    """Effective sample size and variance of a proposal, for N = s independent draws with probability q / Σq.

    ``effective_shards`` is Kish's effective sample size of the importance weights t/q, N (Σt)² / (Σq · Σ t²/q): N when
    shards are drawn in proportion to their tokens, less the more a token's weight varies.

    ``variance_ratio`` is Tr Σ(q) / Tr Σ(uniform), the variance of the estimated gradient total against drawing shards
    uniformly (Alain et al., equation 8). With A = Σq · Σ x²/q and B = N · Σx² it is (A − m) / (B − m), where
    0 <= m <= (Σx)² is the squared length of the total gradient, which norms alone don't tell. Reported are both ends:
    m = (Σx)², all gradients parallel (None where that leaves nothing to reduce), and m = 0, ``variance_ratio_bound``
    = A / B, which is the larger of the two whenever q is better than uniform.
    """
    q, x, t = (np.asarray(values, dtype=np.float64) for values in (q, x, t))
    shards = len(q)
    if not shards:
        return OrderReport(0, 0.0, None, 1.0)
    total_q, total_x, total_t = math.fsum(q), math.fsum(x), math.fsum(t)
    effective = shards * total_t**2 / (total_q * math.fsum(t * t / q))
    drawn, uniform = total_q * math.fsum(x * x / q), shards * math.fsum(x * x)
    spread = uniform - total_x**2
    ratio = (drawn - total_x**2) / spread if spread > 1e-12 * uniform else None
    ratio = None if ratio is None else max(0.0, ratio)  # rounding may leave -1e-17 where q is proportional to x
    return OrderReport(shards, effective, ratio, drawn / uniform if uniform else 1.0)


def assign_ranks(tokens: np.ndarray, world_size: int) -> np.ndarray:
    """Give each visit, in order, to the rank with the fewest tokens so far, ties to the lowest rank.

    Args:
        tokens: (v,) int64, tokens of each visit in the order of play.
        world_size: number of ranks, >= 1.

    Returns:
        (v,) int32. Loads differ by at most the largest visit (Graham's list scheduling).
    """
    rank = np.zeros(len(tokens), dtype=np.int32)
    loads = [(0, number) for number in range(world_size)]  # sorted, hence already a heap
    for visit, size in enumerate(tokens.tolist()):
        load, number = loads[0]
        rank[visit] = number
        heapq.heapreplace(loads, (load + size, number))
    return rank


@dataclass(frozen=True)
class EpochPlan:
    """One epoch as arrays over its visits, sorted by (rank, position).

    ``visit`` indexes the arguments of ``plan_epoch``; ``order`` is the place in the epoch, all ranks together;
    ``loads`` is (world_size,) tokens of each rank.
    """

    visit: np.ndarray
    rank: np.ndarray
    position: np.ndarray
    order: np.ndarray
    loads: np.ndarray


def plan_epoch(
    passes: np.ndarray, tokens: np.ndarray, priority: np.ndarray, ids: np.ndarray, world_size: int
) -> EpochPlan:
    """Order the visits of one epoch and distribute them over ranks.

    All visits of pass 1 come before any of pass 2 and so on, so that repeats of a sample lie far apart; inside a pass,
    by descending priority.

    Args:
        passes: (v,) int, which pass a visit is; tokens: (v,) int64, what it plays.
        priority: (v,) float64, the priority of its shard; ids: (v,) int, its shard_id.
    """
    sequence = np.lexsort((ids, -priority, passes))
    rank = assign_ranks(tokens[sequence], world_size)
    by_rank = np.argsort(rank, kind="stable")
    counts = np.bincount(rank, minlength=world_size)
    starts = np.cumsum(counts) - counts
    position = np.arange(len(rank), dtype=np.int64) - np.repeat(starts, counts)
    loads = np.zeros(world_size, dtype=np.int64)
    np.add.at(loads, rank, tokens[sequence])
    return EpochPlan(sequence[by_rank], rank[by_rank], position, by_rank.astype(np.int64), loads)
