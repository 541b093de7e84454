"""Writing what was selected: the samples and shards of a manifest (docs/design.md, Replay manifest)."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import SHARDS, samples_name
from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.artifacts.visits import tally
from cptsel.pipeline.selection.outcome.weighted import Weighted, Worth
from cptsel.pipeline.selection.picks import list_picks
from cptsel.pipeline.selection.plan import Plan
from cptsel.schemas.arrow import (
    COMPANION_FIELDS,
    GROUP_TYPE,
    LOCATOR_COLUMNS,
    REPLAY_SHARDS,
    RUN_SHARDS,
    SAMPLES,
    VISITS,
    with_companions,
)

_OF_SOURCE = [
    *(name for name in RUN_SHARDS.names if name in REPLAY_SHARDS.names),
    *(field.name for field in COMPANION_FIELDS),
]


def write_samples(
    out: str, phases: Sequence[tuple[str, Weighted]], method: str, realisation: str
) -> dict[int, list[dict[str, Any]]]:
    """Write ``samples/<shard>.parquet`` for every shard with picks, phase after phase in corpus order.

    Args:
        out: the manifest.
        phases: directory with the picks of each phase, and their weights.
        method: its name.
        realisation: how weights are realised.

    Returns:
        What each phase plays of each shard (see artifacts.visits.tally), by shard_id.
    """
    files = [list_picks(work) for work, _ in phases]

    def write(shard_id: int) -> list[dict[str, Any]]:
        tables = [
            _samples_table(io.read_parquet(found[shard_id]), weighted.number, weighted.of_shard(shard_id), method)
            for found, (_, weighted) in zip(files, phases, strict=True)
            if shard_id in found
        ]
        rows = _one_dictionary(pa.concat_tables(tables))
        io.write_parquet(io.join(out, samples_name(shard_id)), rows)
        return tally(rows, realisation)

    with ThreadPoolExecutor(max_workers=8) as pool:
        shards = sorted(set().union(*files))
        return dict(zip(shards, pool.map(write, shards), strict=True))


def _samples_table(picks: pa.Table, phase: int, worth: Worth, method: str) -> pa.Table:
    """Picks of one shard and phase, which come in corpus order, as rows of SAMPLES with plain strings."""
    count = picks.num_rows
    columns = {name: picks[name] for name in (*LOCATOR_COLUMNS, "inclusion_prob", "grad_norm", "score", "group")} | {
        "weight": worth.weight,
        "loss_weight": worth.loss_weight,
        "repeat": worth.repeat,
        "phase": np.full(count, phase, dtype=np.int16),
        "order_rank": worth.order_rank,
        "method": pa.array([method] * count, pa.string()),
    }
    return pa.table({name: columns[name] for name in SAMPLES.names})


def _one_dictionary(rows: pa.Table) -> pa.Table:
    """Group and method as dictionaries in sorted order, or the bytes would tell in what order groups came by."""
    columns = {name: rows[name].combine_chunks() for name in rows.column_names}
    for name in ("group", "method"):
        names, codes = np.unique(np.asarray(columns[name].to_pylist(), dtype=object), return_inverse=True)
        values = pa.array(names.tolist(), pa.string())
        columns[name] = pa.DictionaryArray.from_arrays(codes.astype(np.int32), values)
    assert SAMPLES.field("group").type == GROUP_TYPE
    return pa.table(columns, schema=SAMPLES)


def write_shards(
    out: str,
    shards: Sequence[RunShard],
    plan: Plan,
    phases: Sequence[Weighted],
    visits: Mapping[int, list[dict[str, Any]]],
) -> None:
    """Write ``shards.parquet``: every shard of the runs, also those without a pick, with the picks of all phases.

    ``visits`` is what ``write_samples`` returned.
    """
    population = plan.by_shard()
    rows = []
    for shard in shards:
        cells = list(population.get(shard.shard_id, {}).values())
        worths = [weighted.of_shard(shard.shard_id) for weighted in phases]
        rows.append(
            {
                **{name: shard.source.get(name) for name in _OF_SOURCE},
                "population_samples": sum(cell.samples for cell in cells),
                "population_tokens": sum(cell.tokens for cell in cells),
                "population_mass": float(sum(cell.mass for cell in cells)),
                "selected_samples": sum(len(worth.n_tokens) for worth in worths),
                "selected_tokens": sum(int(worth.n_tokens.sum()) for worth in worths),
                "selected_mass": float(sum(worth.weight @ worth.n_tokens for worth in worths)),
                "replay_tokens": sum(int(worth.repeat.astype(np.int64) @ worth.n_tokens) for worth in worths),
                VISITS.name: visits.get(shard.shard_id, []),
            }
        )
    schema = with_companions(REPLAY_SHARDS, rows).append(VISITS)
    io.write_parquet(io.join(out, SHARDS), pa.Table.from_pylist(rows, schema))
