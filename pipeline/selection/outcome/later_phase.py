"""A later phase that plays a part of what phase 0 plays (docs/design.md, Phases)."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.budget import divide
from cptsel.pipeline.kernels.sampling.draws import inclusion_probability, priority_keys
from cptsel.pipeline.selection.drawing import GroupDraws
from cptsel.pipeline.selection.outcome.phases import Phase
from cptsel.pipeline.selection.outcome.weighted import Weighted, Worth, total
from cptsel.pipeline.selection.picks import list_picks, picks_path, with_column
from cptsel.pipeline.selection.plan import Plan
from cptsel.pipeline.spill.columns import PART_ROWS


def draw_from_first(
    first: Weighted, first_work: str, plan: Plan, phase: Phase, seed: int, work: str, rows: int = PART_ROWS
) -> Plan:
    """Draw a later phase from the picks of phase 0, with s_j = M_j · grad_norm_j / n_j; returns its plan.

    Args:
        first: the picks of phase 0.
        first_work: directory where they lie.
        plan: of phase 0.
        phase: the later one.
        seed: of the draw.
        work: directory for its picks.
        rows: picks that are held at once.

    Raises:
        UsageError: the budget is more than phase 0 has, or a group gets nothing of it.
    """
    unit = phase.budget.unit
    there = {group.group: group.tokens if unit == "tokens" else group.samples for group in first.groups}
    amount = phase.budget.of(total(first.groups, "samples"))
    if amount > sum(there.values()):
        raise UsageError(f"{phase.text}: phase 0 has only {sum(there.values()):,} {unit}; ask for less")
    caps = np.array([there.get(group.group, 0) for group in plan.groups])
    budgets = divide(amount, np.array([group.target_mass for group in plan.groups]), caps)
    draws = GroupDraws(len(plan.groups))
    for _, names, worth, score in _scored(first, first_work):
        size = worth.n_tokens if unit == "tokens" else np.ones(len(names), np.int64)
        draws.add(worth.group, names, priority_keys(score, uniform(seed, f"draw {phase.number}", names)), size)
    drawn = draws.draw(budgets.tolist(), rows)
    counts = np.zeros(len(budgets), np.int64)
    for shard, _, worth, score in _scored(first, first_work):
        mine = drawn.taken.read(*first.picks.offsets[shard])
        if mine.any():
            table = io.read_parquet(picks_path(first_work, shard)).filter(pa.array(mine))
            group, share = worth.group[mine], inclusion_probability(score[mine], drawn.threshold[worth.group[mine]])
            np.add.at(counts, group, 1)
            table = with_column(table, "found_mass", (worth.weight * worth.n_tokens)[mine] / share)
            table = with_column(table, "inclusion_prob", table["inclusion_prob"].to_numpy() * share)
            io.write_scratch(picks_path(work, shard), table)
    for group, budget, count in zip(plan.groups, budgets.tolist(), counts.tolist(), strict=True):
        if group.group in there and not count:
            raise UsageError(
                f"{phase.text}: group {group.group!r} gets no sample in phase {phase.number} (its share "
                f"is {budget:,} {unit}); ask for more"
            )
    groups = tuple(replace(group, budget=budget) for group, budget in zip(plan.groups, budgets.tolist(), strict=True))
    return replace(plan, unit=unit, budget=amount, groups=groups)


def _scored(first: Weighted, first_work: str) -> Iterator[tuple[int, list[str], Worth, np.ndarray]]:
    """Shard, sample_ids, worth and score (n,) float64 of the picks of phase 0, shard after shard."""
    files = list_picks(first_work)
    tables = io.read_tables(list(files.values()), ["sample_id", "grad_norm"])
    for shard, table in zip(files, tables, strict=True):
        worth = first.of_shard(shard)
        score = worth.weight * table["grad_norm"].to_numpy().astype(np.float64)
        yield shard, table["sample_id"].to_pylist(), worth, score
