"""How well sketches predict the rise of a sample's loss where it was measured for a part of the pool alone.

    python benchmarks/rises.py --run RUN --ahead AHEAD --group-by source

RUN and AHEAD are runs of the same pool, at the model as given and a few steps along the new domain (`embed
--lookahead`). δ is a sample's loss a token at AHEAD minus that at RUN. A share of the documents, by the hash of their
names, is taken to be measured; from it δ is predicted for all others, from what RUN says of them:

    groups                the mean of the sample's group
    loss                  linear in the sample's own loss a token
    groups + loss         linear in both
    ridge, knn            of the sketch alone: ridge regression on mean token gradients g / n; the mean of the K nearest
                          samples by cosine of the directions
    groups + loss + …     the same, of what groups and loss leave

Samples count by their tokens, in fits and in R². Ridge and K are those of a few that do best in five-fold
cross-validation inside the measured part, by documents; `held out` is the best R² there, and `others` that on the
samples that were not measured. Ranks are Spearman's, over the others, and as a mean over groups by their tokens.
Figures are means over seeds of the share, with their standard deviation.
"""

from __future__ import annotations

import os
import sys

# Python puts this file's folder first on its path, where select.py would be taken for the standard module of its name.
if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:
    sys.path.remove(here)

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from cptsel.pipeline.artifacts.run import open_checkpoints, open_runs
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.neighbours import nearest
from cptsel.pipeline.selection.reading.gradients import read_sums, rise_of_loss, unit_rows
from cptsel.pipeline.selection.reading.rows import float_column, read_shard

RIDGES = tuple(10.0**power for power in range(-4, 3))  # of the mean squared length of g / n
NEIGHBOURS = (1, 2, 5, 10, 20, 40)
FOLDS = 5
FEW = 20  # a group with fewer samples has no rank correlation

#: Predictions for some rows from others: (samples, rows to fit on, rows to predict) → (rows to predict,).
Predictor = Callable[["Samples", np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of RUN.

    Attributes:
        documents: (n,) doc_key of each.
        groups: (n,) number of its group.
        n_tokens: (n,) float64.
        loss: (n,) loss a token at RUN.
        rise: (n,) δ.
        sketch: (n, k) float32, g / n.
    """

    documents: list[str]
    groups: np.ndarray
    n_tokens: np.ndarray
    loss: np.ndarray
    rise: np.ndarray
    sketch: np.ndarray


@dataclass(frozen=True)
class Figures:
    """What a predictor reaches with one seed; nan where it is not defined."""

    held_out: float
    others: float
    rank: float
    rank_in_groups: float


def main() -> None:
    """Read both runs and print the table."""
    args = parse_arguments()
    samples = read_samples(args.run, args.ahead, args.group_by, args.sketches)
    mean = np.average(samples.rise, weights=samples.n_tokens)
    spread = np.sqrt(np.average((samples.rise - mean) ** 2, weights=samples.n_tokens))
    print(f"{len(samples.rise):,} samples; rise of loss, nats a token: {mean:.3f} ± {spread:.3f}\n")
    print("| measured | predicted by | R², held out | R², others | rank | rank in groups |")
    print("| --- | --- | --- | --- | --- | --- |")
    for share in args.shares:
        found = [evaluate(samples, share, seed) for seed in range(args.seeds)]
        for name in found[0]:
            columns = np.array([list(vars(one[name]).values()) for one in found]).T
            cells = [
                "" if np.isnan(column).any() else f"{column.mean():.3f} ± {column.std():.3f}" for column in columns
            ]
            print(f"| {share:.0%} | {name} | {' | '.join(cells)} |", flush=True)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True, help="embedding run at the model as given")
    parser.add_argument("--ahead", required=True, metavar="RUN", help="of the same pool, along the new domain")
    parser.add_argument("--sketches", metavar="RUN", help="take sketches from it: RUN with another --gradient")
    parser.add_argument("--group-by", metavar="COLUMN", help="group column of both (default: all are one group)")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25], help="measured parts (default 0.25)")
    parser.add_argument("--seeds", type=int, default=5)
    return parser.parse_args()


def read_samples(run: str, ahead: str, group_by: str | None, sketches: str | None = None) -> Samples:
    """The samples of two runs of one pool, with the sketches of the first or of a third."""
    runs, other = open_checkpoints([run, ahead]), open_runs([sketches or run])
    documents: list[str] = []
    names: list[str] = []
    columns: list[list[np.ndarray]] = []
    for shard, of_sketches in zip(runs.shards, other.shards, strict=True):
        rows = read_shard(shard, runs.schema, group_by, frozenset())
        if rows is None:
            continue
        same = read_shard(of_sketches, other.schema, group_by, frozenset())
        if same is None or not same.table["sample_id"].equals(rows.table["sample_id"]):
            sys.exit(f"{other.directories[0]} does not hold the samples of {run}; embed the same pool")
        n_tokens = float_column(rows.table, "n_tokens")
        sketch = read_sums(same, other.schema, "direction")[0]
        sketch /= n_tokens.astype(np.float32)[:, None]
        loss = float_column(rows.table, "loss_sum") / n_tokens
        columns.append([n_tokens, loss, rise_of_loss(rows, runs.schema, None), sketch])
        documents += rows.table["doc_key"].to_pylist()
        names += rows.table["group"].to_pylist()
    groups = np.unique(names, return_inverse=True)[1]
    return Samples(documents, groups, *(np.concatenate(parts) for parts in zip(*columns, strict=True)))


def evaluate(samples: Samples, share: float, seed: int) -> dict[str, Figures]:
    """Every predictor, with this share of the documents measured."""
    measured = uniform(seed, "measured", samples.documents) <= share
    inside, others = np.flatnonzero(measured), np.flatnonzero(~measured)
    folds = np.ceil(FOLDS * uniform(seed, "fold", samples.documents)).astype(int)
    found = {}
    for name, settings in PREDICTORS.items():
        scores = [_held_out(samples, inside, folds, predict) for predict in settings]
        best = int(np.argmax(scores))
        predicted = settings[best](samples, inside, others)
        rise = samples.rise[others]
        found[name] = Figures(
            scores[best],
            r_squared(rise, predicted, samples.n_tokens[others]),
            _rank(rise, predicted),
            _rank_in_groups(samples, others, predicted),
        )
    return found


def r_squared(y: np.ndarray, predicted: np.ndarray, weight: np.ndarray) -> float:
    """1 − Σ w (y − ŷ)² / Σ w (y − ȳ)²."""
    left = weight @ (y - predicted) ** 2
    return float(1 - left / (weight @ (y - np.average(y, weights=weight)) ** 2))


def _held_out(samples: Samples, rows: np.ndarray, folds: np.ndarray, predict: Predictor) -> float:
    """R² of predictions for each fold from the others."""
    predicted = np.empty(len(rows))
    for fold in np.unique(folds[rows]):
        out = folds[rows] == fold
        predicted[out] = predict(samples, rows[~out], rows[out])
    return r_squared(samples.rise[rows], predicted, samples.n_tokens[rows])


def _rank(y: np.ndarray, predicted: np.ndarray) -> float:
    if np.ptp(predicted) < 1e-9:
        return float("nan")
    return float(spearmanr(y, predicted).statistic)


def _rank_in_groups(samples: Samples, rows: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over groups, by tokens; nan where a predictor tells the samples of a group from each other nowhere."""
    ranks, tokens = [], []
    for group in np.unique(samples.groups[rows]):
        mine = samples.groups[rows] == group
        if mine.sum() >= FEW:
            ranks.append(_rank(samples.rise[rows][mine], predicted[mine]))
            tokens.append(samples.n_tokens[rows][mine].sum())
    return float(np.average(ranks, weights=tokens)) if ranks else float("nan")


def linear(samples: Samples, fit: np.ndarray, rows: np.ndarray, groups: bool, loss: bool) -> np.ndarray:
    """Least squares on groups, or a constant, and own loss; a group that was not seen is as the mean of those seen."""
    labels = samples.groups if groups else np.zeros_like(samples.groups)
    x = np.eye(labels.max() + 1)[labels]
    tokens = x[fit].T @ samples.n_tokens[fit]
    if loss:
        x = np.column_stack([x, samples.loss])
    weight = np.sqrt(samples.n_tokens[fit])
    solved = np.linalg.lstsq(x[fit] * weight[:, None], samples.rise[fit] * weight, rcond=None)[0]
    of_group = solved[: len(tokens)]
    of_group[tokens == 0] = np.average(of_group, weights=tokens)
    return np.asarray(x[rows] @ solved)


def ridge(samples: Samples, fit: np.ndarray, rows: np.ndarray, base: Predictor, penalty: float) -> np.ndarray:
    """The base, and ridge regression of what it leaves on mean token gradients."""
    weight = samples.n_tokens[fit]
    left = samples.rise[fit] - base(samples, fit, fit)
    x = samples.sketch / np.sqrt(np.mean(np.einsum("ij,ij->i", samples.sketch[fit], samples.sketch[fit])))
    model = Ridge(penalty * weight.sum()).fit(x[fit], left, sample_weight=weight)
    return base(samples, fit, rows) + model.predict(x[rows])


def knn(samples: Samples, fit: np.ndarray, rows: np.ndarray, base: Predictor, k: int) -> np.ndarray:
    """The base, and the mean of what it leaves at the K nearest samples, by tokens."""
    directions = unit_rows(samples.sketch)
    found = nearest(directions[rows], directions[fit], k).indices
    left, weight = samples.rise[fit] - base(samples, fit, fit), samples.n_tokens[fit]
    return base(samples, fit, rows) + (left * weight)[found].sum(axis=1) / weight[found].sum(axis=1)


def _of_sketches(base: Predictor) -> dict[str, list[Predictor]]:
    return {
        "ridge": [partial(ridge, base=base, penalty=penalty) for penalty in RIDGES],
        "knn": [partial(knn, base=base, k=k) for k in NEIGHBOURS],
    }


_CONSTANT = partial(linear, groups=False, loss=False)
_GROUPS_AND_LOSS = partial(linear, groups=True, loss=True)
#: By name, each with the settings among which cross-validation chooses.
PREDICTORS: dict[str, Sequence[Predictor]] = {
    "groups": [partial(linear, groups=True, loss=False)],
    "loss": [partial(linear, groups=False, loss=True)],
    "groups + loss": [_GROUPS_AND_LOSS],
    **_of_sketches(_CONSTANT),
    **{f"groups + loss + {name}": settings for name, settings in _of_sketches(_GROUPS_AND_LOSS).items()},
}


if __name__ == "__main__":
    main()
