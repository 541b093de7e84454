"""What choosing by sketches keeps of choosing by exact gradients.

    python benchmarks/fidelity.py                                  # the sample data and its model
    python benchmarks/fidelity.py --model DIR --corpus 'GLOB'...   # others

Exact per-sample gradients of some windows are made by autograd: of the head, of the body (all linear layers below it),
and of both, mixed as ``embed --gradient head+body`` mixes them. CRAIG and gradient matching choose by the sketches, at
every ``--k``, and by the exact gradients themselves (in coordinates in which inner products are the same; k is null).
Each choice is judged by the exact gradients of its own kind (``own``), and by those of head and body as they are, which
is the gradient of all linear layers (``full``):

- *coverage*: the share of the exact choice's gain over random picks, in mean distance of unit directions;
- *matching*: the residual of the choice, with its weights, over that of the exact choice; 1 is as good.

The windows are cut into ``--draws`` random halves, and the intervals are the 2.5 and 97.5 percentiles of what these
give. (A bootstrap would draw some windows twice, which then cover each other; a random half of n varies about a mean of
all as much as a bootstrap sample of n does.) One JSON line a gradient and k. Takes 4 bytes a parameter and window of
memory.
"""

from __future__ import annotations

import os
import sys

if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:  # where select.py would hide the standard module
    sys.path.remove(here)

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

sys.path.append(here)
from text_gradients import load, read_windows

from cptsel.pipeline.kernels.coverage.craig import craig
from cptsel.pipeline.kernels.matching.gradmatch import match
from cptsel.pipeline.kernels.matching.mass import tokens_of_atoms, with_mass
from cptsel.pipeline.model.frozen import FrozenModel
from cptsel.pipeline.model.gradients.body import linear_layers
from cptsel.pipeline.model.gradients.registry import GRADIENTS

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"


def main() -> None:
    """Print a line a gradient and k."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default=str(SAMPLE / "tiny-lm"))
    parser.add_argument("--corpus", nargs="+", metavar="GLOB", default=[str(SAMPLE / "old/*/*.jsonl.gz")])
    parser.add_argument("--documents", type=int, default=8, help="first documents of every shard (default 8)")
    parser.add_argument("--windows", type=int, default=160, help="windows that are drawn from these (default 160)")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--budget", type=float, default=0.1, help="share of the windows that is chosen (default 0.1)")
    parser.add_argument("--k", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    model = load(args.model, args.max_tokens, 8, args.threads)
    windows = read_windows(args.corpus, model, args.max_tokens, args.documents)
    picks = np.random.default_rng(0).choice(len(windows), min(args.windows, len(windows)), replace=False)
    windows = [windows[i] for i in sorted(picks)]
    tokens = np.array([len(window) - 1 for window in windows])
    head, body = exact_grams(model, windows)
    mixing = tuple(1 / float(np.sqrt(np.mean(np.diag(gram) / tokens**2))) for gram in (head, body))
    grams = {"head": head, "body": body, "head+body": mixing[0] ** 2 * head + mixing[1] ** 2 * body}
    draws = list(halves(len(windows), args.draws))
    full = Judge(head + body, tokens, draws, args.budget)
    for kind, gram in grams.items():
        own = Judge(gram, tokens, draws, args.budget)
        for k in [*args.k, None]:
            if k is None:
                g = v = coordinates(gram)
            else:
                g, v = sketches(model, windows, kind, k, (mixing[0], mixing[1]))
            kept = compare(g, v, {"own": own, "full": full}, tokens)
            facts = {"gradient": kind, "k": k, "windows": len(windows), "draws": args.draws, "budget": args.budget}
            print(json.dumps(facts | kept), flush=True)


def exact_grams(model: FrozenModel, windows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Inner products (n, n) float64 of the gradients of summed losses, by the head and by all layers of the body."""
    weights = {"head": [model.head.weight], "body": [layer.weight for layer in linear_layers(model, None).values()]}
    base = model.head.weight.detach().clone()  # where it is tied, the gradient through the embedding is not the head's
    grams = {}
    for name, some in weights.items():
        rows = np.empty((len(windows), sum(weight.numel() for weight in some)), np.float32)
        for row, window in zip(rows, windows, strict=True):
            ids = torch.from_numpy(window[None].astype(np.int64))
            if name == "head":
                with torch.no_grad():
                    hidden = model.base(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[0]
                taken = [base.requires_grad_()]
            else:
                taken = [weight.requires_grad_() for weight in some]
                hidden = model.base(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[0]
            logits = model.head.logit_map.apply(torch.nn.functional.linear(hidden, base, model.head.bias).float())
            loss = cross_entropy(logits, ids[0, 1:], reduction="sum")
            row[:] = torch.cat([part.flatten() for part in torch.autograd.grad(loss, taken)]).numpy()
        model.model.requires_grad_(False)
        base.requires_grad_(False)
        grams[name] = sum((part @ part.T).astype(np.float64) for part in np.array_split(rows, 64, axis=1))
    return grams["head"], grams["body"]


def sketches(
    model: FrozenModel, windows: list[np.ndarray], kind: str, k: int, mixing: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Sketches (n, k) and validation sketches (n, 256) of the windows."""
    spec = dataclasses.replace(model.spec, gradient=kind, sketch_dim=k, validation_dim=256, mixing=mixing)
    model.spec = spec
    gradients = GRADIENTS[kind](model)
    rows = [gradients.of_windows([window]) for window in windows]
    return torch.cat([row.sketch for row in rows]).numpy(), torch.cat([row.validation for row in rows]).numpy()


class Judge:
    """What choosing by exact gradients reaches, in each draw.

    Args:
        gram: inner products (n, n) of the gradients.
        tokens: (n,) predicted tokens.
        draws: rows of each draw.
        share: of the rows that is chosen.
    """

    def __init__(self, gram: np.ndarray, tokens: np.ndarray, draws: list[np.ndarray], share: float) -> None:
        self.draws, self.budget = draws, max(2, round(share * len(draws[0])))
        self.parts = [gram[np.ix_(rows, rows)] for rows in draws]
        self.distances, self.by_chance, self.gains, self.residuals = [], [], [], []
        for seed, (rows, part) in enumerate(zip(draws, self.parts, strict=True)):
            random = np.random.default_rng(seed)
            unit = part / np.sqrt(np.outer(np.diag(part), np.diag(part)))
            distance = np.sqrt(np.maximum(0, 2 - 2 * unit))
            chance = [covered(distance, random.choice(len(rows), self.budget, replace=False)) for _ in range(200)]
            self.distances.append(distance)
            self.by_chance.append(float(np.mean(chance)))
            exact = coordinates(part)
            self.gains.append(self.by_chance[-1] - covered(distance, cover(exact, self.budget)))
            self.residuals.append(residual(part, *matched(exact, exact, tokens[rows], self.budget)))


def compare(x: np.ndarray, v: np.ndarray, judges: dict[str, Judge], tokens: np.ndarray) -> dict[str, object]:
    """Shares and ratios over the draws, median and interval, of choices by sketches (n, k) and (n, k'), by judge."""
    kept: dict[str, dict[str, list[float]]] = {name: {"coverage": [], "matching": []} for name in judges}
    one = next(iter(judges.values()))
    for d, rows in enumerate(one.draws):
        picks = cover(x[rows], one.budget)
        match = matched(x[rows], v[rows], tokens[rows], one.budget)
        for name, judge in judges.items():
            gain = judge.by_chance[d] - covered(judge.distances[d], picks)
            kept[name]["coverage"].append(gain / judge.gains[d])
            kept[name]["matching"].append(residual(judge.parts[d], *match) / judge.residuals[d])
    return {name: {what: interval(values) for what, values in some.items()} for name, some in kept.items()}


def interval(values: list[float]) -> dict[str, float]:
    """Median, and the 2.5 and 97.5 percentiles."""
    low, middle, high = np.percentile(values, [2.5, 50, 97.5])
    return {"median": round(middle, 4), "low": round(low, 4), "high": round(high, 4)}


def halves(n: int, draws: int) -> Iterator[np.ndarray]:
    """Random halves of n rows, sorted."""
    random = np.random.default_rng(1)
    for _ in range(draws):
        yield np.sort(random.choice(n, n // 2, replace=False))


def coordinates(gram: np.ndarray) -> np.ndarray:
    """Vectors (n, n) float32 with these inner products."""
    values, vectors = np.linalg.eigh(gram)
    return (vectors * np.sqrt(np.maximum(values, 0))).astype(np.float32)


def cover(x: np.ndarray, budget: int) -> np.ndarray:
    """The picks of CRAIG by unit directions."""
    ones = np.ones(len(x))
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return craig(unit, ones, ones.astype(np.int64), budget).picks


def covered(distance: np.ndarray, picks: np.ndarray) -> float:
    """Mean distance to the nearest pick."""
    return float(distance[:, picks].min(axis=1).mean())


def matched(x: np.ndarray, v: np.ndarray, tokens: np.ndarray, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Picks and weights of gradient matching, as ``select`` calls it: the root of the tokens is one more coordinate."""
    mass, counts = float(tokens.sum()), tokens_of_atoms(tokens, even=False)
    (g, target), (v, goal) = (with_mass(y, tokens, y.sum(axis=0, dtype=np.float64), mass, even=False) for y in (x, v))
    a = tokens / counts
    result = match(g, a, tokens, budget, validation=v, target=target, validation_target=goal, counts=counts)
    return result.picks, result.u / a[result.picks]


def residual(gram: np.ndarray, picks: np.ndarray, weights: np.ndarray) -> float:
    """‖Σ_i g_i − Σ_j u_j g_j‖ / ‖Σ_i g_i‖ by exact gradients."""
    u = np.ones(len(gram))
    u[picks] -= weights
    return float(np.sqrt(max(0.0, u @ gram @ u) / gram.sum()))


if __name__ == "__main__":
    main()
