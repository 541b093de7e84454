"""Statistics of cells that a run keeps, so that planning need not read its embeddings.

They are what ``cell_statistics`` says without exclusions and history, computed by it, bit by bit.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.embeddings import read_rows
from cptsel.pipeline.artifacts.run import EmbeddingRuns, RunShard, open_shards, rows_schema
from cptsel.pipeline.artifacts.seal import CELLS_FILE
from cptsel.pipeline.engine.threads import one_blas_thread
from cptsel.pipeline.errors import CptselError
from cptsel.pipeline.selection.reading.cells import CellReader, CellStatistics, cell_statistics
from cptsel.pipeline.selection.reading.rows import shard_columns
from cptsel.schemas.arrow import CELLS, check_schema
from cptsel.schemas.headers import RunHeader

KEPT_BETA = 1.0  # the default of --interference-beta; another one is computed when it is asked for

_BATCH = 1 << 13  # shards or rows that are Python's at a time


def keep_cells(directory: str, header: RunHeader) -> None:
    """Write ``cells.parquet`` of a run whose units and shards are written.

    Rows that a selection would refuse are left to it to refuse: such a run keeps no statistics.
    """
    path = io.join(directory, CELLS_FILE)
    schema, shards = rows_schema([header]), open_shards(directory, first_id=0)
    groups = list(header["options"].get("group_by") or ())
    rises = "base_loss_sum" in schema.names
    readers = [
        CellReader(schema, group_by, rise=rises, beta=beta)
        for group_by in (None, *groups)
        for beta in ((None, KEPT_BETA) if rises else (None,))
    ]

    def statistics(shard: RunShard) -> list[list[CellStatistics]]:
        rows = read_rows(shard, schema, shard_columns(schema, groups))  # once for all readers
        return [cell_statistics(shard, reader, rows) for reader in readers]

    tables: list[list[pa.Table]] = [[] for _ in readers]
    try:
        with one_blas_thread(), ThreadPoolExecutor(max_workers=8) as pool:
            for start in range(0, len(shards), _BATCH):
                found = list(pool.map(statistics, shards[start : start + _BATCH]))
                for number, reader in enumerate(readers):
                    cells = [cell for of_shard in found for cell in of_shard[number]]
                    tables[number].append(_table(cells, reader.group_by, reader.beta))
    except CptselError:
        io.delete(path)
        return
    every = pa.concat_tables([CELLS.empty_table(), *(table for of_reader in tables for table in of_reader)])
    io.write_parquet(path, every.combine_chunks())


def _table(cells: Sequence[CellStatistics], group_by: str | None, beta: float | None) -> pa.Table:
    columns = {"group_by": [group_by] * len(cells), "beta": [beta] * len(cells)}
    columns |= {"longest_tokens": [cell["longest"]["tokens"] for cell in cells]}
    columns |= {"mean_square": [cell["mean_squares"][0] for cell in cells]}
    plain = [dict(cell) for cell in cells]
    columns |= {name: [cell[name] for cell in plain] for name in CELLS.names if name not in columns}
    return pa.table(columns, schema=CELLS)


def kept_cells(runs: EmbeddingRuns, reader: CellReader) -> list[list[CellStatistics]] | None:
    """What ``cell_statistics`` says of each shard; None where the run does not keep it for such a reader.

    Raises:
        UsageError: the file can't be read.
    """
    header = runs.headers[0]
    plain = not (reader.exclude or reader.history.files or reader.taken) and reader.batch_size == 1
    known = reader.beta in (None, KEPT_BETA) and (not reader.rise or "base_loss_sum" in reader.schema.names)
    if len(runs.headers) > 1 or not (plain and known) or reader.new_gradient is not None:
        return None
    if CELLS_FILE not in header.get("files", {}):
        return None
    table = io.read_parquet(io.join(runs.directories[0], CELLS_FILE))
    if check_schema(table.schema, CELLS):
        return None
    for name, value in (("group_by", reader.group_by), ("beta", reader.beta)):
        table = table.filter(pc.is_null(table[name]) if value is None else pc.equal(table[name], value))
    found: list[list[CellStatistics]] = [[] for _ in runs.shards]
    for batch in table.to_batches(_BATCH):  # all rows at once would be as much again as what is made of them
        for row in batch.to_pylist():
            found[row["shard_id"]].append(_statistics(row, reader.rise))
    return found


def _statistics(row: dict[str, Any], rise: bool) -> CellStatistics:
    """What a row of CELLS says, where all samples are fresh candidates."""
    return {
        "shard_id": row["shard_id"],
        "group": row["group"],
        "samples": row["samples"],
        "tokens": row["tokens"],
        "mass": row["mass"],
        "mass_variance": row["mass_variance"],
        "candidates": row["samples"],
        "candidate_tokens": row["tokens"],
        "fresh": row["samples"],
        "fresh_tokens": row["tokens"],
        "longest": {"samples": 1, "tokens": row["longest_tokens"]},
        "choice_mass": row["choice_mass"],
        "choice_norm": row["choice_norm"],
        "rise": row["rise"] if rise else 0.0,
        "mean_squares": (row["mean_square"],),
        "played": 0,
    }
