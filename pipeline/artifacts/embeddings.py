"""Reading the embedding files of a shard: narrow columns, and directions; each file is checked before it is used."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import MEND, RunShard
from cptsel.pipeline.artifacts.seal import footer_sha256
from cptsel.pipeline.corpus.pool import Pool
from cptsel.pipeline.errors import BadInputError
from cptsel.pipeline.summary import counted
from cptsel.schemas.arrow import check_schema


def read_rows(shard: RunShard, schema: pa.Schema, columns: list[str]) -> pa.Table:
    """Columns other than the vectors of all rows of a shard, in corpus order.

    Dictionary columns come as strings, ``shard_id`` as the shard's number in the union.

    Raises:
        UsageError: a file can't be read as Parquet.
        BadInputError: a file's schema or number of rows is not what the run says.
    """
    tables = []
    by = shard.pools[0].by if shard.pools and "pool_prob" in columns else None
    wanted = [*columns, by] if by is not None and by not in columns else columns
    for path, rows, footer in zip(shard.files, shard.rows, shard.footers, strict=True):
        table = _read_checked(path, rows, footer, schema, wanted)
        for index, name in enumerate(table.column_names):
            if pa.types.is_dictionary(table.schema.field(index).type):
                table = table.set_column(index, name, table.column(name).cast(pa.string()))
            elif name == "shard_id":
                ids = pa.array(np.full(rows, shard.shard_id, dtype=np.int32))
                table = table.set_column(index, schema.field(name), ids)
        if shard.pools and "pool_prob" in columns:
            groups = table[by].to_pylist() if by is not None else [None] * rows
            table = table.set_column(
                table.column_names.index("pool_prob"), schema.field("pool_prob"), pa.array(_joint(shard.pools, groups))
            )
        tables.append(table.select(columns))
    if not tables:
        fields = [schema.field(name) for name in columns]
        types = [pa.string() if pa.types.is_dictionary(field.type) else field.type for field in fields]
        return pa.schema([pa.field(f.name, t) for f, t in zip(fields, types, strict=True)]).empty_table()
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks()


def _joint(pools: Sequence[Pool], groups: Sequence[str | None]) -> np.ndarray:
    """(n,) float64: with which probability a document of the group came into one of the pools."""
    of_group = {group: min(1.0, sum(pool.range_of(group).rate for pool in pools)) for group in set(groups)}
    return np.array([of_group[group] for group in groups], np.float64)


def read_directions(shard: RunShard, schema: pa.Schema, column: str = "direction") -> Iterator[np.ndarray]:
    """Unit directions of a shard, one embedding file after the other: (rows, k) float32 each.

    Args:
        shard: one shard of a run.
        schema: required schema of its embedding files.
        column: ``direction``, or ``validation`` for the sketch that no selection optimises.

    Raises:
        UsageError: a file can't be read as Parquet.
        BadInputError: a file's schema or number of rows is not what the run says, or a value is not finite.
    """
    columns = [column] + [name for name in schema.names if name == f"{column}_scale"]
    k = schema.field(column).type.list_size
    for path, rows, footer in zip(shard.files, shard.rows, shard.footers, strict=True):
        table = _read_checked(path, rows, footer, schema, columns)
        values = table.column(column).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        direction = values.reshape(rows, k).astype(np.float32)
        if len(columns) > 1:
            direction *= table.column(columns[1]).to_numpy()[:, None]
        if not np.isfinite(direction).all():
            row = int(np.argmin(np.isfinite(direction).all(axis=1)))
            raise BadInputError(f"{path}: row {row} of column {column!r} is not finite; embed this shard again")
        yield direction


def _read_checked(path: str, rows: int, footer: str, schema: pa.Schema, columns: list[str]) -> pa.Table:
    """Columns of one embedding file, held against the run's schema and count of rows."""
    try:
        with io.open_read(path) as handle:
            if footer_sha256(handle) != footer:
                raise BadInputError(f"{path}: is not the file that was embedded (its footer differs); {MEND}")
            handle.seek(0)
            file = pq.ParquetFile(handle, page_checksum_verification=True)
            problem = check_schema(file.schema_arrow, pa.schema([schema.field(name) for name in columns]))
            if problem is None and file.metadata.num_rows != rows:
                problem = f"it has {counted(file.metadata.num_rows, 'row')}, units.parquet says {rows}"
            if problem is not None:
                raise BadInputError(f"{path}: {problem}; restore it, or embed again")
            return file.read(columns=columns, use_threads=False)  # as in io.read_parquet
    except (pa.ArrowException, OSError) as error:
        detail = " ".join(str(error).split())
        raise BadInputError(f"{path}: can't be read as Parquet ({detail}); restore it, or embed again") from error
