"""What a selection starts from: the options, all that is read, and what there is in it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.exclusion import read_exclusions
from cptsel.pipeline.artifacts.run import EmbeddingRuns, RunShard, open_runs
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.kernels.budget import parse_tokens
from cptsel.pipeline.selection.config import SelectConfig, wants_rise
from cptsel.pipeline.selection.families.base import Settings
from cptsel.pipeline.selection.methods import COVER, METHODS
from cptsel.pipeline.selection.options import group_mix
from cptsel.pipeline.selection.outcome.phases import Phase, open_phases
from cptsel.pipeline.selection.outcome.weighting import Weighing
from cptsel.pipeline.selection.plan import Plan, Share, Unit, make_plan
from cptsel.pipeline.selection.reading.cells import CellReader, CellStatistics, cell_statistics
from cptsel.pipeline.selection.reading.history import open_history
from cptsel.pipeline.selection.reading.new_domain import mean_token_gradient
from cptsel.pipeline.selection.reading.rows import matched_exclusions
from cptsel.pipeline.selection.tuning import Tuning


class ShardStatistics(TypedDict):
    """Of the cells of a shard, and the entries of the exclusion list that were met there."""

    cells: list[CellStatistics]
    excluded: list[str]


@dataclass(frozen=True)
class CountCells:
    """RunShard → what the budgets need to know of its cells, and the entries of the exclusion list met there."""

    reader: CellReader

    def __call__(self, shard: RunShard) -> ShardStatistics:
        excluded = matched_exclusions(shard, self.reader.schema, self.reader.exclude)
        return {"cells": cell_statistics(shard, self.reader), "excluded": excluded}


@dataclass(frozen=True, eq=False)
class Task:
    """All that a selection starts from.

    Attributes:
        config: settled options.
        phases: what is selected from, phase by phase.
        reader: of the cells of phase 0.
        new: the embedding run of the new domain, if there is one.
        weighing: how picks are weighed.
        tuning: sizes.
    """

    config: SelectConfig
    phases: list[Phase]
    reader: CellReader
    new: EmbeddingRuns | None
    weighing: Weighing
    tuning: Tuning

    def settings(self, unit: Unit, phase: int) -> Settings:
        """Options of the method in one phase, under budgets of a unit."""
        config = self.config
        return Settings(
            unit,
            config.seed,
            phase,
            discount=config.history_discount if config.history_mode == "discount" else 1.0,
            cover_history=config.history_mode == "cover",
            importance=config.importance,
            neighbours=config.neighbours,
            refine=config.refine,
            ridge=config.ridge,
            parts=config.parts,
            tolerance=config.tolerance,
            tuning=self.tuning,
        )

    def plan(self, counted: Sequence[ShardStatistics], phase: int = 0) -> Plan:
        """Budgets of a phase, from what ``CountCells`` says of every shard."""
        statistics = [cell for shard in counted for cell in shard["cells"]]
        phase_budget, text = self.phases[phase].budget, self.phases[phase].text
        by_norm = self.config.cell_shares == "grad-norm"
        return make_plan(
            statistics, phase_budget, text, group_mix(self.config), _norm_share if by_norm else _mass_share
        )


def _mass_share(cell: Share) -> float:
    return cell.choice_mass


def _norm_share(cell: Share) -> float:
    return cell.choice_norm


def absolute(config: SelectConfig) -> SelectConfig:
    """Paths as workers elsewhere must see them."""
    return replace(
        config,
        runs=tuple(io.absolute(path) for path in config.runs),
        out=io.absolute(config.out),
        exclude=config.exclude and io.absolute(config.exclude),
        new=config.new and io.absolute(config.new),
        history=tuple(io.absolute(path) for path in config.history),
        phase_run=tuple(io.absolute(path) for path in config.phase_run),
    )


def open_task(config: SelectConfig, tuning: Tuning) -> Task:
    """Open all that is read, on the driver."""
    group_mix(config)  # its file is read with the budgets, and a mistake in it is to be told at once
    new = open_runs([config.new]) if config.new is not None else None
    phases = open_phases(config, new)
    runs = phases[0].runs
    config = _by_default(config, [phase.runs for phase in phases])
    if config.group_by is not None and config.group_by not in runs.groups:
        there = f"it has {', '.join(runs.groups)}" if runs.groups else "it was embedded without --group-by"
        raise UsageError(f"--group-by {config.group_by}: {runs.directories[0]} has no such group column; {there}")
    reader = CellReader(
        schema=runs.schema,
        group_by=config.group_by,
        similarity=config.similarity,
        exclude=read_exclusions(config.exclude) if config.exclude else frozenset(),
        combine=config.combine,
        batch_size=config.batch_size if config.unit == "batch" else 1,
        rise=wants_rise(config),
        new_gradient=mean_token_gradient(new, runs) if new is not None and wants_rise(config) else None,
        beta=config.interference_beta if config.mass == "interference" else None,
        history=open_history(config.history, runs, config.history_mode, config.history_discount),
    )
    tokens = None if config.replay_tokens is None else parse_tokens(config.replay_tokens)
    weighing = Weighing(
        config.realisation,
        tokens,
        config.max_repeats,
        config.seed,
        config.curriculum,
        config.curriculum_order == "descending",
        config.curriculum_buckets,
    )
    return Task(config, phases, reader, new, weighing, tuning)


def _by_default(config: SelectConfig, phases: Sequence[EmbeddingRuns]) -> SelectConfig:
    """The options with what a sample and a group stand for, where ``--mass`` and ``--group-alpha`` do not say it.

    Raises:
        UsageError: nothing tells how losses rise, and something is to go by that.
    """
    two_runs = config.combine is not None
    one_run = all("base_loss_sum" in runs.schema.names for runs in phases) and not two_runs
    covers = METHODS[config.method].family == COVER
    if config.mass is None:
        by_default = covers and one_run and config.new is None
        config = replace(config, mass="interference" if by_default else "corpus")
    if config.group_alpha is None:
        by_root = covers and config.mass == "interference" and config.group_by is not None and config.group_mass is None
        config = replace(config, group_alpha=0.5 if by_root else 1.0)
    if wants_rise(config) and not (one_run or two_runs or config.new is not None):
        raise UsageError(
            "interference needs to know how losses rise: embed with --lookahead or --base, or give two runs (before "
            "and after moving along the new domain) with --combine difference, or an embedding run of the new domain "
            "with --new"
        )
    return config


def unmatched_exclusions(exclude: frozenset[str], counted: list[ShardStatistics]) -> int:
    """Entries of the exclusion list that name nothing in the runs; hashes stand in it in both cases and count once."""
    matched = {entry.lower() for shard in counted for entry in shard["excluded"]}
    return len({entry.lower() for entry in exclude} - matched)


def scales(counted: Sequence[ShardStatistics]) -> tuple[float, ...]:
    """Factors that give the gradients a token of every checkpoint the mean square of the first's."""
    squares = [cell["mean_squares"] for shard in counted for cell in shard["cells"]]
    totals = np.sum(squares, axis=0)
    return tuple(np.sqrt(totals[0] / totals).tolist())
