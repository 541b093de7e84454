"""What a trainer visits: the (shard, pass) pairs of every phase, tallied from a manifest's sample files."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from cptsel.pipeline.artifacts.manifest import Manifest, samples_name
from cptsel.pipeline.engine.progress import Progress

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
    """What every phase plays, from one reading of each samples file.

    Raises:
        VerificationError: a file's bytes are not those the manifest names.
    """
    rows: dict[int, list[tuple[Any, ...]]] = {phase: [] for phase in manifest.phases}
    files = manifest.sample_files()
    with ThreadPoolExecutor(max_workers=8) as pool:
        for done, tallies in enumerate(pool.map(lambda key: list(_tally_file(manifest, key)), files), 1):
            for phase, *row in tallies:
                rows[phase].append(tuple(row))
            if progress:
                progress(done, len(files), "shards")
    return {phase: _visits(found) for phase, found in rows.items()}


def _tally_file(manifest: Manifest, shard_id: int) -> Iterator[tuple[Any, ...]]:
    """(phase, shard_id, x, t, samples by pass, tokens by pass) of one samples file, for phases that play from it."""
    table = manifest.table(samples_name(shard_id), _PLAYED_COLUMNS)
    phases, repeat, n_tokens = (table[column].to_numpy().astype(np.int64) for column in ("phase", "repeat", "n_tokens"))
    counts = table["loss_weight"].to_numpy() if manifest.realisation == "loss" else repeat.astype(np.float64)
    x, t = counts * table["grad_norm"].to_numpy().astype(np.float64), counts * n_tokens
    for phase in np.unique(phases).tolist():
        mine = (phases == phase) & (repeat > 0)
        if mine.any():
            passes = range(1, int(repeat[mine].max()) + 1)
            samples = [int((repeat[mine] >= number).sum()) for number in passes]
            tokens = [int(n_tokens[mine & (repeat >= number)].sum()) for number in passes]
            yield phase, shard_id, math.fsum(x[mine]), math.fsum(t[mine]), samples, tokens


def _visits(rows: list[tuple[Any, ...]]) -> PhaseVisits:
    ids, x, t, samples, tokens = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    counts = np.asarray([len(by_pass) for by_pass in samples], dtype=np.int64)
    shard = np.repeat(np.arange(len(counts)), counts)
    return PhaseVisits(
        ids=np.asarray(ids, dtype=np.int32),
        x=np.asarray(x, dtype=np.float64),
        t=np.asarray(t, dtype=np.float64),
        shard=shard,
        passes=(np.arange(len(shard)) - np.repeat(np.cumsum(counts) - counts, counts) + 1).astype(np.int16),
        samples=np.asarray([count for by_pass in samples for count in by_pass], dtype=np.int64),
        tokens=np.asarray([count for by_pass in tokens for count in by_pass], dtype=np.int64),
    )
