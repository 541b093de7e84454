"""Schedules as the files hold them."""

import numpy as np
import pyarrow as pa

from cptsel.pipeline.artifacts.visits import PhaseVisits
from cptsel.pipeline.kernels.sampling.shard_order import EpochPlan
from cptsel.schemas.arrow import REPLAY_SHARDS, SCHEDULE


def schedule_table(plan: EpochPlan, played: PhaseVisits, q: np.ndarray, priority: np.ndarray) -> pa.Table:
    """The rows of SCHEDULE of one epoch; q and priority, (shards,) float64, are those of the shards."""
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


def with_order(shards: pa.Table, plan: EpochPlan, played: PhaseVisits, q: np.ndarray, priority: np.ndarray) -> pa.Table:
    """The table of shards with q, priority and place of an epoch's pass 1; null for shards that play nothing."""
    first = played.passes[plan.visit] == 1
    place = np.empty(len(played.ids), dtype=np.int64)
    place[played.shard[plan.visit][first]] = plan.order[first]
    ids = shards["shard_id"].to_numpy()
    by_id = np.argsort(ids)
    rows = by_id[np.searchsorted(ids, played.ids, sorter=by_id)]
    absent = np.ones(shards.num_rows, dtype=bool)
    absent[rows] = False
    for name, values in (("q", q), ("priority", priority), ("order", place)):
        full = np.zeros(shards.num_rows, dtype=values.dtype)
        full[rows] = values
        field = REPLAY_SHARDS.field(name)
        shards = shards.set_column(shards.schema.get_field_index(name), field, pa.array(full, field.type, mask=absent))
    return shards
