"""Ways to choose that are no methods of cptsel: rivals, and ideas that were tried (docs/evidence.md says how they did).

Each takes a pool, a budget in tokens and a generator, and returns samples in the order in which they are taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 16  # tokens: what is left of a budget below this is left


@dataclass(frozen=True)
class Pool:
    """What is chosen from; n samples.

    Attributes:
        rows: narrow columns of the arm's last run: n_tokens, loss_sum, source, doc_key, and base_loss_sum where it is
            there.
        gradients: mean token gradients (n, k) float32 of each of the arm's runs.
        windows: token ids of every sample.
        new: token ids of the new domain's documents.
    """

    rows: dict[str, np.ndarray]
    gradients: Sequence[Callable[[], np.ndarray]]
    windows: Callable[[], Sequence[np.ndarray]]
    new: Callable[[], Sequence[np.ndarray]]

    @property
    def n_tokens(self) -> np.ndarray:
        """(n,) int64."""
        return self.rows["n_tokens"].astype(np.int64)

    @property
    def rise(self) -> np.ndarray:
        """(n,) float64: rise of the loss a token along the new domain, 0 where it falls."""
        return np.maximum(self.rows["loss_sum"] - self.rows["base_loss_sum"], 0.0) / self.rows["n_tokens"]


Pick = Callable[[Pool, int, np.random.Generator], Sequence[int]]


def take(order: Sequence[int], n_tokens: np.ndarray, budget: int) -> list[int]:
    """Samples in an order, those that still fit into the budget."""
    found: list[int] = []
    for i in order:
        if budget < LEAST:
            break
        if n_tokens[i] <= budget:
            found.append(int(i))
            budget -= int(n_tokens[i])
    return found


def top(score: Callable[[Pool], np.ndarray]) -> Pick:
    """Those with the highest score."""
    return lambda pool, budget, rng: take(np.argsort(-score(pool), kind="stable"), pool.n_tokens, budget)


def loss_a_token(pool: Pool) -> np.ndarray:
    """Mean loss of each sample, (n,)."""
    return pool.rows["loss_sum"] / pool.rows["n_tokens"]


def bm25(pool: Pool, k1: float = 1.2, b: float = 0.75) -> np.ndarray:
    """BM25 of every sample for the new domain as the query, a token id being a term (Robertson & Zaragoza 2009)."""
    windows = pool.windows()
    counts = [Counter(ids.tolist()) for ids in windows]
    seen = Counter(term for count in counts for term in count)
    query = Counter(term for ids in pool.new() for term in ids.tolist())
    total, mean = sum(query.values()), sum(map(len, windows)) / len(windows)
    weight = {
        term: times / total * np.log(1 + (len(windows) - seen[term] + 0.5) / (seen[term] + 0.5))
        for term, times in query.items()
    }
    return np.array(
        [
            sum(
                weight.get(term, 0.0) * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(ids) / mean))
                for term, tf in count.items()
            )
            for ids, count in zip(windows, counts, strict=True)
        ]
    )


def draw(beta: float, alpha: float = 1.0) -> Pick:
    """At random, in proportion to rise^beta and with the shares of domains tempered by ``alpha``."""

    def pick(pool: Pool, budget: int, rng: np.random.Generator) -> Sequence[int]:
        score = np.maximum(pool.rise, 1e-6) ** beta * tempered(pool.rows["source"], pool.n_tokens, alpha)
        return take(np.argsort(-np.log(score) - rng.gumbel(size=len(score))), pool.n_tokens, budget)

    return pick


def tempered(group: np.ndarray, n_tokens: np.ndarray, alpha: float) -> np.ndarray:
    """(n,) by which draws are weighted, so that groups get shares ∝ (their tokens)^alpha."""
    names, of = np.unique(group, return_inverse=True)
    tokens = np.bincount(of, weights=n_tokens, minlength=len(names))
    return tokens[of] ** (alpha - 1)


def split(alpha: float, beta: float) -> Pick:
    """At random inside domains, each with a share of the budget ∝ (its tokens)^alpha · (its mean rise)^beta."""

    def pick(pool: Pool, budget: int, rng: np.random.Generator) -> Sequence[int]:
        of = np.unique(pool.rows["source"], return_inverse=True)[1]
        tokens = np.bincount(of, weights=pool.n_tokens)
        rise = np.bincount(of, weights=pool.n_tokens * pool.rise) / tokens
        share = tokens**alpha * rise**beta
        found: list[int] = []
        left = 0.0
        for domain in np.argsort(-share):  # what is left of one goes to the next
            mine = rng.permutation(np.flatnonzero(of == domain))
            left += budget * share[domain] / share.sum()
            taken = take(mine, pool.n_tokens, int(left))
            left -= pool.n_tokens[taken].sum()
            found += taken
        return found

    return pick


def one_domain(name: str) -> Pick:
    """At random, from one domain alone."""

    def pick(pool: Pool, budget: int, rng: np.random.Generator) -> Sequence[int]:
        mine = np.flatnonzero(pool.rows["source"] == name)
        return take(rng.permutation(mine), pool.n_tokens, budget)

    return pick


def one_a_document(pool: Pool, budget: int, rng: np.random.Generator) -> Sequence[int]:
    """At random, a window of every document at most."""
    order = rng.permutation(len(pool.n_tokens))
    first = np.sort(np.unique(pool.rows["doc_key"][order], return_index=True)[1])
    return take(order[first], pool.n_tokens, budget)


def clusters(count: int, alpha: float) -> Pick:
    """At random from clusters of the gradients' directions, as if they were domains."""

    def pick(pool: Pool, budget: int, rng: np.random.Generator) -> Sequence[int]:
        from sklearn.cluster import KMeans

        found = KMeans(count, n_init=1, random_state=int(rng.integers(1 << 31))).fit_predict(unit(pool.gradients[0]()))
        score = tempered(found, pool.n_tokens, alpha)
        return take(np.argsort(-np.log(score) - rng.gumbel(size=len(score))), pool.n_tokens, budget)

    return pick


def last(pool: Pool) -> np.ndarray:
    """Gradients at the last of the runs."""
    return pool.gradients[-1]()


def change(pool: Pool) -> np.ndarray:
    """What moving along the new domain changed of the gradients."""
    return pool.gradients[-1]() - pool.gradients[0]()


def cover(
    of: Callable[[Pool], np.ndarray], *, demand: float = 0.0, power: float = 1.0, whiten: float | None = None
) -> Pick:
    """Greedy facility location: the sum over samples of n · rise^demand · (cosine to the nearest pick)₊^power."""

    def pick(pool: Pool, budget: int, rng: np.random.Generator) -> Sequence[int]:
        x = of(pool)
        directions = unit(x if whiten is None else whitened(x, whiten))
        likeness = np.maximum(directions @ directions.T, 0.0) ** power
        n_tokens, best = pool.n_tokens, np.zeros(len(directions), np.float32)
        mass = (n_tokens * pool.rise**demand if demand else n_tokens).astype(np.float32)
        free, found = np.ones(len(best), bool), []
        while (free := free & (n_tokens <= budget)).any() and budget >= LEAST:
            gain = mass @ np.maximum(likeness - best[:, None], 0.0)
            chosen = int(np.where(free, gain, -1.0).argmax())
            found.append(chosen)
            free[chosen] = False
            budget -= int(n_tokens[chosen])
            best = np.maximum(best, likeness[:, chosen])
        return found

    return pick


def herd(of: Callable[[Pool], np.ndarray], *, directions: bool = False) -> Pick:
    """Greedy matching of the mean gradient by equally weighted tokens (kernel herding, Welling 2009)."""

    def pick(pool: Pool, budget: int, rng: np.random.Generator) -> Sequence[int]:
        x, n_tokens = of(pool).astype(np.float64), pool.n_tokens
        x = unit(x) if directions else x
        target, square = np.average(x, axis=0, weights=n_tokens), np.einsum("ij,ij->i", x, x)
        found: list[int] = []
        total, tokens, free = np.zeros(x.shape[1]), 0, np.ones(len(x), bool)
        while (free := free & (n_tokens <= budget - tokens)).any() and budget - tokens >= LEAST:
            after = tokens + n_tokens
            norm = (total @ total + 2 * n_tokens * (x @ total) + n_tokens**2 * square) / after**2
            missed = norm - 2 * (total @ target + n_tokens * (x @ target)) / after
            chosen = int(np.where(free, missed, np.inf).argmin())
            found.append(chosen)
            free[chosen] = False
            total += n_tokens[chosen] * x[chosen]
            tokens += int(n_tokens[chosen])
        return found

    return pick


def k_center(of: Callable[[Pool], np.ndarray]) -> Pick:
    """Farthest first, by cosine, from a random start (Gonzalez 1985)."""

    def pick(pool: Pool, budget: int, rng: np.random.Generator) -> Sequence[int]:
        directions, n_tokens = unit(of(pool)), pool.n_tokens
        found = [int(rng.integers(len(directions)))]
        nearest = directions @ directions[found[0]]
        while n_tokens[found].sum() < budget:
            found.append(int(nearest.argmin()))
            nearest = np.maximum(nearest, directions @ directions[found[-1]])
        return take(found, n_tokens, budget)

    return pick


def unit(x: np.ndarray) -> np.ndarray:
    """Rows at length 1."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)


def whitened(x: np.ndarray, ridge: float) -> np.ndarray:
    """x (C + λI)^-½, C the second moment of the rows and λ ``ridge`` times its mean eigenvalue."""
    values, vectors = np.linalg.eigh((x.T @ x / len(x)).astype(np.float64))
    scale = 1 / np.sqrt(np.maximum(values, 0.0) + ridge * values.mean())
    return (x @ (vectors * scale) @ vectors.T).astype(np.float32)


#: Rivals and tries, with the runs that each wants; the runs are names of ``forgetting_arms.RUNS``.
BASE, AHEAD, BOTH = ("base",), ("ahead-50",), ("base", "ahead-50")
TRIES: dict[str, tuple[Pick, tuple[str, ...]]] = {
    "highest-loss": (top(loss_a_token), BASE),
    "lowest-loss": (top(lambda pool: -loss_a_token(pool)), BASE),
    "bm25": (top(bm25), BASE),
    "highest-rise": (top(lambda pool: pool.rise), AHEAD),
    "draw-rise": (draw(1.0), AHEAD),
    "draw-half-rise": (draw(0.5), AHEAD),
    "draw-rise-root": (draw(1.0, alpha=0.5), AHEAD),
    **{f"split-{a:g}-rise-{b:g}": (split(a, b), AHEAD) for a in (0, 0.25, 0.5, 0.75, 1) for b in (0, 0.5, 1)},
    "one-a-document": (one_a_document, BASE),
    **{
        f"clusters-{k}-{name}": (clusters(k, a), BASE)
        for k in (20, 100, 400)
        for name, a in (("equal", 0), ("root", 0.5))
    },
    "cosines": (cover(last), BASE),
    "cosines-ahead": (cover(last), AHEAD),
    "cosines-change": (cover(change), BOTH),
    "cosines-ahead-demand": (cover(last, demand=1.0), AHEAD),
    "cosines-change-demand": (cover(change, demand=1.0), BOTH),
    **{f"cosines^{p:g}": (cover(last, power=p), BASE) for p in (0.5, 2.0, 3.0)},
    **{f"cosines-change^{p:g}": (cover(change, power=p), BOTH) for p in (0.5, 2.0, 3.0)},
    **{f"cosines-white-{w:g}": (cover(last, whiten=w), BASE) for w in (0.01, 0.1, 1.0)},
    **{f"cosines-ahead-white-{w:g}": (cover(last, whiten=w), AHEAD) for w in (0.01, 0.1, 1.0)},
    **{f"cosines-change-white-{w:g}": (cover(change, whiten=w), BOTH) for w in (0.01, 0.1, 1.0)},
    "herding": (herd(last), BASE),
    "herding-ahead": (herd(last), AHEAD),
    "herding-change": (herd(change), BOTH),
    "herding-directions": (herd(last, directions=True), BASE),
    "herding-ahead-directions": (herd(last, directions=True), AHEAD),
    "herding-change-directions": (herd(change, directions=True), BOTH),
    "k-center": (k_center(last), BASE),
    "k-center-change": (k_center(change), BOTH),
}
