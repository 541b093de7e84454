"""What the law of ``cptsel plan`` is worth: forgetting at budgets that it was not fitted to.

    python benchmarks/forgetting_plan.py evidence/results.jsonl
    python benchmarks/forgetting_plan.py evidence/results.jsonl --arm demand --mean domains --csv trainings.csv

Of every setting, way of choosing and mean: the law is fitted to the runs of all budgets but one, and tells of that one.
Prints a line of JSON each: by budget, as a multiple of the one, what was measured and what was foretold. With --csv
the trainings of one are written as ``cptsel plan`` takes them.
"""

from __future__ import annotations

import os
import sys

if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:  # where select.py would hide the standard module
    sys.path.remove(here)
    sys.path.append(here)

import argparse
import csv
import json

import numpy as np
from forgetting_report import BUDGETS, Results, read

from cptsel.pipeline.kernels.replay_law import LEAST_BUDGETS, fit_replay_law, foretell_left_out

METRICS = ("domains", "bytes")


def trainings(results: Results, arm: str, metric: str) -> list[tuple[int, float, float]]:
    """Seed, budget and rise of every run of an arm at any budget, and of those without replay."""
    names = {"none": 0.0} | {arm + tail + end: times for tail, times in BUDGETS.items() for end in ("", "x")}
    weights = results.weights(metric)
    return [
        (seed, times, float(rise @ weights))
        for name, times in names.items()
        for seed, rise in results.rise.get(name, {}).items()
    ]


def main() -> None:
    """Print lines, or write one file of trainings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", nargs="+", help="files of lines")
    parser.add_argument("--arm", help="whose trainings are written")
    parser.add_argument("--mean", choices=METRICS, default="domains", help="of the rises that are written")
    parser.add_argument("--csv", help="file to write")
    args = parser.parse_args()
    found = read(args.results)
    if args.csv:
        budget = found[0].setting
        tokens = budget["share"] * budget["steps"] * budget["rows"] * budget["length"]
        with open(args.csv, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["seed", "replay_tokens", "rise"])
            for seed, times, rise in trainings(found[0], args.arm, args.mean):
                writer.writerow([seed, round(times * tokens), round(rise, 5)])
        return
    for results in found:
        for arm in ("random", "demand", "demand-root"):
            for metric in METRICS:
                rows = np.array(trainings(results, arm, metric))
                if arm not in results.rise or len(np.unique(rows[:, 1])) < LEAST_BUDGETS:
                    continue
                print(json.dumps(facts(results, arm, metric, rows[:, 1], rows[:, 2])))


def facts(results: Results, arm: str, metric: str, times: np.ndarray, rise: np.ndarray) -> dict[str, object]:
    """What was measured and foretold, by budget."""
    said, by_budget, misses = foretell_left_out(times, rise), {}, []
    for budget in np.unique(times):
        of = times == budget
        by_budget[f"{budget:g}"] = {"runs": int(of.sum()), "measured": round(float(rise[of].mean()), 4)}
        if budget:
            by_budget[f"{budget:g}"]["foretold"] = round(float(said[of].mean()), 4)
            misses.append(float(said[of].mean() - rise[of].mean()))
    law = fit_replay_law(times, rise)
    saved = float(law.rise(0) - law.rise(times.max()))
    error = float(np.sqrt(np.mean(np.square(misses))))
    where = {name: results.setting[name] for name in ("model", "new", "pool")}
    return {
        **where,
        "arm": arm,
        "mean_over": metric,
        "budgets": by_budget,
        "error": round(error, 5),
        "error_of_saved": round(error / saved, 4),
    }


if __name__ == "__main__":
    main()
