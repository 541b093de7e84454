"""Which samples a page shows as examples, drawn at random by their names."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cptsel.pipeline.artifacts.texts import WINDOW_COLUMNS
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.reporting.facts import Facts
from cptsel.pipeline.reporting.html import figure
from cptsel.pipeline.reporting.population import Population
from cptsel.pipeline.summary import counted

LOCATOR = ["sample_id", "shard_id", *WINDOW_COLUMNS]
_GROUPS, _EACH, _HEAVY = 6, 2, 3


@dataclass(frozen=True, eq=False)
class Examples:
    """Some samples: rows with their locators, and a remark on each.

    Attributes:
        rows: locators and ``group``.
        remarks: a phrase each.
    """

    rows: pa.Table
    remarks: tuple[str, ...]


def chosen_examples(facts: Facts, seed: int) -> Examples:
    """Two of each of the groups that most was chosen from, and what weighs most."""
    picks = facts.picks
    u = uniform(seed, "examples", picks["sample_id"].to_pylist())
    groups = [share.name for share in sorted(facts.shares, key=lambda s: (-s.chosen, s.name))]
    take = _some_of_each(np.asarray(picks["group"].to_pylist(), object), u, groups)
    weight, tokens, repeat = (picks[name].to_numpy() for name in ("weight", "n_tokens", "repeat"))
    ids = np.asarray(picks["sample_id"].to_pylist(), object)
    heavy = [i for i in np.lexsort((ids, -weight))[:_HEAVY].tolist() if i not in take] if len(ids) else []
    remarks = [
        f"{counted(int(tokens[i]), 'token')}, weight {figure(float(weight[i]))}, played {_times(int(repeat[i]))}"
        + (" · among the heaviest" if place >= len(take) else "")
        for place, i in enumerate([*take, *heavy])
    ]
    rows = picks.take(pa.array([*take, *heavy], pa.int64()))
    return Examples(rows.select([*LOCATOR, "group"]), tuple(remarks))


def left_out_examples(population: Population, selection: int, seed: int) -> Examples:
    """Two of each of the largest groups, of what a selection did not choose."""
    rows = population.rows.filter(pa.array(population.column("sampled") & ~population.chosen(selection)))
    u = uniform(seed, "examples", rows["sample_id"].to_pylist())
    groups = sorted(population.mass, key=lambda name: (-population.mass[name], name))
    take = _some_of_each(np.asarray(rows["group"].to_pylist(), object), u, groups)
    rows = rows.take(pa.array(take, pa.int64()))
    remarks = [
        f"{counted(tokens, 'token')}, loss {figure(float(loss))} a token"
        for tokens, loss in zip(rows["n_tokens"].to_pylist(), rows["loss"].to_pylist(), strict=True)
    ]
    return Examples(rows.select([*LOCATOR, "group"]), tuple(remarks))


def _some_of_each(group: np.ndarray, u: np.ndarray, groups: Sequence[str]) -> list[int]:
    """Places of the rows with the least ``u`` of each of the first groups."""
    each = _EACH if len(groups) > 1 else _GROUPS
    take: list[int] = []
    for name in groups[:_GROUPS]:
        mine = np.flatnonzero(group == name)
        take += mine[np.argsort(u[mine], kind="stable")[:each]].tolist()
    return take


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count:,} times")
