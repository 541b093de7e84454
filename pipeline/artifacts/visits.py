"""What a trainer visits: the (shard, pass) pairs of every phase.

They are tallied when samples are written, and stand in the column ``visits`` of ``shards.parquet``: planning need not
open a file a shard. Manifests of older releases lack it, and are tallied from their samples.
"""

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cptsel.pipeline.artifacts.manifest import SHARDS, Manifest, parse_table, samples_name
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import VerificationError
from cptsel.schemas.arrow import VISITS

_PLAYED_COLUMNS = ["phase", "repeat", "loss_weight", "n_tokens", "grad_norm"]


@dataclass(frozen=True)
class PhaseVisits:
    """What one phase plays, by shard and by (shard, pass); shards that play nothing are left out.

    ``ids`` (s,) int32 ascending; ``x`` (s,) float64 = Σ c · grad_norm and ``t`` (s,) float64 = Σ c · n_tokens, c being
    what counts in the loss: the repeats, or the loss weight where that realises the weights. ``shard`` (v,) indexes
    them, ``passes`` (v,) int16; ``samples`` and ``tokens`` (v,) int64 are what a visit plays, whatever it weighs.
    """

    ids: np.ndarray
    x: np.ndarray
    t: np.ndarray
    shard: np.ndarray
    passes: np.ndarray
    samples: np.ndarray
    tokens: np.ndarray


def read_visits(manifest: Manifest, progress: Progress | None = None) -> dict[int, PhaseVisits]:
    """What every phase plays, as ``shards.parquet`` says or, where it does not, from one reading of each samples file.

    Raises:
        VerificationError: a file's bytes are not those the manifest names, or a samples file is of no shard.
    """
    ids, stored = stored_visits(manifest)
    if stored is None:
        if unknown := sorted(manifest.sample_files().keys() - set(ids.tolist())):
            what = f"is of no shard of {SHARDS}; restore the manifest or make it again"
            raise VerificationError(f"{manifest.path(samples_name(unknown[0]))} {what}")
        found = _tally_files(manifest, progress)
        ids, stored = np.asarray(list(found), dtype=np.int32), pa.array(found.values(), VISITS.type)
    return _by_phase(manifest, ids, stored)


def stored_visits(manifest: Manifest) -> tuple[np.ndarray, pa.Array | None]:
    """Ids (s,) int32 of the shards in ``shards.parquet``, and their ``visits``; None in a manifest without them."""
    data = manifest.data(SHARDS)
    there = VISITS.name in pq.read_schema(pa.BufferReader(data)).names
    table = parse_table(data, ["shard_id", *([VISITS.name] if there else [])])
    ids = table["shard_id"].to_numpy().astype(np.int32)
    if not there or table[VISITS.name].null_count:
        return ids, None
    return ids, table[VISITS.name].combine_chunks()


def shard_names(shards: pa.Table) -> list[str]:
    """Names by which the shards of a manifest draw, in the order of the table.

    They are paths. Pools of one corpus have a shard of each file: those after the first have their number behind it, or
    their draws would be the same.

    Args:
        shards: ``shard_id`` and ``path`` of REPLAY_SHARDS.
    """
    paths = shards["path"].to_pylist()
    if len(set(paths)) == len(paths):
        return paths
    seen: Counter[str] = Counter()
    for place in np.argsort(shards["shard_id"].to_numpy(), kind="stable").tolist():
        path = paths[place]
        if seen[path]:
            paths[place] = f"{path}, pool {seen[path] + 1}"
        seen[path] += 1
    return paths


def tally(samples: pa.Table, realisation: str) -> list[dict[str, Any]]:
    """What each phase plays of one samples file: the shard's ``visits`` (schemas.arrow.VISITS).

    Args:
        samples: rows of SAMPLES, or those columns of it that count.
        realisation: how weights are realised.
    """
    phases, repeat, n_tokens = (samples[name].to_numpy().astype(np.int64) for name in ("phase", "repeat", "n_tokens"))
    counts = samples["loss_weight"].to_numpy() if realisation == "loss" else repeat.astype(np.float64)
    x, t = counts * samples["grad_norm"].to_numpy().astype(np.float64), counts * n_tokens
    found = []
    for phase in np.unique(phases).tolist():
        mine = (phases == phase) & (repeat > 0)
        if mine.any():
            found.append(
                {
                    "phase": phase,
                    "x": math.fsum(x[mine]),
                    "t": math.fsum(t[mine]),
                    "samples": _by_pass(repeat[mine], np.ones_like(repeat[mine])),
                    "tokens": _by_pass(repeat[mine], n_tokens[mine]),
                }
            )
    return found


def _by_pass(repeat: np.ndarray, counts: np.ndarray) -> list[int]:
    """Of pass 1, 2, ...: Σ counts of the samples with repeat >= pass; (n,) int64 each, repeats from 1."""
    sums = np.zeros(repeat.max() + 1, np.int64)
    np.add.at(sums, repeat, counts)
    passes: list[int] = np.cumsum(sums[:0:-1])[::-1].tolist()
    return passes


def _tally_files(manifest: Manifest, progress: Progress | None) -> dict[int, list[dict[str, Any]]]:
    """``tally`` of every samples file, by shard_id."""
    files, found = manifest.sample_files(), {}

    def tally_file(name: str) -> list[dict[str, Any]]:
        return tally(manifest.table(name, _PLAYED_COLUMNS), manifest.realisation)

    with ThreadPoolExecutor(max_workers=8) as pool:
        tallies = pool.map(tally_file, files.values())
        for done, (shard_id, visits) in enumerate(zip(files, tallies, strict=True), 1):
            found[shard_id] = visits
            if progress:
                progress(done, len(files), "shards")
    return found


def _by_phase(manifest: Manifest, ids: np.ndarray, visits: pa.Array) -> dict[int, PhaseVisits]:
    """The visits of shards with these ids, as arrays: a manifest may have a million shards."""
    if not visits.type.equals(VISITS.type):
        what = f"its visits are {visits.type}, not {VISITS.type}"
        raise VerificationError(f"{manifest.path(SHARDS)}: {what}; restore the manifest or make it again")
    of_shard = np.repeat(ids, visits.value_lengths().to_numpy())
    phase, x, t, samples, tokens = visits.flatten().flatten()
    counts = samples.value_lengths().to_numpy()
    if (counts != tokens.value_lengths().to_numpy()).any() or (counts == 0).any():
        raise VerificationError(f"{manifest.path(SHARDS)}: its visits do not fit together; run cptsel verify")
    starts = np.cumsum(counts) - counts
    samples, tokens = samples.flatten().to_numpy(), tokens.flatten().to_numpy()
    found = {}
    for number in manifest.phases:
        mine = np.flatnonzero(phase.to_numpy() == number)
        mine = mine[np.argsort(of_shard[mine], kind="stable")]
        shard = np.repeat(np.arange(len(mine)), counts[mine])
        within = np.arange(len(shard)) - np.repeat(np.cumsum(counts[mine]) - counts[mine], counts[mine])
        place = starts[mine][shard] + within
        found[number] = PhaseVisits(
            ids=of_shard[mine],
            x=x.to_numpy()[mine],
            t=t.to_numpy()[mine],
            shard=shard,
            passes=(within + 1).astype(np.int16),
            samples=samples[place],
            tokens=tokens[place],
        )
    return found
