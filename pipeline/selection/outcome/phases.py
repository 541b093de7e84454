"""Phases: stages of training with samples of their own (docs/design.md, Phases).

Every phase is selected anew, by fresh draws or from a later checkpoint's run, or drawn from the picks of phase 0
(phase 0 plays all of them, each later one a part).
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import EmbeddingRuns, check_same_samples, open_checkpoints, open_runs
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.budget import Budget, carry, divide, parse_budget
from cptsel.pipeline.kernels.sampling.draws import priority_sample
from cptsel.pipeline.selection.config import SelectConfig
from cptsel.pipeline.selection.outcome.weighting import Weighted
from cptsel.pipeline.selection.picks import list_picks, picks_path, with_column
from cptsel.pipeline.selection.plan import Plan, Share, Unit


@dataclass(frozen=True)
class Phase:
    """One phase to select.

    Attributes:
        number: 0, 1, ...
        runs: what it is selected from.
        budget: of its picks.
        text: the options that set the budget, as a user would write them.
        from_first: whether it is drawn from the picks of phase 0.
    """

    number: int
    runs: EmbeddingRuns
    budget: Budget
    text: str
    from_first: bool = False


def open_phases(config: SelectConfig, new: EmbeddingRuns | None) -> list[Phase]:
    """Open the runs of all phases.

    Args:
        config: settled options.
        new: run of the new domain, of which ``--mix-ratio`` counts the tokens.

    Raises:
        UsageError: runs that can't be read together, or a budget that decays to nothing.
    """
    runs = open_runs(config.runs) if config.combine is None else open_checkpoints(config.runs)
    budget, text = parse_budget(config.budget), f"--budget {config.budget}"
    if config.mix_ratio is not None and new is not None:
        tokens = int(Fraction(str(config.mix_ratio)) * sum(shard.n_tokens for shard in new.shards))
        if not tokens:
            raise UsageError(f"--mix-ratio {config.mix_ratio:g} of the new domain is less than one token; ask for more")
        budget, text = parse_budget(f"{tokens} tokens"), f"--mix-ratio {config.mix_ratio:g}"
    phases = [Phase(0, runs, budget, text)]
    for number in range(1, config.phases):
        if config.phase_budget is not None:
            later = Phase(
                number, runs, parse_budget(config.phase_budget), f"--phase-budget {config.phase_budget}", True
            )
        elif config.phase_run:
            other = open_runs([config.phase_run[number - 1]])
            check_same_samples(runs, other)
            later = Phase(number, other, budget, text)
        else:
            decayed = f"{text} --mix-decay {config.mix_decay:g} in phase {number}" if config.mix_decay < 1 else text
            later = Phase(number, runs, _decayed(budget, config.mix_decay, number), decayed)
        phases.append(later)
    return phases


def _decayed(budget: Budget, decay: float, phase: int) -> Budget:
    """budget · decay^phase, a count rounded down."""
    value = budget.value * Fraction(str(decay)) ** phase
    if budget.kind != "fraction":
        value = Fraction(int(value))
    if value <= 0:
        raise UsageError(f"--mix-decay {decay}: nothing is left of the budget in phase {phase}; ask for fewer --phases")
    return Budget(budget.kind, value)


def draw_from_first(first: Weighted, first_work: str, plan: Plan, phase: Phase, seed: int, work: str) -> Plan:
    """Draw a later phase from the picks of phase 0, with s_j = M_j · grad_norm_j / n_j; returns its plan.

    Raises:
        UsageError: the budget is more than phase 0 has, or a group gets nothing of it.
    """
    unit: Unit = phase.budget.unit
    ids, groups = (first.table[name] for name in ("sample_id", "group"))
    size = first.n_tokens if unit == "tokens" else np.ones(len(first.weight), np.int64)
    total = phase.budget.of(len(first.weight))
    if total > size.sum():
        raise UsageError(f"{phase.text}: phase 0 has only {int(size.sum()):,} {unit}; ask for less")
    score = first.weight * first.table["grad_norm"].to_numpy().astype(np.float64)
    members = {name: np.flatnonzero(pc.equal(groups, name).to_numpy()) for name in (g.group for g in first.groups)}
    caps = np.array([size[members[group.group]].sum() if group.group in members else 0 for group in plan.groups])
    budgets = divide(total, np.array([group.target_mass for group in plan.groups]), caps)
    kept, pi = np.zeros(len(score), bool), np.ones(len(score))
    drawn_groups: list[Share] = []
    left = 0
    for group, budget in zip(plan.groups, budgets.tolist(), strict=True):
        drawn_groups.append(replace(group, budget=budget))
        if group.group not in members:
            continue
        mine = members[group.group]
        mine = mine[pc.sort_indices(ids.take(pa.array(mine))).to_numpy()]
        u = uniform(seed, f"draw {phase.number}", ids.take(pa.array(mine)).to_pylist())
        draw = priority_sample(score[mine], u, budget + left, size[mine] if unit == "tokens" else None)
        if unit == "tokens":
            left = carry(left, budget, int(size[mine[draw.picked]].sum()), draw.threshold > 0)
        if not len(draw.picked):
            raise UsageError(
                f"{phase.text}: group {group.group!r} gets no sample in phase {phase.number} (its share "
                f"is {budget:,} {unit}); ask for more"
            )
        kept[mine[draw.picked]] = True
        pi[mine[draw.picked]] = draw.inclusion_prob
    mass = first.weight * first.n_tokens
    for shard, path in list_picks(first_work).items():
        part = slice(*first.offsets[shard])
        rows = io.read_parquet(path).filter(pa.array(kept[part]))
        if rows.num_rows:
            share = pi[part][kept[part]]
            rows = with_column(rows, "found_mass", mass[part][kept[part]] / share)
            rows = with_column(rows, "inclusion_prob", rows["inclusion_prob"].to_numpy() * share)
            io.write_scratch(picks_path(work, shard), rows)
    return replace(plan, unit=unit, budget=total, groups=tuple(drawn_groups))


def join_picks(chosen: str, drawn: str, shares: dict[str, float], work: str) -> None:
    """Put the picks of two choices together.

    Args:
        chosen: directory with the picks of the method, in the scale of whose found masses the joined ones are.
        drawn: directory with the picks of a draw beside it.
        shares: by group, what share of its mass the draw stands for; all where nothing else was picked, and none where
            it picked nothing.
        work: directory for the joined picks.
    """
    files = [list_picks(source) for source in (chosen, drawn)]
    first, second = (_sum_raw(found.values()) for found in files)
    factors: list[dict[str, float]] = [{}, {}]
    for group in first.keys() | second.keys():
        share = shares[group] if group in first and group in second else 0.0
        factors[0][group] = 1 - share
        factors[1][group] = share * first[group] / second[group] if share else 1.0

    def join(shard: int) -> None:
        tables = []
        for found, of_group in zip(files, factors, strict=True):
            if shard in found:
                rows = io.read_parquet(found[shard])
                factor = np.array([of_group.get(name, 1.0) for name in rows["group"].to_pylist()])
                tables.append(with_column(rows, "found_mass", rows["found_mass"].to_numpy() * factor))
        rows = pa.concat_tables(tables).sort_by([("row_index", "ascending"), ("window", "ascending")])
        io.write_scratch(picks_path(work, shard), rows.combine_chunks())

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(join, sorted(set().union(*files))))


def _sum_raw(paths: Iterable[str]) -> dict[str, float]:
    """Σ found_mass of the picks of each group, above 0."""
    sums: dict[str, float] = {}
    for path in paths:
        added = io.read_parquet(path, ["group", "found_mass"]).group_by("group").aggregate([("found_mass", "sum")])
        for row in added.to_pylist():
            sums[row["group"]] = sums.get(row["group"], 0.0) + row["found_mass_sum"]
    return {group: found_mass for group, found_mass in sums.items() if found_mass > 0}
