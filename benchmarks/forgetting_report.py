"""Tables and a figure from the lines of ``forgetting.py`` alone.

    python benchmarks/forgetting_report.py evidence/results.jsonl --figure forgetting.svg

Forgetting is the rise of held-out loss in bits per byte: its mean over domains, its mean over the bytes of the old
corpus, and its largest over domains. *Efficiency* is how many times as much random replay forgets as little: the
budget, as a multiple of the one, at which the line through ½, 1, 2 and 4 times random replay, linear in the logarithm
of the budget, reaches the arm's forgetting. Intervals are 95 % of bootstraps that draw seeds, the same for all arms,
and domains anew.
"""

from __future__ import annotations

import os
import sys

if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:  # where select.py would hide the standard module
    sys.path.remove(here)
    sys.path.append(here)

import argparse
import gzip
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from forgetting_arms import SAME_SPLIT

LINE = {"random-half": 0.5, "random": 1.0, "random-2": 2.0, "random-4": 4.0}
BOOTSTRAPS = 2_000
#: Ends of arms by budget, with an x where they are not of random draws.
BUDGETS = {"-fifth": 0.2, "-half": 0.5, "": 1.0, "-2": 2.0, "-4": 4.0, "-5": 5.0}


@dataclass(frozen=True)
class Results:
    """Runs of one setting.

    Attributes:
        setting: what they share.
        rise: by arm and seed, of every domain, (domains,).
        learnt: by arm and seed, fall of the new domain's loss, and of the related one's (nan where there is none).
        domains: their names.
        share: (domains,) of the old corpus's bytes.
    """

    setting: dict[str, Any]
    rise: dict[str, dict[int, np.ndarray]]
    learnt: dict[str, dict[int, tuple[float, float]]]
    domains: list[str]
    share: np.ndarray

    def weights(self, metric: str) -> np.ndarray:
        """(domains,) that add up to 1."""
        return self.share if metric == "bytes" else np.full(len(self.domains), 1 / len(self.domains))

    def seeds(self, arm: str) -> list[int]:
        """Of the arm's runs that random replay has too."""
        return sorted(set(self.rise[arm]) & set.intersection(*(set(self.rise[name]) for name in LINE)))

    def matrix(self, arm: str, seeds: Sequence[int]) -> np.ndarray:
        """(seeds, domains)."""
        return np.stack([self.rise[arm][seed] for seed in seeds])


def read(paths: Sequence[str]) -> list[Results]:
    """Results by setting, in the order in which they are met."""
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in paths:
        open_text = gzip.open if path.endswith(".gz") else open
        try:
            with open_text(path, "rt", encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise SystemExit(f"{path}: {error.strerror or error}") from None
        for line in text.splitlines():
            run = json.loads(line)
            lines[json.dumps(run["setting"], sort_keys=True)].append(run)
    found = []
    for runs in lines.values():
        domains = list(runs[0]["before"])
        rise: dict[str, dict[int, np.ndarray]] = defaultdict(dict)
        learnt: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
        for run in runs:
            rise[run["arm"]][run["seed"]] = np.array([run["after"][name] - run["before"][name] for name in domains])
            related = run["related_before"] - run["related_after"] if "related_before" in run else np.nan
            learnt[run["arm"]][run["seed"]] = (run["new_before"] - run["new_after"], related)
        size = np.array([runs[0]["corpus_bytes"][name] for name in domains], np.float64)
        found.append(Results(runs[0]["setting"], dict(rise), dict(learnt), domains, size / size.sum()))
    return found


def efficiency(forgotten: float, line: np.ndarray) -> float:
    """Budget at which random replay forgets as much; ``line`` is what it forgets at the budgets of LINE."""
    falling = np.minimum.accumulate(line)
    return float(np.exp(np.interp(-forgotten, -falling, np.log(list(LINE.values())))))


def interval(results: Results, arm: str, metric: str) -> tuple[float, float, float]:
    """Efficiency of an arm and its interval."""
    seeds, weights, rng = results.seeds(arm), results.weights(metric), np.random.default_rng(0)
    mine = results.matrix(arm, seeds)
    random = np.stack([results.matrix(name, seeds) for name in LINE])
    drawn = []
    for number in range(BOOTSTRAPS + 1):
        rows, columns = np.arange(len(seeds)), np.arange(len(weights))
        if number:
            rows, columns = rng.integers(len(rows), size=len(rows)), rng.integers(len(columns), size=len(columns))
        of = weights[columns] / weights[columns].sum()
        drawn.append(efficiency(mine[np.ix_(rows, columns)].mean(0) @ of, random[:, rows][:, :, columns].mean(1) @ of))
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return drawn[0], float(low), float(high)


def table(results: Results) -> str:
    """One row an arm, those that forget least first."""
    head = (
        f"{heading(results.setting)}\n\n"
        "| arm | seeds | over domains | over bytes | worst domain | new | efficiency, domains | efficiency, bytes | "
        "against random | spread |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    rows = []
    for arm in results.rise:
        seeds = results.seeds(arm)
        if not seeds:
            continue
        rise, random = results.matrix(arm, seeds), results.matrix("random", seeds)
        means = {metric: rise @ results.weights(metric) for metric in ("domains", "bytes")}
        against = {metric: means[metric] - random @ results.weights(metric) for metric in means}
        new = np.mean([results.learnt[arm][seed][0] for seed in seeds])
        found = [interval(results, arm, metric) for metric in means]
        cells = [
            f"`{arm}`",
            f"{len(seeds)}",
            *(f"{mean.mean():.4f}" for mean in means.values()),
            f"{rise.max(1).mean():.3f}",
            f"{new:.4f}",
            *(shown(*three) for three in found),
            " / ".join(f"{mean.mean():+.4f} ± {error(mean):.4f}" for mean in against.values()),
            " / ".join(f"{mean.std(ddof=1) if len(seeds) > 1 else np.nan:.4f}" for mean in means.values()),
        ]
        rows.append((sum(mean.mean() for mean in means.values()), "| " + " | ".join(cells) + " |"))
    return "\n".join([head, *(row for _, row in sorted(rows))])


def heading(setting: dict[str, Any]) -> str:
    """What a table is of."""
    return (
        f"**New domain {setting['new']}**, {setting['model']}, replay of {setting['share']:.0%} of "
        f"{setting['steps'] * setting['rows'] * setting['length']:,} new tokens"
        f"{''.join(f', {name} {setting[name]}' for name in ('late', 'cosine') if name in setting)}"
    )


def short_table(results: Results) -> str:
    """One row an arm, those that forget least first, where there is no line of random replay to hold them against."""
    head = "| arm | seeds | over domains | over bytes | worst domain | new |\n| --- | --- | --- | --- | --- | --- |"
    rows = []
    for arm, of_seed in results.rise.items():
        seeds = sorted(of_seed)
        rise = results.matrix(arm, seeds)
        means = [float((rise @ results.weights(metric)).mean()) for metric in ("domains", "bytes")]
        figures = [*means, rise.max(1).mean(), np.mean([results.learnt[arm][seed][0] for seed in seeds])]
        rows.append((sum(means), f"| `{arm}` | {len(seeds)} | " + " | ".join(f"{x:.4f}" for x in figures) + " |"))
    return "\n".join([heading(results.setting) + "\n", head, *(row for _, row in sorted(rows))])


def split_table(results: Results) -> str:
    """Arms that choose inside groups against random draws under the same split, seed by seed; "" without any."""
    rows = []
    for arm, rival in SAME_SPLIT.items():
        seeds = sorted(set(results.rise.get(arm, {})) & set(results.rise.get(rival, {})))
        if not seeds:
            continue
        against = results.matrix(arm, seeds) - results.matrix(rival, seeds)
        means = [against @ results.weights(metric) for metric in ("domains", "bytes")]
        cells = [f"`{arm}`", f"`{rival}`", f"{len(seeds)}", *(f"{m.mean():+.4f} ± {error(m):.4f}" for m in means)]
        rows.append("| " + " | ".join(cells) + " |")
    head = "| arm | random under the same split | seeds | over domains | over bytes |\n| --- | --- | --- | --- | --- |"
    return "\n".join(["", "", head, *rows]) if rows else ""


def shown(value: float, low: float, high: float) -> str:
    """Efficiency with its interval; outside the line it is only known to lie there."""
    least, most = min(LINE.values()), max(LINE.values())
    sign = "<" if value <= least else ">" if value >= most else ""
    return f"{sign}{value:.2f} ({low:.2f}–{high:.2f})"


def error(values: np.ndarray) -> float:
    """Standard error of a mean."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def figure(results: Results, arms: Sequence[str], path: str) -> None:
    """Forgetting against the budget, a line a method, with standard errors over seeds."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "cptsel"
    from matplotlib import pyplot

    tokens = results.setting["share"] * 100
    panels, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, metric in zip(axes, ("domains", "bytes"), strict=True):
        for arm in arms:
            budgets, means, errors = [], [], []
            for suffix, times in BUDGETS.items():
                name = next((arm + suffix + end for end in ("", "x") if arm + suffix + end in results.rise), None)
                if name is not None and (seeds := results.seeds(name)):
                    values = results.matrix(name, seeds) @ results.weights(metric)
                    budgets.append(times * tokens)
                    means.append(values.mean())
                    errors.append(error(values))
            axis.errorbar(budgets, means, yerr=errors, marker="o", markersize=3, capsize=2, label=arm)
        axis.set(xscale="log", xlabel="replay, % of the new tokens", title=f"mean over {metric}")
        axis.set_xticks([t * tokens for t in BUDGETS.values()], [f"{t * tokens:g}" for t in BUDGETS.values()])
        axis.minorticks_off()
    axes[0].set_ylabel("rise of old loss, bits per byte")
    axes[0].legend(frameon=False)
    panels.savefig(path, metadata={"Date": None})


def main() -> None:
    """Print tables, and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", nargs="+", help="files of lines")
    parser.add_argument("--figure", help="SVG file to write, of the first setting (needs matplotlib)")
    parser.add_argument("--arms", nargs="+", default=("random", "demand", "demand-root"), help="of the figure")
    args = parser.parse_args()
    found = read(args.results)
    tables = [table(of) + split_table(of) if set(LINE) <= set(of.rise) else short_table(of) for of in found]
    print("\n\n".join(tables))
    if args.figure:
        figure(found[0], args.arms, args.figure)


if __name__ == "__main__":
    main()
