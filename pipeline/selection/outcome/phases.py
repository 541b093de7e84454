"""Phases: stages of training with samples of their own (docs/design.md, Phases).

Every phase is selected anew, by fresh draws or from a later checkpoint's run, or drawn from the picks of phase 0
(phase 0 plays all of them, each later one a part).
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import EmbeddingRuns, check_same_samples, open_checkpoints, open_runs
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.kernels.budget import Budget, parse_budget
from cptsel.pipeline.selection.config import SelectConfig
from cptsel.pipeline.selection.picks import list_picks, picks_path, with_column


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
