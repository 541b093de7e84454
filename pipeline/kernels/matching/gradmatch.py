"""Gradient matching: a few weighted samples whose gradients add up to those of all (docs/design.md, Matching).

    min over S, u >= 0 of  ‖Σ_i a_i g_i − Σ_{j∈S} u_j g_j‖² + λ Σ_{j∈S} (u_j − w c_j)²,   Σ w c² = Σ a c,   |S| <= m

by non-negative OMP (``nnomp``; GRAD-MATCH, Killamsetty et al. 2021), or with equal weights (Balles et al. 2022). A
residual near 0 on a sketch of k numbers says nothing once m nears k: k + 1 atoms match any mean exactly (Carathéodory).
So the ridge, and how many parts the rows are split into, are those of a few that do best on a second, independent
sketch, which nothing is fitted to; its residual is what to believe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from cptsel.pipeline.kernels.budget import divide
from cptsel.pipeline.kernels.matching.nnomp import Pursuit, even_pursuit, pursue
from cptsel.pipeline.kernels.matching.parts import absorb, cluster, coarsen
from cptsel.pipeline.kernels.matching.problem import BudgetKind, Problem, checked

#: Tried where they are not given: ridges, in units of the mean ‖g‖², and atoms a part.
RIDGES = (0.1, 1.0, 10.0)
ATOMS_A_PART = (64, 32, 16, 8)

#: Taken where they are not given and there is no validation sketch to choose by.
DEFAULT_RIDGE, DEFAULT_ATOMS = 1.0, 16


@dataclass(frozen=True, eq=False)
class MatchResult:
    """Matched samples in the order they were picked, part by part where there are several.

    A relative residual is ‖target − Σ u g‖ / ‖target‖; where the target is 0, its noise (see ``match``) stands below.
    u is as found, and least squares shrinks what it can't match, so Σ u may be less than A. Weights that are used add
    up to A (or Σ u c to Σ a c, with ``counts`` c): ``residual_scaled`` and ``validation_residual_scaled`` of the report
    are those of u scaled so, and among the solutions tried the least ``validation_residual_scaled`` is taken.
    """

    picks: np.ndarray  # (s,) int64, rows; s may be less than the budget, and the report says so
    u: np.ndarray  # (s,) float64 > 0, in the unit of a: Σ u is near A (A exactly for uniform weights)
    gains: np.ndarray  # (s,) float64, what the objective fell by when the pick entered; see nnomp for uniform weights
    residual: float  # relative, on g, which the picks were fitted to
    validation_residual: float | None  # relative, on the validation sketch; None without one
    ridge: float  # λ / mean ‖g‖²; 0 for uniform weights
    parts: int
    report: dict[str, Any]  # these figures, counts and everything that was tried, as JSON has them
    crossing: MatchResult | None = None  # with about one sample more, where budget is left and no free sample fits


class _Tried(NamedTuple):
    """One solution and its relative residuals: of u as found, and of u scaled to Σ u = A, as weights will be."""

    picks: np.ndarray
    u: np.ndarray
    gains: np.ndarray
    dropped: int
    ridge: float
    parts: int
    per_token: bool
    residual: float
    residual_scaled: float
    validation_residual: float | None
    validation_residual_scaled: float | None
    labels: np.ndarray | None = None  # of the rows, where parts were matched

    @property
    def score(self) -> float:
        """What the choice goes by."""
        found = self.validation_residual_scaled
        return self.residual_scaled if found is None else found

    def figures(self) -> dict[str, Any]:
        """All but the arrays."""
        return {
            "ridge": self.ridge,
            "parts": self.parts,
            "chosen_by": "gain per token" if self.per_token else "gain",
            "picks": len(self.picks),
            "residual": self.residual,
            "residual_scaled": self.residual_scaled,
            "validation_residual": self.validation_residual,
            "validation_residual_scaled": self.validation_residual_scaled,
        }


def match(
    g: np.ndarray,
    a: np.ndarray,
    n_tokens: np.ndarray,
    budget: int,
    budget_kind: BudgetKind = "samples",
    *,
    validation: np.ndarray | None = None,
    ridge: float | None = None,
    parts: int | None = None,
    tolerance: float = 0.0,
    uniform_weights: bool = False,
    candidates: np.ndarray | None = None,
    gain_factor: np.ndarray | None = None,
    target: np.ndarray | None = None,
    validation_target: np.ndarray | None = None,
    counts: np.ndarray | None = None,
    seed: int = 0,
) -> MatchResult:
    """Match the gradient sum of one cell, or, with a target given, merge what parts of it picked.

    In a merge ``g`` are the parts' picks, ``a`` their weights u there, ``target`` the global sum. With several parts,
    each part's target is what its rows add up to and a share, by mass, of what all rows miss of the target.

    Args:
        g: Gradient sums (n, k), float32, finite: sketch_norm · direction. Rows in order of sample_id: it settles ties.
        a: Weights (n,), float64 > 0: 1/pool_prob.
        n_tokens: Tokens (n,), int64; >= 1 under a token budget.
        budget: At most so many samples or tokens, >= 0. Tokens are a knapsack: the better of gain per token and gain.
        budget_kind: The unit of ``budget``.
        validation: The same gradients under an independent sketch (n, k'), float32; only ever used to compare results.
        ridge: λ in units of the mean ‖g‖² of a part; None to choose among ``RIDGES``, with the parts that do best under
            ``DEFAULT_RIDGE``. 0 may leave budget unused, as weights that fall to 0 are dropped, and picks nothing for a
            target of 0.
        parts: Into how many clusters rows may be split; None to choose: one part up to m = k, and ``ATOMS_A_PART``.
        tolerance: Stop where the relative residual on ``g`` is at most this, and of the solutions that come so near
            take the one of the fewest picks; 0 for never.
        uniform_weights: Equal weights A/s: gradient-coreset.
        candidates: Rows (n,), bool, that may be picked; None for all. All rows are in the target.
        gain_factor: Factors (n,) in (0, 1] of a row's correlation where atoms are compared.
        target: Sum to match (k,), instead of Σ a g.
        validation_target: The same under the validation sketch (k',); needed with ``target`` and ``validation``.
        counts: c (n,), above 0: weights will be scaled so that Σ u c = Σ a c, as a manifest's are by tokens; 1 by
            default. Solutions are compared as they are after that.
        seed: Seed of the clusters.

    Returns:
        The picks; none for budget 0 or where no candidate fits. ``report["target_noise"]`` is the standard error of the
        target, sqrt(Σ a² ‖g − mean‖²), as if the rows had been drawn one by one (in a merge add up the parts' own);
        ``report["random_residual"]`` what as many uniform draws would leave, on average.

    Raises:
        ValueError: If an argument is not as above.
    """
    problem = checked(
        Problem(
            g, a, n_tokens, budget, budget_kind, candidates, gain_factor, validation, target, validation_target,
            tolerance, uniform_weights, counts,
        )
    )  # fmt: skip
    if (ridge is not None and not 0 <= ridge < math.inf) or (parts is not None and parts < 1):
        raise ValueError(f"ridge must be at least 0 and parts at least 1, not {ridge} and {parts}")
    tried = _solutions(problem, ridge, parts, seed)
    near = [t for t in tried if t.residual <= tolerance] if tolerance else []
    best = min(near, key=lambda t: len(t.picks)) if near else min(tried, key=lambda t: t.score)  # ties to the first
    more = None if near else _crossing(problem, best)
    crossing = None if more is None else _result(problem, more, [*tried, more])
    return replace(_result(problem, best, tried), crossing=crossing)


def _solutions(p: Problem, ridge: float | None, parts: int | None, seed: int) -> list[_Tried]:
    """All that are compared; one, where no candidate fits or none has a gradient."""
    if not (p.free & (p.costs <= p.budget)).any():
        return [_measured(p, [], ridge or 0.0, False)]
    if not p.g[p.free].any():
        return [_measured(p, [_first_rows(p)], ridge or 0.0, False)]
    return _try(p, ridge, _splits(p, parts, seed))


def _crossing(p: Problem, best: _Tried) -> _Tried | None:
    """The same with room for the smallest row that is left; None where the budget is used up or has room for one."""
    left = p.free.copy()
    left[best.picks] = False
    used = int(p.costs[best.picks].sum())
    if used >= p.budget or not left.any() or (p.costs[left] <= p.budget - used).any():
        return None
    larger = replace(p, budget=used + int(p.costs[left].min()))
    if not p.g[p.free].any():
        found = [_first_rows(larger)]
    else:
        labels = np.zeros(len(p.g), np.int64) if best.labels is None else best.labels
        found = _solve(larger, labels, best.ridge, best.per_token)
    more = _measured(p, found, best.ridge, best.per_token)
    return more if p.costs[more.picks].sum() > used else None


def _splits(p: Problem, parts: int | None, seed: int) -> list[np.ndarray]:
    """Labels of the rows for every number of parts that is to be tried, coarsest first; clusters nest."""
    m = p.expected_picks
    wanted = {parts} if parts else set()
    if not wanted:
        atoms = ATOMS_A_PART if p.validation is not None else (DEFAULT_ATOMS,)
        whole = m <= p.g.shape[1] if p.validation is not None else 2 * m <= p.g.shape[1]
        split = whole and p.validation is None
        wanted = ({1} if whole else set()) | (set() if split else {max(1, m // size) for size in atoms})
    labels, centroids = cluster(p.g, max(wanted), seed) if max(wanted) > 1 else (np.zeros(len(p.g), np.int64), None)
    found: list[np.ndarray] = []
    for count in sorted(wanted, reverse=True):
        if count == 1 or centroids is None:
            found.append(np.zeros(len(p.g), np.int64))
            continue
        some, centres = (labels, centroids) if count == max(wanted) else coarsen(labels, centroids, p.a, count, seed)
        quota = np.bincount(some, p.a, len(centres)) / p.a.sum() * m
        room = np.bincount(some, p.free, len(centres))
        found.append(absorb(some, centres, (quota < 1) | (room < 1)))
    return found[::-1]


def _try(p: Problem, ridge: float | None, splits: list[np.ndarray]) -> list[_Tried]:
    """Every split under one ridge, the best split under the others, under a token budget the best by gain per token."""
    first = DEFAULT_RIDGE if ridge is None else ridge
    others: tuple[float, ...] = ()
    if p.uniform_weights:
        first = 0.0
    elif ridge is None and p.validation is not None:
        others = tuple(r for r in RIDGES if r != first)
    tried: list[_Tried] = []
    grid: list[tuple[np.ndarray, float]] = []

    def attempt(labels: np.ndarray, r: float, per_token: bool = False) -> None:
        grid.append((labels, r))
        tried.append(_measured(p, _solve(p, labels, r, per_token), r, per_token)._replace(labels=labels))

    def best() -> tuple[np.ndarray, float]:
        return grid[min(range(len(tried)), key=lambda i: tried[i].score)]

    for labels in splits:
        attempt(labels, first)
    labels, _ = best()
    for r in others:
        attempt(labels, r)
    if p.budget_kind == "tokens":
        attempt(*best(), per_token=True)
    return tried


def _solve(p: Problem, labels: np.ndarray, ridge: float, per_token: bool) -> list[Pursuit]:
    """Match every part with its share of the budget, and what parts before it left of theirs."""
    count = int(labels.max()) + 1
    total = float(p.a.sum())
    mass = np.bincount(labels, p.a)
    room = np.bincount(labels, p.costs * p.free).astype(np.int64)
    shares = divide(p.budget, mass, room)
    missing = p.b - p.a @ p.g.astype(np.float64) if p.target is not None else None
    stop_at = p.tolerance * float(np.linalg.norm(p.b))
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    found: list[Pursuit] = []
    left = 0
    for c in range(count):
        rows = members[c]
        g, a, costs, free = p.g[rows], p.a[rows], p.costs[rows], p.free[rows]
        capacity = min(int(shares[c]) + left, int(room[c]))
        left += int(shares[c])
        if not (free & (costs <= capacity)).any():
            continue
        target = a @ g.astype(np.float64) if missing is None or count > 1 else p.b
        if missing is not None and count > 1:
            target = target + missing * (mass[c] / total)
        options: dict[str, Any] = {
            "free": free,
            "discount": None if p.gain_factor is None else p.gain_factor[rows],
            "per_cost": per_token,
            "stop_at": stop_at * mass[c] / total,
        }
        if p.uniform_weights:
            part = even_pursuit(g, target, costs, capacity, total=mass[c], **options)
        else:
            squares = float(np.einsum("ij,ij->", g, g, dtype=np.float64)) / len(g)
            counts = np.ones(len(g)) if p.counts is None else p.counts[rows].astype(np.float64)
            picks = max(1, min(int(free.sum()), int(capacity / costs[free].mean())))
            even = counts * (float(a @ counts) / (picks * np.square(counts[free]).mean()))
            part = pursue(g, target, costs, capacity, ridge=ridge * squares, centre=even, **options)
            if per_token and len(part.picks) > picks:  # short samples were taken, so an even share is less
                even *= picks / len(part.picks)
                part = pursue(g, target, costs, capacity, ridge=ridge * squares, centre=even, **options)
        left -= int(costs[part.picks].sum())
        found.append(part._replace(picks=rows[part.picks]))
    return found


def _first_rows(p: Problem) -> Pursuit:
    """Where every candidate is 0 nothing can be matched, and any choice is as good: even weights on the first rows."""
    order = np.flatnonzero(p.free)
    picks = order[np.cumsum(p.costs[order]) <= p.budget]
    if not len(picks):
        picks = np.flatnonzero(p.free & (p.costs <= p.budget))[:1]
    return Pursuit(picks, np.full(len(picks), p.a.sum() / len(picks)), np.zeros(len(picks)), 0)


def _measured(p: Problem, found: list[Pursuit], ridge: float, per_token: bool) -> _Tried:
    """A solution of all parts with its residuals."""
    picks = np.concatenate([part.picks for part in found]).astype(np.int64) if found else np.empty(0, np.int64)
    u = np.concatenate([part.u for part in found]) if found else np.empty(0)
    gains = np.concatenate([part.gains for part in found]) if found else np.empty(0)
    if p.uniform_weights and len(picks):
        u = np.full(len(picks), p.a.sum() / len(picks))
    on_g = _relative(p, p.b, p.g, picks, u)
    on_v: tuple[float, float] | tuple[None, None] = (None, None)
    if p.validation is not None:
        goal = p.validation_target
        goal = p.a @ p.validation.astype(np.float64) if goal is None else goal.astype(np.float64)
        on_v = _relative(p, goal, p.validation, picks, u)
    dropped = sum(part.dropped for part in found)
    return _Tried(picks, u, gains, dropped, ridge, max(1, len(found)), per_token, *on_g, *on_v)


def _relative(p: Problem, target: np.ndarray, g: np.ndarray, picks: np.ndarray, u: np.ndarray) -> tuple[float, float]:
    """Relative residuals of u, and of u scaled to Σ u c = Σ a c."""
    length = float(np.linalg.norm(target)) or _noise(g, p.a) or 1.0
    matched = u @ g[picks].astype(np.float64)
    counts = np.ones(len(g)) if p.counts is None else p.counts.astype(np.float64)
    scale = float((p.a @ counts) / (u @ counts[picks])) if len(u) else 1.0
    return tuple(float(np.linalg.norm(target - s * matched)) / length for s in (1.0, scale))  # type: ignore[return-value]


def _noise(g: np.ndarray, a: np.ndarray) -> float:
    """sqrt(Σ a² ‖g − mean‖²), the mean weighted with a."""
    if not len(g):
        return 0.0
    mean = (a @ g.astype(np.float64)) / a.sum()
    squares = np.einsum("ij,ij->i", g, g, dtype=np.float64) - 2 * (g @ mean) + mean @ mean
    return math.sqrt(max(0.0, float((a * a) @ squares)))


def _result(p: Problem, best: _Tried, tried: list[_Tried]) -> MatchResult:
    """The best solution, and what there is to say of it."""
    noise, length = _noise(p.g, p.a), float(np.linalg.norm(p.b))
    total = float(p.a.sum())
    drawn = math.sqrt(max(0.0, len(p.g) / len(best.picks) - 1)) if len(best.picks) else None
    report = best.figures() | {
        "samples": len(p.g),
        "candidates": int(p.free.sum()),
        "tokens": int(p.n_tokens[best.picks].sum()),
        "budget": p.budget,
        "budget_kind": p.budget_kind,
        "unused_budget": p.budget - int(p.costs[best.picks].sum()),
        "dropped_atoms": best.dropped,
        "random_residual": noise / length * drawn if length and drawn is not None else None,
        "weight_sum": float(best.u.sum()) / total if total else 0.0,
        "target_norm": length,
        "target_noise": noise,
        "tried": [t.figures() for t in tried],
    }
    return MatchResult(
        best.picks, best.u, best.gains, best.residual, best.validation_residual, best.ridge, best.parts, report
    )
