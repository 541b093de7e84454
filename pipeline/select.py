"""``cptsel select``: from embedding runs to a weighted coreset, written as a replay manifest.

Reads like the drawing: count the cells, divide the budget, choose in every shard (and merge), weigh, write.
"""

import math
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from cptsel.pipeline import io, outputs
from cptsel.pipeline.config import SelectConfig, to_yaml
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.exclusion import read_exclusions
from cptsel.pipeline.kernels.budget import parse_budget, parse_tokens
from cptsel.pipeline.manifest import finish_manifest
from cptsel.pipeline.progress import Progress
from cptsel.pipeline.runs import EmbeddingRuns, RunShard, open_runs
from cptsel.pipeline.selection.cells import CellReader, cell_statistics, matched_exclusions
from cptsel.pipeline.selection.global_cover import cover_globally
from cptsel.pipeline.selection.global_draw import draw_globally
from cptsel.pipeline.selection.methods import METHODS, Draw, Settings
from cptsel.pipeline.selection.plan import Plan, make_plan
from cptsel.pipeline.selection.scope_shard import select_in_shards
from cptsel.pipeline.selection.summary import dry_run_summary, select_summary
from cptsel.pipeline.selection.weighting import weigh
from cptsel.pipeline.selection.writing import manifest_header, write_samples, write_shards
from cptsel.pipeline.steps import Steps

_RANGES = (("neighbours", 1, None), ("refine", 0, None), ("max_repeats", 1, 32_767), ("seed", 0, 2**31 - 1))


def select(config: SelectConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Choose a coreset and write its manifest.

    Returns:
        The summary that the command prints.

    Raises:
        UsageError: an option, run or output directory that can't be used, or a budget too small for a group.
        BadInputError: an embedding file is damaged.
    """
    began = time.monotonic()
    config = replace(config, out=io.absolute(config.out), exclude=config.exclude and io.absolute(config.exclude))
    check_config(config)
    runs = open_runs(config.runs)
    _check_group(config, runs)
    outputs.check_output(config.out, "select", config.overwrite)
    exclude = read_exclusions(config.exclude) if config.exclude else frozenset()
    reader = CellReader(runs.schema, config.group_by, config.similarity, exclude)
    steps = Steps(io.join(config.out, ".work"), config.beam_args, config.workers, progress)
    if config.dry_run:
        with ThreadPoolExecutor(max_workers=8) as pool:
            counted = list(pool.map(CountCells(reader), runs.shards))
        return dry_run_summary(config, runs, _plan(config, counted), _unmatched(exclude, counted))
    plan, unmatched = _begin(config, runs, reader, steps)
    reports = _choose(config, runs, plan, reader, steps)
    tokens = None if config.replay_tokens is None else parse_tokens(config.replay_tokens)
    weighted = weigh(steps.work, plan, config.budget, tokens, config.max_repeats, config.seed)
    write_samples(config.out, steps.work, weighted, config.method)
    write_shards(config.out, runs.shards, plan, weighted)
    header = manifest_header(config, runs, plan, weighted, reports, exclude)
    _delete(steps.work)
    finish_manifest(config.out, header, to_yaml(config), _stats(time.monotonic() - began))
    return select_summary(config, header, plan, unmatched)


@dataclass(frozen=True)
class CountCells:
    """RunShard → what the budgets need to know of its cells, and the entries of the exclusion list met there."""

    reader: CellReader

    def __call__(self, shard: RunShard) -> dict[str, Any]:
        return {"cells": cell_statistics(shard, self.reader), "excluded": matched_exclusions(shard, self.reader)}


def check_config(config: SelectConfig) -> None:
    """Raise UsageError, naming option, value and range, for what no run could make right."""
    for name, choices in (
        ("method", tuple(METHODS)),
        ("scope", ("shard", "global")),
        ("similarity", ("euclidean", "cosine")),
    ):
        if getattr(config, name) not in choices:
            raise UsageError(f"--{name} {getattr(config, name)}: must be one of {', '.join(choices)}")
    for name, least, most in _RANGES:
        value = getattr(config, name)
        if value < least or (most is not None and value > most):
            bounds = f"at least {least}" if most is None else f"between {least} and {most}"
            raise UsageError(f"--{name.replace('_', '-')} {value}: must be {bounds}")
    if not (math.isfinite(config.group_alpha) and config.group_alpha >= 0):
        raise UsageError(f"--group-alpha {config.group_alpha}: must be a finite number of at least 0")
    for name, parse in (("budget", parse_budget), ("replay_tokens", parse_tokens)):
        value = getattr(config, name)
        try:
            if value is not None:
                parse(value)
        except ValueError as error:
            raise UsageError(f"--{name.replace('_', '-')}: {error}") from error


def _check_group(config: SelectConfig, runs: EmbeddingRuns) -> None:
    if config.group_by is not None and config.group_by not in runs.groups:
        there = f"it has {', '.join(runs.groups)}" if runs.groups else "it was embedded without --group-by"
        raise UsageError(f"--group-by {config.group_by}: {runs.directories[0]} has no such group column; {there}")


def _plan(config: SelectConfig, counted: list[dict[str, Any]]) -> Plan:
    statistics = [cell for shard in counted for cell in shard["cells"]]
    return make_plan(statistics, parse_budget(config.budget), config.budget, config.group_alpha)


def _unmatched(exclude: frozenset[str], counted: list[dict[str, Any]]) -> int:
    """Entries of the exclusion list that name nothing in the runs; hashes stand in it in both cases and count once."""
    matched = {entry.lower() for shard in counted for entry in shard["excluded"]}
    return len({entry.lower() for entry in exclude} - matched)


def _begin(config: SelectConfig, runs: EmbeddingRuns, reader: CellReader, steps: Steps) -> tuple[Plan, int]:
    """Count, plan, and only then clear the output directory: a budget that can't be must not cost an old manifest.

    Returns:
        The plan, and how many entries of the exclusion list name nothing.
    """
    is_new = not outputs.list_tree(config.out)
    if is_new:
        outputs.write_config(config.out, "select", to_yaml(config))
    try:
        counted = steps.run("statistics", CountCells(reader), runs.shards)
        plan = _plan(config, counted)
    except BaseException:  # an interrupt too: what --overwrite has not replaced yet must stay as it was
        _delete(config.out if is_new else steps.work)
        raise
    outputs.prepare_output(config.out, "select", to_yaml(config), config.overwrite)
    return plan, _unmatched(reader.exclude, counted)


def _delete(directory: str) -> None:
    if outputs.list_tree(directory):
        io.delete_tree(directory)


def _choose(
    config: SelectConfig, runs: EmbeddingRuns, plan: Plan, reader: CellReader, steps: Steps
) -> list[dict[str, Any]]:
    """Write the picks of every shard under the work directory; returns what the method reports of cells or groups."""
    settings = Settings(plan.unit, config.seed, config.neighbours, config.refine)
    if config.scope == "shard":
        choose = select_in_shards
    elif isinstance(METHODS[config.method], Draw):
        choose = draw_globally
    else:
        choose = cover_globally
    return choose(runs.shards, plan, config.method, reader, settings, steps)


def _stats(seconds: float) -> dict[str, Any]:
    """Time and memory of this call; of workers only where they are local processes."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"seconds": round(seconds, 3), "peak_memory_bytes": peak * 1024}
