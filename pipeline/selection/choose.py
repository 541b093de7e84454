"""One choice from the cells of a plan, whatever the method, scope and partition: picks under ``<work>/picks``."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.selection.families.base import AnyChooser, Settings
from cptsel.pipeline.selection.families.cover import CoverChooser
from cptsel.pipeline.selection.families.draw import DrawChooser
from cptsel.pipeline.selection.families.everything import EverythingChooser
from cptsel.pipeline.selection.families.match import MatchChooser
from cptsel.pipeline.selection.methods import COVER, DRAW, EVERYTHING, MATCH, METHODS, Family
from cptsel.pipeline.selection.outcome.phases import join_picks
from cptsel.pipeline.selection.plan import Plan, set_aside
from cptsel.pipeline.selection.reading.cells import CellReader
from cptsel.pipeline.selection.scopes.shard import select_in_shards

CHOOSERS: dict[Family, type[AnyChooser]] = {
    DRAW: DrawChooser,
    COVER: CoverChooser,
    MATCH: MatchChooser,
    EVERYTHING: EverythingChooser,
}


def chooser_of(method: str, settings: Settings) -> AnyChooser:
    """A method of METHODS at work."""
    found = METHODS[method]
    return CHOOSERS[found.family](found, settings)


def choose(
    shards: Sequence[RunShard],
    plan: Plan,
    reader: CellReader,
    chooser: AnyChooser,
    steps: Steps,
    explore: float = 0.0,
    *,
    scope: str,
    partitions: int | None = None,
) -> list[dict[str, Any]]:
    """Choose what the plan asks for; returns what the method reports of cells or groups.

    Args:
        shards: of the runs.
        plan: budgets.
        reader: how cells are read.
        chooser: the method and its options.
        steps: where steps run; picks go under its work directory.
        explore: share of every group's budget that is first drawn uniformly from what was never replayed; this draw
            stands for the share of its mass that it really has of the budget, as there may be less that is fresh.
        scope: ``shard`` or ``global``.
        partitions: of ``--partition cluster``: how many a group has, 0 for as many as its size asks for; None to take
            the shards as parts.
    """
    if not explore:
        return _choose(shards, plan, reader, chooser, steps, scope, partitions)
    first, second = set_aside(plan, explore)
    drawn, chosen = steps.within("explored"), steps.within("chosen")
    uniform = chooser_of("uniform", replace(chooser.settings, purpose="explore", discount=1.0))
    _choose(shards, first, replace(reader, fresh=True, beta=None), uniform, drawn, scope, None)
    rest = replace(reader, taken=(*reader.taken, drawn.work))
    reports = _choose(shards, second, rest, chooser, chosen, scope, partitions)
    shares = {
        group.group: given.budget / group.budget
        for group, given in zip(plan.groups, first.groups, strict=True)
        if group.budget
    }
    join_picks(chosen.work, drawn.work, shares, steps.work)
    return reports


def _choose(
    shards: Sequence[RunShard],
    plan: Plan,
    reader: CellReader,
    chooser: AnyChooser,
    steps: Steps,
    scope: str,
    partitions: int | None,
) -> list[dict[str, Any]]:
    if scope == "shard":
        return select_in_shards(shards, plan, reader, chooser, steps)
    return chooser.choose_globally(shards, plan, reader, steps, partitions)
