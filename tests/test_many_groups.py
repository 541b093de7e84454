"""Global choices among many groups: what travels with a part is its own, and what is merged is what the parts have."""

import pickle
from typing import Any

import pytest

from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.kernels.budget import parse_budget
from cptsel.pipeline.selection.choose import chooser_of
from cptsel.pipeline.selection.families.base import Settings
from cptsel.pipeline.selection.plan import GroupMix, Plan, make_plan
from cptsel.pipeline.selection.scopes.parts import client_rates, parts_of_routed, parts_of_shards, pick_candidates
from cptsel.pipeline.selection.scopes.routing import RoutedCell

GROUPS = 60


class Unrun:
    """Steps that do nothing."""

    work = "work"

    def run(self, what: str, function: Any, tasks: Any) -> list[Any]:
        self.function = function
        return []


def plan_of(shards: int, groups: int) -> Plan:
    """Two groups a shard, of 10 to 14 samples each."""
    cells = []
    for shard in range(shards):
        for name in sorted({f"g{shard % groups:04d}", f"g{(shard * 7 + 1) % groups:04d}"}):
            n = 10 + shard % 5
            counts = {"samples": n, "candidates": n, "fresh": n}
            counts |= dict.fromkeys(("tokens", "candidate_tokens", "fresh_tokens"), 40 * n)
            amounts = dict.fromkeys(("mass", "choice_mass", "choice_norm"), 40.0 * n)
            more = {"mass_variance": 0.0, "rise": 0.0, "longest": {"samples": 1, "tokens": 60}}
            cells.append({"shard_id": shard, "group": name} | counts | amounts | more)
    return make_plan(cells, parse_budget("20%"), "--budget 20%", GroupMix())


def shards_of(count: int) -> list[RunShard]:
    return [RunShard(number, {}, (), ()) for number in range(count)]


def test_a_part_names_its_own_groups_alone() -> None:
    plan = plan_of(300, GROUPS)
    parts = parts_of_shards(shards_of(301), plan, clients=500)
    of_shard, rates = plan.by_shard(), client_rates(plan, 500)
    assert [part.number for part in parts] == list(range(300))
    for part in parts:
        assert part.budgets.keys() == part.client_rates.keys() == of_shard[part.number].keys()
        assert part.client_rates == {name: rates[name] for name in part.budgets}
        assert all(of_shard[part.number][name].budget <= given for name, given in part.budgets.items())


def test_a_task_does_not_grow_with_the_groups() -> None:
    sizes = [len(pickle.dumps(parts_of_shards(shards_of(300), plan_of(300, g), 500)[0])) for g in (GROUPS, 5 * GROUPS)]
    assert sizes[1] < 1.1 * sizes[0]


@pytest.mark.parametrize("shards", [GROUPS // 2, 300])
def test_a_merge_is_of_the_parts_that_have_some_of_its_group(shards: int) -> None:
    plan, steps = plan_of(shards, GROUPS), Unrun()
    parts = parts_of_shards(shards_of(shards), plan, clients=500)
    chooser = chooser_of("craig", Settings(plan.unit, seed=0))
    merges = pick_candidates(chooser, parts, plan, None, steps)  # type: ignore[arg-type]
    names = [group.group for group in plan.groups]
    assert steps.function.groups == {name: names.index(name) for name in names}
    assert [(merge.number, merge.group, merge.parts) for merge in merges] == [
        (number, group, tuple(part.number for part in parts if group.group in part.budgets))
        for number, group in enumerate(plan.groups)
        if group.budget
    ]


def test_routed_cells_share_the_budget_of_their_group() -> None:
    plan = plan_of(120, GROUPS)
    cells = [
        RoutedCell(
            group.group,
            {"samples": 5, "tokens": 200, "mass": 200.0, "candidates": 5, "candidate_tokens": 200}
            | {"choice_mass": 100.0 * (1 + half), "longest": 1},
            (f"{group.group}-{half}",),
        )
        for half in (0, 1)
        for group in plan.groups
    ]
    parts = parts_of_routed(cells, plan, clients=8)
    rates = client_rates(plan, 8)
    assert [part.source for part in parts] == cells
    for part, cell in zip(parts, cells, strict=True):
        assert part.client_rates == {cell.group: rates[cell.group]}
        assert part.budgets.keys() == {cell.group}
    for group in plan.groups:
        assert sum(part.budgets.get(group.group, 0) for part in parts) >= min(group.budget, 10)
