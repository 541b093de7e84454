"""Non-negative orthogonal matching pursuit with a ridge: which few atoms, with what weights, add up to a target.

    J(u) = ‖b − Σ_j u_j g_j‖² + λ Σ_j ((u_j − c_j)² − c_j²),   u >= 0, at most m atoms

An atom of weight 0 costs nothing, so that J never rises when an atom enters. The ridge pulls weights to c (even
shares), not to 0, which would shrink their sum. Each step takes the atom of the largest correlation with the residual;
then all weights are optimised by the active set method of Lawson & Hanson (1974, chapter 23), which lets atoms go whose
weight would fall below 0. The normal matrix K = G_S G_Sᵀ + λI is never factored again: its inverse Cholesky factor
gains a row with each atom that enters (OMP as in Rubinstein, Zibulevsky & Elad 2008) and loses one, by a reflection,
with each that leaves.

Sums over atoms are float64; float32 correlations only preselect, and what they can't tell apart is compared in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: An atom this close (relatively, squared) to the span of the others can't be told from it: the pursuit ends there.
DEPENDENT = 1e-10

_NEAR = 2e-6  # float32 scores this near to the best, relatively, are computed again in float64
_RECHECKED = 2_048  # at most so many; of more equals the first
_ZERO = 1e-12  # a weight below this share of the largest is 0


class Pursuit(NamedTuple):
    """What a pursuit found: atoms in the order they entered."""

    picks: np.ndarray  # (s,) int64, rows
    u: np.ndarray  # (s,) float64 > 0
    gains: np.ndarray  # (s,) float64 > 0, what J fell by when the atom entered
    dropped: int  # how many times an atom's weight fell to 0 and it left


class InverseFactor:
    """A square root M of K⁻¹ (MᵀM = K⁻¹), kept up to date while rows and columns of K come and go.

    Starts as the inverse of K's Cholesky factor. Any square root will do to append to, so that a removal needs one
    Householder reflection only, and no triangle has to be restored.
    """

    def __init__(self) -> None:
        self._space = np.zeros((64, 64))
        self.size = 0

    @property
    def root(self) -> np.ndarray:
        """M, (s, s) float64."""
        return self._space[: self.size, : self.size]

    def append(self, column: np.ndarray, diagonal: float) -> bool:
        """Border K by ``column`` (s,) and ``diagonal``; False, and nothing done, where it would not stay invertible."""
        projected = self.root @ column
        rest = diagonal - float(projected @ projected)
        if not rest > DEPENDENT * diagonal:
            return False
        s = self.size
        if s == len(self._space):
            self._space = np.pad(self._space, (0, s))
        self._space[s, :s] = projected @ self.root
        self._space[s, :s] /= -np.sqrt(rest)
        self._space[:s, s] = 0
        self._space[s, s] = 1 / np.sqrt(rest)
        self.size = s + 1
        return True

    def remove(self, i: int) -> None:
        """Take row and column ``i`` out of K: reflect column i of M onto one axis, and drop that row with it."""
        root = self.root
        v = root[:, i].copy()
        v[-1] += np.copysign(np.linalg.norm(v), v[-1])
        root -= np.outer(v * (2 / (v @ v)), v @ root)
        root[:, i:-1] = root[:, i + 1 :].copy()
        self.size -= 1

    def solve(self, right: np.ndarray) -> np.ndarray:
        """K⁻¹ right, (s,)."""
        return self.root.T @ (self.root @ right)


class _Active:
    """The atoms that have weight, their weights, and the residual b − Σ u g."""

    def __init__(self, target: np.ndarray, ridge: float, centre: np.ndarray):
        self.target, self.ridge, self.centre = target, ridge, centre
        self.factor = InverseFactor()
        self._rows = np.zeros((64, len(target)))
        self.atoms: list[int] = []
        self.gains: list[float] = []
        self.u = np.zeros(0)
        self.residual = target.copy()
        self.dropped = 0

    @property
    def rows(self) -> np.ndarray:
        """Their gradients, (s, k) float64."""
        return self._rows[: len(self.atoms)]

    def enter(self, atom: int, row: np.ndarray, gain: float) -> bool:
        """Add an atom and optimise all weights; False, and nothing done, if it is in the span of the others."""
        if not self.factor.append(self.rows @ row, float(row @ row) + self.ridge):
            return False
        if len(self.atoms) == len(self._rows):
            self._rows = np.pad(self._rows, ((0, len(self._rows)), (0, 0)))
        self._rows[len(self.atoms)] = row
        self.atoms.append(atom)
        self.gains.append(gain)
        self.u = np.append(self.u, 0.0)
        self._optimise()
        return True

    def _optimise(self) -> None:
        """The u >= 0 that minimises J: go towards the unconstrained one until a weight is 0, drop it, and again."""
        while len(self.atoms):
            best = self._unconstrained()
            floor = _ZERO * max(float(np.abs(best).max()), float(self.centre[self.atoms].max()))
            if (best > floor).all():
                self.u = best
                break
            low = np.flatnonzero(best <= floor)
            fall = self.u[low] - best[low]
            step = np.where(fall > 0, self.u[low] / np.where(fall > 0, fall, 1), 0.0)
            first = int(low[np.argmin(step)])
            self.u = np.maximum(self.u + step.min() * (best - self.u), 0.0)
            self._leave(first)
        self.residual = self.target - self.u @ self.rows

    def _unconstrained(self) -> np.ndarray:
        """K⁻¹ (G_S b + λc), with one step of iterative refinement."""
        rows, centre = self.rows, self.centre[self.atoms]
        u = self.factor.solve(rows @ self.target + self.ridge * centre)
        slope = rows @ (self.target - u @ rows) + self.ridge * (centre - u)
        return u + self.factor.solve(slope)

    def _leave(self, i: int) -> None:
        self.factor.remove(i)
        self._rows[i : len(self.atoms) - 1] = self._rows[i + 1 : len(self.atoms)]
        del self.atoms[i], self.gains[i]
        self.u = np.delete(self.u, i)
        self.dropped += 1


class _Scores:
    """Correlations of all rows with a residual, and the best of those that are free."""

    def __init__(
        self, g: np.ndarray, pull: np.ndarray, ridge: float, discount: np.ndarray | None, prices: np.ndarray | None
    ):
        squares = np.einsum("ij,ij->i", g, g, dtype=np.float64)
        self.g, self.pull = g, pull
        self.squares = squares + ridge
        self.scale = np.zeros(len(g))
        np.divide(1.0, np.sqrt(self.squares), out=self.scale, where=squares > 0)  # rows of 0 match nothing
        if discount is not None:
            self.scale *= discount
        if prices is not None:
            self.scale /= np.sqrt(prices)  # gain per token: gain is the square of the correlation

    def best(self, residual: np.ndarray, free: np.ndarray) -> tuple[int, float] | None:
        """The free row of the largest correlation above 0 (ties to the first), and its gain; None if there is none."""
        rough = self.g @ residual.astype(np.float32)
        score = np.where(free, (rough + self.pull) * self.scale, -np.inf)
        top = float(score.max(initial=-np.inf))
        if top == -np.inf:
            return None
        noise = _NEAR * (abs(top) + float(np.linalg.norm(residual)))
        near = np.flatnonzero(score >= top - noise)[:_RECHECKED]
        # Row by row, so that equal rows get equal numbers.
        slope = (self.g[near] * residual).sum(axis=1) + self.pull[near]
        exact = slope * self.scale[near]
        j = int(np.argmax(exact))
        return (int(near[j]), float(slope[j] ** 2 / self.squares[near[j]])) if exact[j] > 0 else None


def pursue(
    g: np.ndarray,
    target: np.ndarray,
    costs: np.ndarray,
    capacity: int,
    *,
    ridge: float,
    centre: float | np.ndarray,
    free: np.ndarray | None = None,
    discount: np.ndarray | None = None,
    per_cost: bool = False,
    stop_at: float = 0.0,
) -> Pursuit:
    """Take atoms while one that fits the budget has a positive correlation with the residual.

    Args:
        g: Atoms (n, k), float32.
        target: b (k,), float64.
        costs: What each atom takes of the budget (n,), int64 >= 1.
        capacity: The budget. An atom that leaves gives back what it took.
        ridge: λ >= 0, in units of ‖g‖². At 0 the pursuit ends at the rank of the atoms at the latest.
        centre: c, what weights are pulled to: one number, or one for each atom (n,), float64.
        free: Rows (n,), bool, that may be picked; None for all. Rows of 0 never are.
        discount: Factors (n,) in (0, 1] of the correlations where atoms are compared; None for 1.
        per_cost: Compare gain per cost instead of gain.
        stop_at: End where ‖residual‖ is at most this; 0 to go on while the budget lasts and J falls.

    Returns:
        The atoms that have weight, in the order they entered. For them u is the minimum of J over u >= 0.
    """
    centres = np.broadcast_to(np.asarray(centre, np.float64), len(g))
    active = _Active(target, ridge, centres)
    scores = _Scores(g, ridge * centres, ridge, discount, costs if per_cost else None)
    allowed = np.ones(len(g), bool) if free is None else free
    for _ in range(3 * min(len(g), capacity) + 16):  # each lowers J; a bound all the same, as rounding could go round
        if stop_at > 0 and np.linalg.norm(active.residual) <= stop_at:
            break
        fits = allowed & (costs <= capacity - int(costs[active.atoms].sum()))
        fits[active.atoms] = False
        found = scores.best(active.residual, fits)
        if found is None or not active.enter(found[0], g[found[0]].astype(np.float64), found[1]):
            break
        if found[0] not in active.atoms:  # entered in vain: only rounding is left to gain
            break
    return Pursuit(np.array(active.atoms, np.int64), active.u, np.array(active.gains), active.dropped)


def even_pursuit(
    g: np.ndarray,
    target: np.ndarray,
    costs: np.ndarray,
    capacity: int,
    *,
    total: float,
    free: np.ndarray | None = None,
    discount: np.ndarray | None = None,
    per_cost: bool = False,
    stop_at: float = 0.0,
) -> Pursuit:
    """Match with equal weights: the t-th pick brings (A/t) Σ g nearest to the target (Balles et al. 2022).

    This is herding (Welling 2009), good after every pick, so that a budget of tokens needs no count of picks ahead.
    Exchanging picks afterwards lowers the residual on the sketch only (measured: not on others), so none is exchanged.

    Args:
        g: See ``pursue``; so are the others that are not below.
        target: b.
        costs: Costs.
        capacity: Budget.
        total: A, what the weights add up to.
        free: Rows that may be picked.
        discount: Factors of a score above 0 (one below is divided by it).
        per_cost: Compare scores per cost.
        stop_at: See ``pursue``.

    Returns:
        Picks with u = A/s; ``gains`` are their scores, ⟨g, b − (A/t) Σ g⟩ − (A/2t) ‖g‖², Σ over the picks before.
    """
    squares = np.einsum("ij,ij->i", g, g, dtype=np.float64)
    allowed = (np.ones(len(g), bool) if free is None else free.copy()) & (squares > 0)
    factor = (np.ones(len(g)) if discount is None else discount) / (costs if per_cost else 1)
    picks: list[int] = []
    gains: list[float] = []
    summed = np.zeros(len(target))
    left = capacity
    while (allowed & (costs <= left)).any():
        step = total / (len(picks) + 1)
        residual = target - step * summed
        rough = (g @ residual.astype(np.float32)) - step / 2 * squares
        score = np.where(allowed & (costs <= left), np.where(rough > 0, rough * factor, rough / factor), -np.inf)
        top = float(score.max())
        noise = _NEAR * (abs(top) + float(np.linalg.norm(residual) * np.sqrt(squares.max())))
        near = np.flatnonzero(score >= top - noise)[:_RECHECKED]
        exact = (g[near] * residual).sum(axis=1) - step / 2 * squares[near]
        best = int(np.argmax(np.where(exact > 0, exact * factor[near], exact / factor[near])))
        picks.append(int(near[best]))
        gains.append(float(exact[best]))
        allowed[picks[-1]] = False
        left -= int(costs[picks[-1]])
        summed += g[picks[-1]]
        if stop_at > 0 and np.linalg.norm(target - step * summed) <= stop_at:
            break
    return Pursuit(np.array(picks, np.int64), np.full(len(picks), total / max(1, len(picks))), np.array(gains), 0)
