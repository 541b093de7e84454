"""``cptsel order``: from a replay manifest to an ordered one, with a schedule for every phase, epoch and rank.

Which shards are visited first is drawn by importance (kernels.sampling.shard_order); samples are those of the parent,
linked where the filesystem can, else copied. Each epoch of a phase plays the whole of it and draws fresh priorities.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.damage import manifest_warnings
from cptsel.pipeline.artifacts.manifest import (
    SHARDS,
    Manifest,
    finish_manifest,
    load_manifest,
    samples_name,
    schedule_name,
)
from cptsel.pipeline.artifacts.visits import PhaseVisits, read_visits, shard_names
from cptsel.pipeline.artifacts.writing import check_apart, writing
from cptsel.pipeline.config import check_values, to_yaml
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.sampling.shard_order import plan_epoch, proposal
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.ordering.schedule import schedule_table, with_order
from cptsel.pipeline.ordering.summary import ROWS_SHOWN, OrderReport
from cptsel.pipeline.results import OrderResult
from cptsel.pipeline.summary import counted
from cptsel.schemas.headers import ManifestBody

_MOST = {"rows": 100_000_000, "files": 100_000}  # of all schedules together


def order(config: OrderConfig, progress: Progress | None = None) -> OrderResult:
    """Write an ordered manifest.

    Returns:
        The summary: totals, one table of phases, one of epochs, warnings.

    Raises:
        UsageError: an option out of range, an input that is not a finished manifest, or an output that exists.
        VerificationError: a file of the manifest is missing, has another size or, where it is read, another checksum.
    """
    started = time.monotonic()
    check_values(config)
    manifest = load_manifest(config.replay)
    _check_schedulable(manifest)
    out = io.absolute(config.out)
    check_apart(out, manifest.directory)
    with writing(out, "order", overwrite=config.overwrite, dry_run=config.dry_run) as output:
        # The parent is read and checked before anything is deleted, so that a damaged one costs no older output.
        visits = read_visits(manifest, progress)
        samples = _present_samples(manifest)
        _check_size(config, visits)
        names = _shard_names(manifest, visits)
        proposals = {phase: _proposal(config, played, names[phase]) for phase, played in visits.items()}
        if not config.dry_run:
            output.begin(to_yaml(config))
            _take_over(manifest, samples, out)  # before shards are read once more: that tells if the parent changed
        report = OrderReport(config, out, visits)
        report.warnings += manifest_warnings(manifest.header)
        report.add_curricula(manifest.curricula())
        shards = _schedule(config, manifest, visits, proposals, names, report, progress)
        if not config.dry_run:
            io.write_parquet(io.join(out, SHARDS), shards)
            del shards, names, proposals  # of a million shards they are as much as what is still to be made
            stats = {"seconds": time.monotonic() - started}
            copied = {name: manifest.header["files"][name] for name in samples}
            body = _header(manifest, config, report.reports)
            finish_manifest(out, body, to_yaml(config), stats, command="order", known=copied)
    return report.summary()


def _shard_names(manifest: Manifest, visits: dict[int, PhaseVisits]) -> dict[int, list[str]]:
    """Names of the shards of every phase, by which priorities are drawn."""
    table = manifest.table(SHARDS, ["shard_id", "path"])
    ids = table["shard_id"].to_numpy()
    by_id = np.argsort(ids)
    rows = {phase: by_id[np.searchsorted(ids, played.ids, sorter=by_id)] for phase, played in visits.items()}
    names = pa.array(shard_names(table), pa.string())
    return {phase: names.take(pa.array(found)).to_pylist() for phase, found in rows.items()}


def _schedule(
    config: OrderConfig,
    manifest: Manifest,
    visits: dict[int, PhaseVisits],
    proposals: dict[int, np.ndarray],
    names: dict[int, list[str]],
    report: OrderReport,
    progress: Progress | None,
) -> pa.Table:
    """Plan every epoch of every phase, and write its schedule; returns the table of shards with their order."""
    shards = manifest.shards()
    for phase, played in visits.items():
        q = proposals[phase]
        report.add_phase(phase, q, played)
        for epoch in range(min(config.epochs, ROWS_SHOWN) if config.dry_run else config.epochs):
            priority = q / uniform(config.seed, f"order/{phase}/{epoch}", names[phase])
            plan = plan_epoch(
                played.passes, played.tokens, priority[played.shard], played.ids[played.shard], config.world_size
            )
            report.add_epoch(phase, epoch, plan)
            if not config.dry_run:
                table = schedule_table(plan, played, q, priority)
                io.write_parquet(io.join(report.out, schedule_name(phase, epoch)), table)
            if epoch == 0 and phase == manifest.phases[0]:
                shards = with_order(shards, plan, played, q, priority)
            if progress:
                progress(epoch + 1, config.epochs, f"schedules of phase {phase}")
    return shards


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


def _present_samples(manifest: Manifest) -> list[str]:
    """Paths of the samples files within the manifest. All must be there, and in their sizes if few (Listing)."""
    names, there = list(manifest.sample_files().values()), outputs.Listing(manifest.directory)
    missing = sorted(set(names).difference(there.paths()))
    if missing:
        raise VerificationError(f"{manifest.path(missing[0])} is missing; restore it or make the manifest again")
    for name in names if there.may_ask_sizes else ():
        found, wanted = there.sizes().get(name, 0), manifest.header["files"][name]["bytes"]
        if found != wanted:
            what = f"is not the file that was written (it has {counted(found, 'byte')}, not {wanted:,})"
            raise VerificationError(f"{manifest.path(name)} {what}; restore it")
    return names


def _take_over(manifest: Manifest, names: list[str], out: str) -> None:
    """Link samples files to the parent's, or copy them byte for byte, each held against its checksum.

    What is linked is not read: ``verify`` tells what is wrong with it, there as here.
    """

    def copy(name: str) -> None:
        io.write_bytes(io.join(out, name), manifest.data(name))

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(copy, io.link_files(manifest.directory, out, names)))


def _proposal(config: OrderConfig, played: PhaseVisits, paths: list[str]) -> np.ndarray:
    """The proposal. What the kernel would refuse is refused here, in the user's terms."""
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


def _header(manifest: Manifest, config: OrderConfig, reports: list[dict[str, Any]]) -> ManifestBody:
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
