"""What an embedding run rejected, file by file: the first of it, without opening all files."""

import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import unit_name
from cptsel.pipeline.corpus.types import BENIGN

_COLUMNS = ["shard_id", "row_index", "window", "reason", "detail"]
_FILES = 100  # that are opened at most: those of a corpus with blank lines may hold nothing else


def first_rejects(directory: str, units: pa.Table, most: int) -> pa.Table:
    """The first rejects of a run that are damage, by shard, block and row.

    Args:
        directory: of the run.
        units: rows of ``units.parquet`` with shard_id, block, rows_rejected and windows_rejected.
        most: rows to return.

    Returns:
        At most so many rows with the columns shard_id, row_index, window (null: the whole row), reason and detail. No
        more than 100 files are opened, so that there may be others where these are fewer.

    Raises:
        UsageError: a file is missing or can't be read.
    """
    rejected = pc.add(units["rows_rejected"], units["windows_rejected"])
    having = units.filter(pc.greater(rejected, 0)).sort_by([("shard_id", "ascending"), ("block", "ascending")])
    found: list[pa.Table] = []
    for unit in having.select(["shard_id", "block"]).slice(0, _FILES).to_pylist():
        table = io.read_parquet(io.join(directory, "rejects", unit_name(unit["shard_id"], unit["block"])), _COLUMNS)
        damage = table.filter(pc.invert(pc.is_in(table["reason"], pa.array(sorted(BENIGN)))))
        found.append(damage.slice(0, most))
        most -= len(found[-1])
        if most == 0:
            break
    return pa.concat_tables(found) if found else pa.table({name: [] for name in _COLUMNS})
