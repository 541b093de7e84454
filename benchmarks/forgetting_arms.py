"""The arms of ``forgetting.py``: what each replays, and choices that rivals make from losses and texts alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

# Embedding runs of the old corpus, and of the new one: options of ``cptsel embed`` beside model, corpus and pool.
AHEAD = ("--lookahead", "{new}")
FAR = (*AHEAD, "--lookahead-optimizer", "adamw", "--lookahead-lr", "3e-4", "--lookahead-tokens", "4096")
RUNS: dict[str, tuple[str, ...]] = {
    "base": (),
    "ahead": AHEAD,
    "ahead-10": (*FAR, "--lookahead-steps", "10"),
    "ahead-50": (*FAR, "--lookahead-steps", "50"),
    "ahead-50-128": (*FAR, "--lookahead-steps", "50", "--max-tokens", "128"),
    "ahead-50-64": (*FAR, "--lookahead-steps", "50", "--max-tokens", "64"),
    "body": ("--gradient", "body"),
    "k256": ("--sketch-dim", "256"),
    "k4096": ("--sketch-dim", "4096"),
    "new": (),
}
ROW_COLUMNS = ("sample_id", "shard_id", "row_index", "token_start", "token_count", "n_tokens", "loss_sum")


@dataclass(frozen=True)
class Pool:
    """What rivals choose from: a table of the pool's samples, and their texts as token ids."""

    rows: dict[str, np.ndarray]
    windows: Callable[[], Sequence[np.ndarray]]
    new: Callable[[], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Arm:
    """One way to replay.

    Attributes:
        select: options of ``cptsel select`` beside runs, budget, seed and --out.
        runs: names of RUNS, in the order in which they are given.
        new: whether ``--new`` is given.
        budget: times the budget of the benchmark; None for as many tokens as there are of the new domain.
        score: (n,) of a pool's samples; those that score highest are taken, in place of any method.
        generated: the model's own text is replayed.
    """

    select: str = ""
    runs: tuple[str, ...] = ("base",)
    new: bool = False
    budget: float | None = 1.0
    score: Callable[[Pool], np.ndarray] | None = None
    generated: bool = False


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


ONCE = "--scope global --realisation none"
UNIFORM = f"--method uniform {ONCE}"
COVER = f"--method craig --similarity cosine --mass corpus {ONCE}"
DEMAND = COVER.replace("corpus", "interference")  # cover what the new domain makes the model forget
SPLITS = {
    "own": "--group-by source",
    "root": "--group-by source --group-alpha 0.5",
    "equal": "--group-by source --group-alpha 0",
    "rise": "--group-by source --group-mass interference",
}

ARMS: dict[str, Arm] = {
    "random": Arm(UNIFORM),
    "random-half": Arm(UNIFORM, budget=0.5),
    "random-2": Arm(UNIFORM, budget=2.0),
    "random-4": Arm(UNIFORM, budget=4.0),
    "joint": Arm(UNIFORM, budget=None),
    **{f"random-{name}": Arm(f"{UNIFORM} {split}", ("ahead-50",)) for name, split in SPLITS.items()},
    "highest-loss": Arm(score=loss_a_token),
    "lowest-loss": Arm(score=lambda pool: -loss_a_token(pool)),
    "bm25": Arm(score=bm25),
    "generated": Arm(generated=True),
    "importance": Arm(f"--method importance {ONCE}"),
    "interference": Arm(f"--method interference {ONCE}", ("ahead-50",)),
    # coverage at the model as it was given
    "craig-repeat": Arm("--method craig --similarity euclidean --scope global --realisation repeat"),
    "craig-loss": Arm("--method craig --similarity euclidean --scope global --realisation loss"),
    "craig": Arm(f"--method craig --similarity euclidean {ONCE}"),
    "cover": Arm(COVER),
    "cover-repeat": Arm(COVER.replace("none", "repeat")),
    "cover-loss": Arm(COVER.replace("none", "loss")),
    "kmedoids": Arm(COVER.replace("craig", "kmedoids")),
    "cover-body": Arm(COVER, ("body",)),
    "cover-k256": Arm(COVER, ("k256",)),
    "cover-k4096": Arm(COVER, ("k4096",)),
    # a little way along the new domain
    "cover-ahead": Arm(COVER, ("ahead-50",)),
    "cover-change": Arm(f"{COVER} --combine difference", ("base", "ahead-50")),
    "demand": Arm(DEMAND, ("ahead-50",)),
    "demand-1": Arm(DEMAND, ("ahead",)),
    "demand-10": Arm(DEMAND, ("ahead-10",)),
    "demand-change": Arm(f"{DEMAND} --combine difference", ("base", "ahead-50")),
    "demand-repeat": Arm(DEMAND.replace("none", "repeat"), ("ahead-50",)),
    "demand-root-rise": Arm(f"{DEMAND} --interference-beta 0.5", ("ahead-50",)),
    "demand-squared-rise": Arm(f"{DEMAND} --interference-beta 2", ("ahead-50",)),
    **{f"demand-{name}": Arm(f"{DEMAND} {split}", ("ahead-50",)) for name, split in SPLITS.items()},
    # shorter windows: more of them, from more documents
    "random-128": Arm(UNIFORM, ("ahead-50-128",)),
    "random-64": Arm(UNIFORM, ("ahead-50-64",)),
    "demand-128": Arm(DEMAND, ("ahead-50-128",)),
    "demand-64": Arm(DEMAND, ("ahead-50-64",)),
    "gradmatch": Arm(f"--method gradmatch {ONCE}"),
    "gradmatch-ahead": Arm(f"--method gradmatch {ONCE}", ("ahead-50",)),
    "gradmatch-ahead-root": Arm(f"--method gradmatch {ONCE} {SPLITS['root']}", ("ahead-50",)),
    "gradmatch-demand": Arm(f"--method gradmatch --mass interference {ONCE}", ("ahead-50",)),
    "gradient-coreset": Arm(f"--method gradient-coreset {ONCE}"),
    "coreset-ahead": Arm(f"--method gradient-coreset {ONCE}", ("ahead-50",)),
}

#: The arm that draws at random under the same split over groups.
SAME_SPLIT = {"demand-own": "random-own", "demand-root": "random-root", "demand-equal": "random-equal"} | {
    "demand-rise": "random-rise",
    "gradmatch-ahead-root": "random-root",
}
#: Smaller and larger budgets of the arms that are followed over budgets.
for name in ("demand", "cover", "random-root"):
    for budget in (0.5, 2.0, 4.0):
        ARMS[f"{name}-{'half' if budget < 1 else round(budget)}x"] = replace(ARMS[name], budget=budget)
