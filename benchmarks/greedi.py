"""GreeDi against centralised CRAIG: what a choice made in parts and merged loses, and what it costs.

    python benchmarks/greedi.py --run RUN   # gradients of an embedding run
    python benchmarks/greedi.py             # synthetic rows

Rows are dealt to 4 and to 16 partitions, at random and by cluster. Each picks its oversampled share of the budget, the
picks are merged with all rows as clients, and every row is assigned to its nearest pick, exactly; all in one process,
by the kernels that `cptsel select --scope global` runs. With L the exact mean distance to the nearest pick, the figure
is the gain over random, (L_random − L) / L_random, divided by that of CRAIG on all rows at once. CPU seconds are summed
over parts, and the largest part's stand beside them; bytes are those of the candidates that reach the merge.
"""

from __future__ import annotations

import os
import sys

# Python puts this file's folder first on its path, where select.py would be taken for the standard module of its name.
if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:
    sys.path.remove(here)

import argparse
import importlib.util
import json
import time
from pathlib import Path

import numpy as np

from cptsel.pipeline.kernels.coverage.craig import CraigResult, craig
from cptsel.pipeline.kernels.coverage.merge import merge, part_budget
from cptsel.pipeline.kernels.coverage.partition import route, train_centroids
from cptsel.pipeline.kernels.neighbours import nearest


def main() -> None:
    """Run every combination and print the table."""
    args = parse_arguments()
    rows, source = load_rows(args)
    random = np.random.default_rng(args.seed)
    x = np.ascontiguousarray(rows[random.permutation(len(rows))[: args.rows]])
    print(f"{len(x)} × {x.shape[1]} ({source}); gain over random, of the centralised gain\n")
    print(f"{'picks':>6} {'parts':>5} {'partition':<9} {'of central':>10} {'gain':>7} {'largest':>8} {'candidates':>10}"
          f" {'MB':>6} {'parts s':>8} {'part s':>7} {'merge s':>8}")  # fmt: skip
    figures = []
    for share in args.shares:
        budget = round(share * len(x))
        losses = [loss(x, random.choice(len(x), budget, replace=False)) for _ in range(5)]
        central, seconds = timed(select, x, budget, args)
        figures.append({"picks": budget, "parts": 1, "partition": "none", "merge_s": seconds})
        report(figures[-1], x, central, float(np.mean(losses)), None)
        base = figures[-1]["gain"]
        for parts in args.parts:
            for partition in ("random", "cluster"):
                figures.append({"picks": budget, "parts": parts, "partition": partition})
                result = greedi(x, budget, deal(x, parts, partition, args.seed), args, figures[-1])
                report(figures[-1], x, result, float(np.mean(losses)), base)
    if args.json:
        Path(args.json).write_text(json.dumps({"source": source, "figures": figures}, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", nargs="+", metavar="RUN", help="embedding runs to take gradients from")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.1], help="budgets (default 0.01 0.1)")
    parser.add_argument("--parts", type=int, nargs="+", default=[4, 16], help="partitions (default 4 16)")
    parser.add_argument("--neighbours", type=int, default=128)
    parser.add_argument("--refine", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file as well")
    return parser.parse_args()


def load_rows(args: argparse.Namespace) -> tuple[np.ndarray, str]:
    """The rows of ``benchmarks/select.py``: (n, dim) float32, and where they come from."""
    spec = importlib.util.spec_from_file_location("benchmark_rows", Path(here, "select.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load_rows(argparse.Namespace(**vars(args), peer_rows=0))


def deal(x: np.ndarray, parts: int, partition: str, seed: int) -> list[np.ndarray]:
    """The rows of each part, ascending."""
    if partition == "cluster":
        part = route(x, train_centroids(x[: len(x) // 2], parts, seed))  # trained on half of the rows, a random half
    else:
        part = np.random.default_rng(seed).integers(0, parts, len(x))
    return [rows for p in range(parts) if len(rows := np.flatnonzero(part == p))]


def select(x: np.ndarray, budget: int, args: argparse.Namespace, refine: int | None = None) -> CraigResult:
    """CRAIG on rows of mass 1."""
    passes = args.refine if refine is None else refine
    ones = np.ones(len(x))
    return craig(x, ones, ones.astype(np.int64), budget, neighbours=args.neighbours, refine=passes, seed=args.seed)


def greedi(x: np.ndarray, budget: int, dealt: list[np.ndarray], args: argparse.Namespace, figures: dict) -> CraigResult:
    """Pick in every part, merge, and note the cost."""
    picked, seconds = [], []
    for rows in dealt:
        result, cpu = timed(select, x[rows], part_budget(budget, len(rows) / len(x)), args, 0)
        picked.append(rows[result.picks])
        seconds.append(cpu)
    shortlist = np.concatenate(picked)
    ones = np.ones(len(x))
    options = {"neighbours": args.neighbours, "refine": args.refine, "seed": args.seed}
    merged, cpu = timed(merge, x, ones, ones.astype(np.int64), shortlist, budget, **options)
    figures |= {"largest_part": max(map(len, dealt)), "candidates": len(shortlist)}
    figures |= {"megabytes": len(shortlist) * x.shape[1] * x.itemsize / 1e6}
    figures |= {"parts_s": sum(seconds), "part_s": max(seconds), "merge_s": cpu}
    return merged


def timed(function, *arguments, **options) -> tuple[CraigResult, float]:
    """A result and the CPU seconds it took."""
    start = time.process_time()
    result = function(*arguments, **options)
    return result, time.process_time() - start


def loss(x: np.ndarray, picks: np.ndarray) -> float:
    """Exact mean distance of all rows to the nearest pick."""
    return float(nearest(x, x[picks], 1).distances.mean(dtype=np.float64))


def report(figures: dict, x: np.ndarray, result: CraigResult, random: float, central: float | None) -> None:
    """Measure a choice and print its line."""
    figures["gain"] = (random - loss(x, result.picks)) / random
    figures["of_central"] = figures["gain"] / (central or figures["gain"])
    cost = [
        f"{figures[name]:{width}}" if name in figures else " " * int(width.split(".")[0])
        for name, width in (
            ("largest_part", "8"), ("candidates", "10"), ("megabytes", "6.1f"), ("parts_s", "8.1f"), ("part_s", "7.1f")
        )
    ]  # fmt: skip
    print(
        f"{figures['picks']:6} {figures['parts']:5} {figures['partition']:<9} {figures['of_central']:10.4f} "
        f"{figures['gain']:7.4f} {' '.join(cost)} {figures['merge_s']:8.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
