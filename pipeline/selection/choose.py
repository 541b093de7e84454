"""One choice from the cells of a plan, whatever the method, scope and partition: picks under ``<work>/picks``."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.selection.families import Settings
from cptsel.pipeline.selection.global_cover import cover_globally
from cptsel.pipeline.selection.global_draw import draw_globally
from cptsel.pipeline.selection.global_match import match_globally
from cptsel.pipeline.selection.outcome.phases import join_picks
from cptsel.pipeline.selection.plan import Plan, set_aside
from cptsel.pipeline.selection.reading.cells import CellReader
from cptsel.pipeline.selection.scopes.parts import parts_of_routed, parts_of_shards
from cptsel.pipeline.selection.scopes.routing import route_by_cluster
from cptsel.pipeline.selection.scopes.shard import select_in_shards


def choose(
    shards: Sequence[RunShard],
    plan: Plan,
    reader: CellReader,
    settings: Settings,
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
        settings: the method and its options.
        steps: where steps run; picks go under its work directory.
        explore: share of every group's budget that is first drawn uniformly from what was never replayed; this draw
            stands for the share of its mass that it really has of the budget, as there may be less that is fresh.
        scope: ``shard`` or ``global``.
        partitions: of ``--partition cluster``: how many a group has, 0 for as many as its size asks for; None to take
            the shards as parts.
    """
    if not explore:
        return _choose(shards, plan, reader, settings, steps, scope, partitions)
    first, second = set_aside(plan, explore)
    drawn, chosen = steps.within("explored"), steps.within("chosen")
    uniform = replace(settings, method="uniform", purpose="explore", discount=1.0)
    _choose(shards, first, replace(reader, fresh=True, beta=None), uniform, drawn, scope, None)
    rest = replace(reader, taken=(*reader.taken, drawn.work))
    reports = _choose(shards, second, rest, settings, chosen, scope, partitions)
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
    settings: Settings,
    steps: Steps,
    scope: str,
    partitions: int | None,
) -> list[dict[str, Any]]:
    family = settings.entry.family
    if scope == "shard" or family == "all":
        return select_in_shards(shards, plan, reader, settings, steps)
    if family == "draw":
        return draw_globally(shards, plan, reader, settings, steps)
    if partitions is None:
        parts = parts_of_shards(shards, plan)
    else:
        parts = parts_of_routed(route_by_cluster(shards, plan, reader, settings, partitions, steps), plan)
    merge = cover_globally if family == "cover" else match_globally
    return merge(shards, parts, plan, reader, settings, steps)
