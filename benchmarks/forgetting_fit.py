"""Shares of domains that are fitted to small runs: what a replay of each does to the forgetting of all.

    python benchmarks/forgetting_fit.py evidence/results.jsonl --out shares.json

Reads the lines of ``forgetting.py``, among them those of the arms ``only-DOMAIN``, which replay one domain alone. The
rise of domain d with T_g tokens of the domains g replayed is taken to be

    r_d(T) = r_d · (1 + Σ_g a_dg T_g)^-q,    r_d the rise without replay, a_dg and q not negative,

fitted by least squares relative to r_d to runs without replay, with random replay and with one domain alone; all
other arms tell what the law is worth. The
shares are those for which the mean of the rises over domains and over bytes, each against that of random replay, is
lowest at the budget of ``random``. They are written as ``cptsel select --group-mass`` takes them.
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from forgetting_arms import ONLY
from forgetting_report import LINE
from scipy.optimize import least_squares, minimize


@dataclass(frozen=True)
class Runs:
    """Runs with the same budget of new text; n runs, d domains.

    Attributes:
        arms: (n,) names.
        tokens: (n, d) replayed of each domain, as shares of the budget of ``random``.
        rise: (n, d) of the loss in bits per byte.
        domains: (d,) names.
        size: (d,) share of the old corpus's bytes.
    """

    arms: list[str]
    tokens: np.ndarray
    rise: np.ndarray
    domains: list[str]
    size: np.ndarray

    def only(self, wanted: Sequence[bool]) -> Runs:
        """Those that are wanted."""
        rows = np.flatnonzero(wanted)
        return Runs([self.arms[i] for i in rows], self.tokens[rows], self.rise[rows], self.domains, self.size)


def read(paths: Sequence[str]) -> Runs:
    """All lines of all files, which must be of one setting.

    Raises:
        SystemExit: they are not, or there is no run of random replay.
    """
    lines: list[dict[str, Any]] = []
    for path in paths:
        open_text = gzip.open if path.endswith(".gz") else open
        with open_text(path, "rt", encoding="utf-8") as file:
            lines += [json.loads(line) for line in file]
    if len({json.dumps(line["setting"], sort_keys=True) for line in lines}) > 1:
        raise SystemExit(f"{', '.join(paths)}: runs of different settings")
    budgets = [line["replay_tokens"] for line in lines if line["arm"] == "random"]
    if not budgets:
        raise SystemExit(f"{', '.join(paths)}: no run of the arm random")
    domains = list(lines[0]["before"])
    size = np.array([lines[0]["corpus_bytes"][name] for name in domains], np.float64)
    tokens = [[line["chosen"].get("domains", {}).get(name, 0) for name in domains] for line in lines]
    rise = [[line["after"][name] - line["before"][name] for name in domains] for line in lines]
    return Runs(
        [line["arm"] for line in lines],
        np.array(tokens, np.float64) / np.mean(budgets),
        np.array(rise),
        domains,
        size / size.sum(),
    )


@dataclass(frozen=True)
class Law:
    """r_d(T) as above: ``none`` (d,), ``gain`` (d, d), ``power``."""

    none: np.ndarray
    gain: np.ndarray
    power: float

    def rise(self, tokens: np.ndarray) -> np.ndarray:
        """(..., d) tokens of each domain to (..., d) rises."""
        return np.asarray(self.none * (1 + tokens @ self.gain.T) ** -self.power)


def fits(arm: str) -> bool:
    """Whether the law is fitted to runs of this arm."""
    return arm in ("none", *LINE) or arm.startswith(ONLY)


def fit(runs: Runs) -> Law:
    """The law of least squares; domain by domain, with the power that is best for all."""
    none = runs.rise[[arm == "none" for arm in runs.arms]].mean(0)
    found = []
    for power in (0.25, 0.35, 0.5, 0.7, 1.0):
        gain, missed = np.zeros((len(none), len(none))), 0.0
        for d, rise in enumerate(none):

            def misses(a: np.ndarray, d: int = d, rise: float = rise, power: float = power) -> np.ndarray:
                return np.asarray((1 + runs.tokens @ a) ** -power - runs.rise[:, d] / rise)

            best = least_squares(misses, np.full(len(none), 0.1), bounds=(0, np.inf))
            gain[d], missed = best.x, missed + best.cost
        found.append((missed, Law(none, gain, power)))
    return min(found, key=lambda pair: pair[0])[1]


def best_shares(law: Law, runs: Runs) -> np.ndarray:
    """(d,) shares that add up to 1."""
    random = runs.rise[[arm == "random" for arm in runs.arms]].mean(0)
    weights = 0.5 / len(random) / random.mean() + 0.5 * runs.size / (random @ runs.size)

    def forgotten(logits: np.ndarray) -> float:
        share = np.exp(logits - logits.max())
        return float(law.rise(share / share.sum()) @ weights)

    found = min(
        (minimize(forgotten, start) for start in (np.log(runs.size), np.zeros(len(random)))), key=lambda r: r.fun
    )
    share = np.exp(found.x - found.x.max())
    return np.asarray(share / share.sum())


def main() -> None:
    """Fit, tell what the law is worth on what was held out, write shares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", nargs="+", help="files of lines")
    parser.add_argument("--out", required=True, help="JSON file of shares to write")
    args = parser.parse_args()
    runs = read(args.results)
    kept = runs.only([fits(arm) for arm in runs.arms])
    law = fit(kept)
    weights = {"domains": np.full(len(runs.domains), 1 / len(runs.domains)), "bytes": runs.size}
    for name in dict.fromkeys(runs.arms):
        of = runs.only([arm == name for arm in runs.arms])
        line: dict[str, Any] = {"arm": name, "fitted": fits(name), "power": law.power}
        for mean, by in weights.items():
            line[f"measured_{mean}"] = float((of.rise @ by).mean())
            line[f"said_{mean}"] = float((law.rise(of.tokens) @ by).mean())
        print(json.dumps(line))
    shares = dict(zip(runs.domains, np.round(best_shares(law, kept), 5).tolist(), strict=True))
    print(json.dumps({"shares": shares}))
    Path(args.out).write_text(json.dumps(shares) + "\n")


if __name__ == "__main__":
    main()
