"""The problem that gradient matching solves for one cell: its arguments, checked, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

BudgetKind = Literal["samples", "tokens"]


@dataclass(frozen=True, eq=False)
class Problem:
    """The arguments of ``match`` that pose the problem; see there."""

    g: np.ndarray
    a: np.ndarray
    n_tokens: np.ndarray
    budget: int
    budget_kind: BudgetKind
    candidates: np.ndarray | None
    gain_factor: np.ndarray | None
    validation: np.ndarray | None
    target: np.ndarray | None
    validation_target: np.ndarray | None
    tolerance: float
    uniform_weights: bool
    counts: np.ndarray | None = None

    @cached_property
    def costs(self) -> np.ndarray:
        """What each row takes of the budget, (n,) int64."""
        return np.ones(len(self.g), np.int64) if self.budget_kind == "samples" else self.n_tokens.astype(np.int64)

    @cached_property
    def free(self) -> np.ndarray:
        """Rows that may be picked, (n,) bool."""
        return np.ones(len(self.g), bool) if self.candidates is None else self.candidates

    @cached_property
    def b(self) -> np.ndarray:
        """The target, (k,) float64."""
        return (self.a @ self.g.astype(np.float64)) if self.target is None else self.target.astype(np.float64)

    @cached_property
    def expected_picks(self) -> int:
        """m: the budget, in tokens divided by the candidates' mean; at most the candidates."""
        return max(1, min(int(self.free.sum()), int(self.budget / self.costs[self.free].mean())))


def checked(p: Problem) -> Problem:
    """The problem, if it can be posed."""
    n = len(p.g)
    if p.g.ndim != 2 or p.g.dtype != np.float32 or not np.isfinite(p.g).all():
        raise ValueError(f"gradients must be a finite float32 matrix, not {p.g.dtype} {p.g.shape}")
    if p.a.shape != (n,) or not (np.isfinite(p.a).all() and (p.a > 0).all()):
        raise ValueError(f"{n} rows need as many finite weights a above 0")
    if p.budget < 0 or p.budget_kind not in ("samples", "tokens"):
        raise ValueError(f"a budget is a number of samples or tokens, not {p.budget} {p.budget_kind}")
    if p.n_tokens.shape != (n,) or (p.budget_kind == "tokens" and (p.n_tokens < 1).any()):
        raise ValueError(f"{n} rows need as many n_tokens, at least 1 each under a budget of tokens")
    if p.candidates is not None and (p.candidates.shape != (n,) or p.candidates.dtype != bool):
        raise ValueError(f"candidates must say true or false for each of {n} rows")
    if p.counts is not None and (p.counts.shape != (n,) or not (p.counts > 0).all()):
        raise ValueError(f"counts must be above 0 for each of {n} rows")
    f = p.gain_factor
    if f is not None and (f.shape != (n,) or not ((f > 0) & (f <= 1)).all()):
        raise ValueError(f"gain_factor must be above 0 and at most 1 for each of {n} rows")
    v = p.validation
    if v is not None and (v.ndim != 2 or len(v) != n or not np.isfinite(v).all()):
        raise ValueError(f"the validation sketch must be a finite matrix of {n} rows, not {v.shape}")
    if p.target is not None and (p.target.shape != p.g.shape[1:] or not np.isfinite(p.target).all()):
        raise ValueError(f"the target must be {p.g.shape[1]} finite numbers, as rows of gradients are")
    vt = p.validation_target
    if (vt is not None) != (p.target is not None and v is not None):
        raise ValueError("target and validation come with a validation_target, and it with both of them")
    if vt is not None and v is not None and (vt.shape != v.shape[1:] or not np.isfinite(vt).all()):
        raise ValueError(f"the validation target must be {v.shape[1]} finite numbers")
    if not p.tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, not {p.tolerance}")
    return p
