"""``cptsel order``: from a replay manifest to an ordered one, with a schedule for every phase, epoch and rank.

Which shards are visited first is drawn by importance (kernels.sampling.shard_order); samples are copied byte for byte.
Each epoch of a phase plays the whole of it and draws fresh priorities.
"""

import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.manifest import (
    SHARDS,
    Manifest,
    finish_manifest,
    load_manifest,
    read_data_file,
    samples_name,
    schedule_name,
)
from cptsel.pipeline.artifacts.visits import PhaseVisits, read_visits
from cptsel.pipeline.config import OrderConfig, to_yaml
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.sampling.shard_order import EpochPlan, order_report, plan_epoch, proposal
from cptsel.schemas.arrow import REPLAY_SHARDS, SCHEDULE

_ROWS_SHOWN = 20
_MOST_RANKS = 1_000_000
_MOST = {"rows": 100_000_000, "files": 100_000}  # of all schedules together


def order(config: OrderConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Write an ordered manifest.

    Returns:
        The summary: totals, one table of phases, one of epochs, warnings.

    Raises:
        UsageError: an option out of range, an input that is not a finished manifest, or an output that exists.
        VerificationError: a file of the manifest is not what its checksum says.
    """
    started = time.monotonic()
    _check_options(config)
    manifest = load_manifest(config.replay)
    _check_schedulable(manifest)
    out = io.absolute(config.out)
    outputs.check_apart(out, manifest.directory)
    outputs.check_output(out, "order", config.overwrite)
    # All of the parent is read and judged before anything is deleted: one that fails must not cost an older output.
    visits = read_visits(manifest, progress)
    _check_size(config, visits)
    shards = manifest.shards()
    paths = dict(zip(shards["shard_id"].to_pylist(), shards["path"].to_pylist(), strict=True))
    names = {phase: [paths[key] for key in played.ids.tolist()] for phase, played in visits.items()}
    proposals = {phase: _proposal(config, played, names[phase]) for phase, played in visits.items()}
    if not config.dry_run:
        outputs.prepare_output(out, "order", to_yaml(config), config.overwrite)
        _copy_samples(manifest, out)
    summary = _Summary(config, out, visits)
    summary.add_curricula(manifest.curricula())
    for phase, played in visits.items():
        q = proposals[phase]
        summary.add_phase(phase, q, played)
        for epoch in range(min(config.epochs, _ROWS_SHOWN) if config.dry_run else config.epochs):
            priority = q / uniform(config.seed, f"order/{phase}/{epoch}", names[phase])
            plan = plan_epoch(
                played.passes, played.tokens, priority[played.shard], played.ids[played.shard], config.world_size
            )
            summary.add_epoch(phase, epoch, plan)
            if not config.dry_run:
                io.write_parquet(io.join(out, schedule_name(phase, epoch)), _schedule(plan, played, q, priority))
            if epoch == 0 and phase == manifest.phases[0]:
                shards = _with_order(shards, plan, played, q, priority)
            if progress:
                progress(epoch + 1, config.epochs, f"schedules of phase {phase}")
    if not config.dry_run:
        io.write_parquet(io.join(out, SHARDS), shards)
        stats = {"seconds": time.monotonic() - started}
        finish_manifest(out, _header(manifest, config, summary.reports), to_yaml(config), stats, command="order")
    return summary.result()


def _check_options(config: OrderConfig) -> None:
    if config.epochs < 1:
        raise UsageError(f"--epochs {config.epochs}: must be at least 1")
    if not 1 <= config.world_size <= _MOST_RANKS:
        raise UsageError(f"--world-size {config.world_size}: must be between 1 and {_MOST_RANKS}")
    if not (math.isfinite(config.staleness) and config.staleness >= 0):
        raise UsageError(f"--staleness {config.staleness}: must be a finite number of at least 0")


def _check_schedulable(manifest: Manifest) -> None:
    if manifest.realisation == "sampling":
        raise UsageError(
            f"{manifest.directory}: its weights are realised by sampling, where the trainer draws every sample itself "
            "and no schedule can be kept; train as its CONSUMING.md says, or make it again with another cptsel select "
            "--realisation"
        )


def _check_size(config: OrderConfig, visits: dict[int, PhaseVisits]) -> None:
    """Refuse schedules that would take days to write, and to list in ``manifest.json``."""
    rows = config.epochs * sum(len(played.shard) for played in visits.values())
    for count, what in ((rows, "rows"), (config.epochs * len(visits), "files")):
        if count > _MOST[what]:
            raise UsageError(
                f"--epochs {config.epochs}: the schedules would have {count:,} {what}, and may have {_MOST[what]:,}; "
                "ask for fewer epochs"
            )


def _copy_samples(manifest: Manifest, out: str) -> None:
    """Copy the samples files byte for byte; each is held against its checksum once more."""

    def copy(name: str) -> None:
        data = read_data_file(manifest.path(name), manifest.header["files"][name]["sha256"])
        io.write_bytes(io.join(out, name), data)

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(copy, manifest.sample_files().values()))


def _proposal(config: OrderConfig, played: PhaseVisits, paths: list[str]) -> np.ndarray:
    """The proposal, with what the kernel would refuse said in the user's terms."""
    for index in np.flatnonzero(~(np.isfinite(played.x) & (played.x >= 0) & (played.t > 0))).tolist():
        file = io.join(config.replay, samples_name(int(played.ids[index])))
        raise VerificationError(f"{file}: grad_norm, n_tokens or what is played is not positive; run cptsel verify")
    if config.staleness == 0:
        for index in np.flatnonzero(played.x == 0).tolist():
            raise UsageError(
                f"--staleness 0: shard {paths[index]} has gradient norm 0 and would never be drawn; "
                "pass a positive --staleness"
            )
    return proposal(played.x, played.t, config.staleness)


def _schedule(plan: EpochPlan, played: PhaseVisits, q: np.ndarray, priority: np.ndarray) -> pa.Table:
    shard = played.shard[plan.visit]
    columns = {
        "rank": plan.rank,
        "position": plan.position,
        "shard_id": played.ids[shard],
        "pass": played.passes[plan.visit],
        "order": plan.order,
        "samples": played.samples[plan.visit],
        "tokens": played.tokens[plan.visit],
        "q": q[shard],
        "priority": priority[shard],
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in SCHEDULE], schema=SCHEDULE)


def _with_order(
    shards: pa.Table, plan: EpochPlan, played: PhaseVisits, q: np.ndarray, priority: np.ndarray
) -> pa.Table:
    """The table of shards with q, priority and place of an epoch's pass 1; null for shards that play nothing."""
    first = played.passes[plan.visit] == 1
    place = np.empty(len(played.ids), dtype=np.int64)
    place[played.shard[plan.visit][first]] = plan.order[first]
    row_of = {key: row for row, key in enumerate(shards["shard_id"].to_pylist())}
    rows = np.asarray([row_of[key] for key in played.ids.tolist()], dtype=np.int64)
    absent = np.ones(shards.num_rows, dtype=bool)
    absent[rows] = False
    for name, values in (("q", q), ("priority", priority), ("order", place)):
        full = np.zeros(shards.num_rows, dtype=values.dtype)
        full[rows] = values
        field = REPLAY_SHARDS.field(name)
        shards = shards.set_column(shards.schema.get_field_index(name), field, pa.array(full, field.type, mask=absent))
    return shards


def _header(manifest: Manifest, config: OrderConfig, reports: list[dict[str, Any]]) -> dict[str, Any]:
    """The parent's header with another order."""
    return manifest.header | {
        "parent": manifest.manifest_id,
        "order": {
            "kind": "priority",
            "seed": config.seed,
            "epochs": config.epochs,
            "world_size": config.world_size,
            "staleness": config.staleness,
            "reports": reports,
        },
    }


class _Summary:
    """Gathers what is told to the user and what the manifest records."""

    def __init__(self, config: OrderConfig, out: str, visits: dict[int, PhaseVisits]) -> None:
        self.config, self.out, self.visits = config, out, visits
        self.reports: list[dict[str, Any]] = []
        self.phase_rows: list[list[Any]] = []
        self.epoch_rows: list[list[Any]] = []
        self.warnings: list[str] = []

    def add_phase(self, phase: int, q: np.ndarray, played: PhaseVisits) -> None:
        report = order_report(q, played.x, played.t)
        self.reports.append(
            {
                "phase": phase,
                "shards": report.shards,
                "visits": len(played.shard),
                "tokens": int(played.tokens.sum()),
                "effective_shards": report.effective_shards,
                "variance_ratio": report.variance_ratio,
                "variance_ratio_bound": report.variance_ratio_bound,
            }
        )
        self.phase_rows.append(list(self.reports[-1].values()))
        if len(played.shard) < self.config.world_size:
            self.warnings.append(
                f"phase {phase} has {len(played.shard)} visits of shards for {self.config.world_size} ranks, so some "
                "ranks get nothing; use a smaller --world-size, or smaller shards in the corpus"
            )

    def add_curricula(self, curricula: dict[int, str]) -> None:
        spread = [f"phase {phase} ({kind})" for phase, kind in curricula.items() if len(self.visits[phase].ids) > 1]
        if spread:
            self.warnings.append(
                f"a schedule plays shard by shard, so that the curriculum of {', '.join(spread)} holds inside each "
                "shard only; train without a schedule to keep it over the whole phase"
            )

    def add_epoch(self, phase: int, epoch: int, plan: EpochPlan) -> None:
        low, mean, high = int(plan.loads.min()), float(plan.loads.mean()), int(plan.loads.max())
        spread = (high - low) / mean if mean else 0.0
        if len(self.epoch_rows) < _ROWS_SHOWN:
            self.epoch_rows.append([phase, epoch, low, round(mean), high, f"{spread:.2%}"])
        if epoch == 0 and spread > 0.1 and low:
            self.warnings.append(
                f"phase {phase}: the fullest rank has {spread:.0%} more tokens than the emptiest, because shards are "
                "played whole; use a smaller --world-size, or smaller shards in the corpus"
            )

    def result(self) -> dict[str, Any]:
        one_epoch = sum(int(played.tokens.sum()) for played in self.visits.values())
        titles = ["phase", "shards", "visits", "tokens", "effective shards", "variance ratio from", "to"]
        return {
            "command": "order",
            "out": self.out,
            "status": "dry-run" if self.config.dry_run else "done",
            "totals": {
                "epochs": self.config.epochs,
                "ranks": self.config.world_size,
                "visits per epoch": sum(len(played.shard) for played in self.visits.values()),
                "tokens per epoch": one_epoch,
                "tokens in all epochs": one_epoch * self.config.epochs,
            },
            "tables": [
                {"title": "Order against drawing shards uniformly", "columns": titles, "rows": self.phase_rows},
                {
                    "title": "Tokens by rank",
                    "columns": ["phase", "epoch", "least", "mean", "most", "spread"],
                    "rows": self.epoch_rows,
                },
            ],
            "warnings": self.warnings,
        }
