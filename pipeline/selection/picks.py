"""Picks: what methods hand on to the weighing, one Parquet file a shard under ``<work>/picks/``."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.schemas.arrow import LOCATOR_FIELDS

STEP = "picks"

PICKS = pa.schema(
    [
        *LOCATOR_FIELDS,
        pa.field("group", pa.string(), nullable=False),
        pa.field("grad_norm", pa.float32(), nullable=False),
        pa.field("loss_sum", pa.float32(), nullable=False),
        pa.field("found_mass", pa.float64(), nullable=False),  # what the method says it stands for, in any scale
        pa.field("inclusion_prob", pa.float64(), nullable=False),
        pa.field("score", pa.float32()),
    ]
)


def picks_path(work: str, shard_id: int) -> str:
    """Where the picks of a shard lie."""
    return io.join(work, STEP, f"{shard_id:06d}.parquet")


def write_picks(work: str, shard_id: int, tables: Sequence[pa.Table]) -> None:
    """Write the picks of one shard in corpus order; no file where there are none."""
    table = pa.concat_tables([PICKS.empty_table(), *tables])
    if table.num_rows:
        table = table.sort_by([("row_index", "ascending"), ("window", "ascending")]).combine_chunks()
        io.write_scratch(picks_path(work, shard_id), table)


def list_picks(work: str) -> dict[int, str]:
    """Files of picks by shard, ascending."""
    names = io.list_names(io.join(work, STEP), ".parquet")
    return {int(name.split(".")[0]): io.join(work, STEP, name) for name in sorted(names)}


def with_column(rows: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    """Rows of PICKS with another column of float64."""
    return rows.set_column(rows.schema.get_field_index(name), PICKS.field(name), pa.array(values, pa.float64()))
