"""What methods say of the cells they chose from, by group and of the whole; draws say nothing."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

Report = dict[str, Any]

# Figures of coverage that add up, and those whose mean by mass is the whole's.
_COVER_ADDED = ("objective", "random_objective")
_COVER_MEAN = ("mean_distance", "random_distance")
_MERGE_ADDED = ("candidates", "clients")  # of a global selection
_MATCH_ADDED = ("picks", "parts", "unused_budget", "dropped_atoms")


def summarise_reports(reports: Sequence[Report]) -> list[Report]:
    """One report a group; empty for methods that say nothing."""
    members: dict[str, list[Report]] = {}
    for report in reports:
        if len(report.keys() - {"group", "mass"}):
            members.setdefault(report["group"], []).append(report)
    return [{"group": group, **add_reports(members[group])} for group in sorted(members)]


def add_reports(reports: Sequence[Report]) -> Report:
    """Several reports of one method as one: of cells, or of groups again."""
    if not reports:
        return {}
    mass: list[float] = [report["mass"] for report in reports]
    whole: Report = {"mass": float(sum(mass)), "cells": sum(report.get("cells", 1) for report in reports)}
    return whole | (_add_coverage if "mean_distance" in reports[0] else _add_matching)(reports, mass)


def _add_coverage(reports: Sequence[Report], mass: Sequence[float]) -> Report:
    """Objectives add up, distances are means by mass, and the gain over random follows from them.

    A cell whose budget fits no sample has no distances; picks of other cells stand for it.
    """
    if any(report.get("picks") for report in reports):
        mass = [m if report.get("picks", 1) else 0.0 for m, report in zip(mass, reports, strict=True)]
    whole: Report = {name: float(sum(report[name] for report in reports)) for name in _COVER_ADDED}
    whole |= {n: sum(r[n] for r in reports) for n in _MERGE_ADDED if all(n in r for r in reports)}
    whole |= {name: float(np.average([report[name] for report in reports], weights=mass)) for name in _COVER_MEAN}
    if any("covered_distance" in report for report in reports):
        covered = [
            report["covered_distance" if "covered_distance" in report else "mean_distance"] for report in reports
        ]
        whole["covered_distance"] = float(np.average(covered, weights=mass))
    gains = [r["gain_over_random"] * r["random_distance"] * m for r, m in zip(reports, mass, strict=True)]
    whole["neighbours_advised"] = max(report.get("neighbours_advised", 0) for report in reports)
    lost = whole["random_distance"] * sum(mass)
    whole["gain_over_random"] = float(sum(gains) / lost) if lost > 0 else 0.0
    return whole


def _add_matching(reports: Sequence[Report], mass: Sequence[float]) -> Report:
    """Counts add up; of the ridges, how many cells chose each. Residuals are measured on the whole, elsewhere."""
    whole: Report = {name: int(sum(report[name] for report in reports)) for name in _MATCH_ADDED}
    ridges: Counter[float] = Counter()
    for report in reports:
        ridges.update({float(r): n for r, n in report["ridges"].items()} if "ridges" in report else [report["ridge"]])
    whole["ridges"] = {f"{ridge:g}": ridges[ridge] for ridge in sorted(ridges)}
    whole["weight_sum"] = float(np.average([report["weight_sum"] for report in reports], weights=mass))
    return whole
