"""The rows of a shard that take part in a selection: without what is excluded, by group and sample_id, checked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline.artifacts.embeddings import read_rows
from cptsel.pipeline.artifacts.manifest import ALL, NO_GROUP
from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.errors import BadInputError
from cptsel.schemas.arrow import LOCATOR_COLUMNS

_SCALARS = ["pool_prob", "loss_sum", "grad_norm", "sketch_norm", "validation_norm"]
_EXCLUSION_KEYS = ("sample_id", "doc_key", "doc_id")


@dataclass(frozen=True, eq=False)
class ShardRows:
    """Rows of one shard, sorted by group and sample_id.

    Attributes:
        shard: the shard.
        table: locator columns, ``group`` and the scalar columns of the first checkpoint, with ``base_loss_sum`` where
            the schema has it.
        source: (n,) int64, the place of each row in the shard's files.
        checkpoints: at every checkpoint loss_sum, sketch_norm and validation_norm, (n,) float64 each.
    """

    shard: RunShard
    table: pa.Table
    source: np.ndarray
    checkpoints: tuple[dict[str, np.ndarray], ...]


def shard_columns(schema: pa.Schema, group_columns: Sequence[str]) -> list[str]:
    """The columns that ``read_shard`` reads for selections by any of some group columns."""
    base = ["base_loss_sum"] if "base_loss_sum" in schema.names else []
    return [*LOCATOR_COLUMNS, *_SCALARS, *base, *group_columns]


def read_shard(
    shard: RunShard, schema: pa.Schema, group_by: str | None, exclude: frozenset[str], there: pa.Table | None = None
) -> ShardRows | None:
    """The rows of a shard that are left, or None.

    Args:
        shard: one shard of a run.
        schema: required schema of its embedding files.
        group_by: the group column, None for one group of all.
        exclude: names and hashes to leave out.
        there: all rows of the shard, with ``shard_columns`` at least, where they were read before.

    Raises:
        BadInputError: a file is damaged, a sample_id occurs twice, checkpoints hold different samples, or a value makes
            no sense.
    """
    columns = shard_columns(schema, [group_by] if group_by else [])
    rows = read_rows(shard, schema, columns) if there is None else there.select(columns)
    kept = np.flatnonzero(~_excluded(rows, exclude))
    if not len(kept):
        return None
    ids = rows.column("sample_id")
    rows = _with_group(rows, group_by).take(kept)
    order = pc.sort_indices(rows, sort_keys=[("group", "ascending"), ("sample_id", "ascending")]).to_numpy()
    rows = rows.take(order).combine_chunks()
    _check_rows(shard, rows)
    source = kept[order]
    checkpoints = [_checkpoint(rows)]
    for other in shard.later:
        later = read_rows(other, schema, ["sample_id", "n_tokens", *_SCALARS])
        if not later.column("sample_id").equals(ids):
            raise BadInputError(
                f"{_folder(other)}: shard {other.source['path']} does not hold the samples of {_folder(shard)} row by "
                "row; embed the same corpus with the same options at every checkpoint"
            )
        later = later.take(source)
        _check_rows(other, later)
        checkpoints.append(_checkpoint(later))
    return ShardRows(shard, rows, source, tuple(checkpoints))


def matched_exclusions(shard: RunShard, schema: pa.Schema, exclude: frozenset[str]) -> list[str]:
    """Entries of the exclusion list that name a row of the shard, sorted."""
    if not exclude:
        return []
    rows = read_rows(shard, schema, [*_EXCLUSION_KEYS, "content_hash"])
    names = {name for column in _EXCLUSION_KEYS for name in rows.column(column).to_pylist()}
    names |= {digest.hex() for digest in rows.column("content_hash").to_pylist()}
    return sorted(exclude & names)


def float_column(rows: pa.Table, name: str) -> np.ndarray:
    """A numeric column as float64 (n,)."""
    return rows.column(name).to_numpy().astype(np.float64)


def _checkpoint(rows: pa.Table) -> dict[str, np.ndarray]:
    return {name: float_column(rows, name) for name in ("loss_sum", "sketch_norm", "validation_norm")}


def _excluded(rows: pa.Table, exclude: frozenset[str]) -> np.ndarray:
    """(n,) bool: rows of which a name or the content hash is in the list."""
    excluded = np.zeros(rows.num_rows, dtype=bool)
    if not exclude:
        return excluded
    names = pa.array(sorted(exclude), pa.string())
    for column in _EXCLUSION_KEYS:
        excluded |= pc.is_in(rows.column(column), value_set=names).to_numpy()
    hashes = rows.column("content_hash").to_pylist()
    return excluded | np.fromiter((digest.hex() in exclude for digest in hashes), dtype=bool, count=len(hashes))


def _with_group(rows: pa.Table, group_by: str | None) -> pa.Table:
    """Add the column ``group``; the run's own group column, if it has that name, has served its purpose."""
    if group_by is None:
        values = pa.chunked_array([pa.array([ALL] * rows.num_rows, pa.string())])
    else:
        values = rows.column(group_by).fill_null(NO_GROUP)
        rows = rows.drop_columns([group_by])
    return rows.append_column("group", values)


def _check_rows(shard: RunShard, rows: pa.Table) -> None:
    """Refuse rows that would make a mass or a weight meaningless."""
    n_tokens, pool_prob = rows.column("n_tokens").to_numpy(), rows.column("pool_prob").to_numpy()
    numbers = {
        name: rows.column(name).to_numpy() for name in ("sketch_norm", "validation_norm", "grad_norm", "loss_sum")
    }
    base_loss = rows.column("base_loss_sum").to_numpy() if "base_loss_sum" in rows.column_names else np.zeros(0)
    problems = {
        "its sample_id occurs twice": _repeated(rows.column("sample_id")),
        "its n_tokens is below 1": n_tokens < 1,
        "its pool_prob is not in (0, 1]": ~((pool_prob > 0) & (pool_prob <= 1)),
        "its sketch_norm is not a finite number above 0": ~(
            np.isfinite(numbers["sketch_norm"]) & (numbers["sketch_norm"] > 0)
        ),
        **{
            f"its {name} is not a finite number of at least 0": ~(np.isfinite(numbers[name]) & (numbers[name] >= 0))
            for name in ("validation_norm", "grad_norm")
        },
        "its loss_sum is not a finite number": ~np.isfinite(numbers["loss_sum"]),
        "its base_loss_sum is not a finite number": ~np.isfinite(base_loss),
    }
    for problem, found in problems.items():
        if found.any():
            sample = rows["sample_id"][int(np.argmax(found))]
            raise BadInputError(
                f"{_folder(shard)}: shard {shard.source['path']}, sample {sample}: {problem}; embed this corpus again"
            )


def _folder(shard: RunShard) -> str:
    return shard.files[0].rsplit("/", 1)[0]


def _repeated(ids: pa.ChunkedArray) -> np.ndarray:
    """(n,) bool: values that an earlier row has too."""
    repeated = np.zeros(len(ids), dtype=bool)
    if pc.count_distinct(ids).as_py() < len(ids):
        repeated[:] = True
        repeated[np.unique(ids.to_numpy().astype(str), return_index=True)[1]] = False
    return repeated
