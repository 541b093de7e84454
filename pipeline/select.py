"""``cptsel select``: from embedding runs to a weighted coreset, written as a replay manifest.

Count the cells; for every phase divide the budget, choose in every shard (and merge), and weigh; then write and measure
(docs/design.md, Structure).
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.manifest import finish_manifest
from cptsel.pipeline.artifacts.writing import check_apart, writing
from cptsel.pipeline.config import to_yaml
from cptsel.pipeline.engine.memory import peak_memory_bytes
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.engine.threads import one_blas_thread
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.results import SelectResult
from cptsel.pipeline.selection.choose import choose, chooser_of
from cptsel.pipeline.selection.config import SelectConfig
from cptsel.pipeline.selection.methods import MATCH, METHODS
from cptsel.pipeline.selection.options import settle
from cptsel.pipeline.selection.outcome.header import Selected, manifest_header
from cptsel.pipeline.selection.outcome.later_phase import draw_from_first
from cptsel.pipeline.selection.outcome.phases import Phase
from cptsel.pipeline.selection.outcome.residuals import measure
from cptsel.pipeline.selection.outcome.summary import dry_run_summary, select_summary
from cptsel.pipeline.selection.outcome.weighting import weigh
from cptsel.pipeline.selection.outcome.writing import write_samples, write_shards
from cptsel.pipeline.selection.plan import Plan
from cptsel.pipeline.selection.reading.cells import CellReader
from cptsel.pipeline.selection.reading.kept import kept_cells
from cptsel.pipeline.selection.task import (
    CountCells,
    ShardStatistics,
    Task,
    absolute,
    open_task,
    scales,
    unmatched_exclusions,
)
from cptsel.pipeline.selection.tuning import DEFAULT, Tuning


@one_blas_thread()
def select(
    config: SelectConfig,
    progress: Progress | None = None,
    make_steps: Callable[..., Steps] = Steps,
    tuning: Tuning = DEFAULT,
) -> SelectResult:
    """Choose a coreset and write its manifest.

    Args:
        config: options.
        progress: told how far each step is.
        make_steps: where steps run: ``Steps`` on Beam, ``InlineSteps`` in this process.
        tuning: sizes.

    Returns:
        The summary that the command prints.

    Raises:
        UsageError: an option, run or output directory that can't be used, or a budget too small for a group.
        BadInputError: an embedding file is damaged.
    """
    began = time.monotonic()
    config = settle(absolute(config))
    task = open_task(config, tuning)
    config = task.config
    for path in (*config.runs, *config.phase_run, *config.history, *filter(None, [config.new])):
        check_apart(config.out, path)
    with writing(config.out, "select", overwrite=config.overwrite, dry_run=config.dry_run) as output:
        steps = make_steps(io.join(config.out, outputs.WORK), config.beam_args, config.workers, progress)
        if config.dry_run:
            return _dry_run(config, task)
        if output.is_new:  # mark it as ours before anything else is in it
            outputs.write_config(config.out, "select", to_yaml(config))
        io.delete_tree(steps.work)
        counted, selected = _select_phases(config, task, steps)
        output.begin(to_yaml(config))  # what --overwrite replaces is deleted only after all is chosen
        phases = [(done.work, done.weighted) for done in selected]
        visits = write_samples(config.out, phases, config.method, config.realisation)
        weighted = [done.weighted for done in selected]
        write_shards(config.out, task.phases[0].runs.shards, selected[0].plan, weighted, visits)
        if not config.skip_residuals:
            selected = [_measured(config, done, steps) for done in selected]
        header = manifest_header(config, selected, task.weighing, task.reader.exclude, task.new)
        stats = _stats(time.monotonic() - began)
        header = finish_manifest(config.out, header, to_yaml(config), stats)
    unmatched = unmatched_exclusions(task.reader.exclude, counted)
    return select_summary(config, header, selected[0].plan, unmatched, stats)


def _dry_run(config: SelectConfig, task: Task) -> SelectResult:
    counted = _kept(task)
    if counted is None:
        with ThreadPoolExecutor(max_workers=8) as pool:
            counted = list(pool.map(CountCells(task.reader), task.phases[0].runs.shards))
    plan = _check_plans(config, task, counted)
    return dry_run_summary(config, task.phases, plan, unmatched_exclusions(task.reader.exclude, counted))


def _kept(task: Task) -> list[ShardStatistics] | None:
    """What ``CountCells`` says of every shard, where the run keeps it."""
    found = kept_cells(task.phases[0].runs, task.reader)
    return None if found is None else [{"cells": cells, "excluded": []} for cells in found]


def _select_phases(config: SelectConfig, task: Task, steps: Steps) -> tuple[list[ShardStatistics], list[Selected]]:
    """Count, plan, choose and weigh, phase by phase, under the work directory alone.

    Returns:
        What ``CountCells`` says of the shards of phase 0, and what was selected.
    """
    counted = _kept(task)
    if counted is None:
        counted = steps.run("statistics", CountCells(task.reader), task.phases[0].runs.shards)
    _check_plans(config, task, counted)
    selected: list[Selected] = []
    rows = task.tuning.pick_rows
    for phase in task.phases:
        within = steps.within(f"phase-{phase.number}")
        if phase.from_first:
            first, reader = selected[0], selected[0].reader
            plan = draw_from_first(first.weighted, first.work, first.plan, phase, config.seed, within.work, rows)
            reports: list[dict[str, Any]] = []
        else:
            plan, reader = _plan_phase(task, phase, counted, within)
            reports = _choose(task, phase, plan, reader, within)
        weighted = weigh(within.work, phase.number, plan, phase.text, task.weighing, rows)
        selected.append(Selected(phase.runs, reader, within.work, plan, weighted, reports, {}, phase.from_first))
    return counted, selected


def _check_plans(config: SelectConfig, task: Task, counted: list[ShardStatistics]) -> Plan:
    """Refuse a budget that can't be met, and a history of another corpus, before anything is chosen.

    Returns:
        The plan of phase 0.
    """
    plan = task.plan(counted)
    for phase in task.phases[1:]:
        if phase.runs is task.phases[0].runs and not phase.from_first:
            task.plan(counted, phase.number)
    played = sum(cell["played"] for shard in counted for cell in shard["cells"])
    if config.history and not played:
        raise UsageError(
            f"--history {config.history[0]}: none of the samples that were replayed is in these runs; a round must "
            "have been selected from a run with the same --root and --max-tokens"
        )
    return plan


def _plan_phase(task: Task, phase: Phase, counted: list[ShardStatistics], steps: Steps) -> tuple[Plan, CellReader]:
    """Budgets of a phase, and how its cells are read."""
    reader = task.reader
    if phase.runs is not task.phases[0].runs:  # another checkpoint: the same samples, other gradients
        reader = replace(reader, schema=phase.runs.schema)
        counted = steps.run("statistics", CountCells(reader), phase.runs.shards)
    if reader.combine == "concat":
        reader = replace(reader, scales=scales(counted))
    return task.plan(counted, phase.number), reader


def _choose(task: Task, phase: Phase, plan: Plan, reader: CellReader, steps: Steps) -> list[dict[str, Any]]:
    """Write the picks of a phase; returns what the method reports of cells or groups."""
    config = task.config
    return choose(
        phase.runs.shards,
        plan,
        reader,
        chooser_of(config.method, task.settings(plan.unit, phase.number)),
        steps,
        config.explore,
        scope=config.scope,
        partitions=(config.partitions or 0) if config.partition == "cluster" else None,
    )


def _measured(config: SelectConfig, done: Selected, steps: Steps) -> Selected:
    """A phase with its residuals."""
    number = done.weighted.number
    reader = replace(done.reader, batch_size=1)
    within = steps.within(f"residuals-{number}")
    found = measure(done.runs.shards, done.plan, done.weighted.groups, reader, config.out, number, within)
    if METHODS[config.method].family != MATCH or done.from_first:
        for figures in found.values():
            figures.pop("method_residual")
            figures.pop("method_validation_residual")
    return replace(done, residuals=found)


def _stats(seconds: float) -> dict[str, Any]:
    """Time and memory of this call; of workers only where they are local processes."""
    return {"seconds": round(seconds, 3), "peak_memory_bytes": peak_memory_bytes()}
