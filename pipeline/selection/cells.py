"""Cells: the candidate samples of one group in one shard, in order of sample_id.

Rows reach a method sorted by sample_id and without what is excluded, so that nothing it does can depend on how the
corpus was cut into shards' files and blocks. A worker holds one shard's vectors at a time, as float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline.errors import BadInputError
from cptsel.pipeline.runs import RunShard, read_directions, read_rows
from cptsel.schemas.arrow import LOCATOR_COLUMNS

ALL = "all"  # the one group where --group-by is not given
NO_GROUP = "(none)"  # the group of samples whose group column is null

_SCALARS = ["pool_prob", "loss_sum", "grad_norm", "sketch_norm"]
_EXCLUSION_KEYS = ("sample_id", "doc_key", "doc_id")


@dataclass(frozen=True)
class CellReader:
    """How cells are read: everything a worker needs besides the shard.

    Attributes:
        schema: required schema of the embedding files.
        group_by: the group column, None for one group of all.
        similarity: ``euclidean``: vectors are mean token gradients, sketch_norm · direction / n_tokens;
            ``cosine``: unit directions.
        exclude: doc_ids, doc_keys, sample_ids and hexadecimal content hashes to leave out.
    """

    schema: pa.Schema
    group_by: str | None = None
    similarity: str = "euclidean"
    exclude: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Cell:
    """Candidate samples of one group in one shard.

    Attributes:
        group: name of the group.
        rows: locator columns, pool_prob, loss_sum, grad_norm, sketch_norm and group; sorted by sample_id.
        vectors: (n, k) float32 in the same order, or None where the method asks for none.
    """

    group: str
    rows: pa.Table
    vectors: np.ndarray | None = None

    def __len__(self) -> int:
        return self.rows.num_rows

    def column(self, name: str) -> np.ndarray:
        """A numeric column as float64 (n,)."""
        return self.rows.column(name).to_numpy().astype(np.float64)

    @property
    def sample_ids(self) -> list[str]:
        return self.rows.column("sample_id").to_pylist()

    @property
    def n_tokens(self) -> np.ndarray:
        """(n,) int64 predicted tokens."""
        return self.rows.column("n_tokens").to_numpy().astype(np.int64)

    @property
    def mass(self) -> np.ndarray:
        """(n,) float64, tokens of the corpus that each sample stands for: n_tokens / pool_prob."""
        return self.column("n_tokens") / self.column("pool_prob")


def read_cells(shard: RunShard, reader: CellReader, vectors: bool = False) -> Iterator[Cell]:
    """The cells of a shard by ascending group; each is a view of arrays that the whole shard shares.

    Raises:
        BadInputError: a file is damaged, a sample_id occurs twice, or a value makes no sense.
    """
    columns = LOCATOR_COLUMNS + _SCALARS + ([reader.group_by] if reader.group_by else [])
    rows = read_rows(shard, reader.schema, columns)
    kept = np.flatnonzero(~_excluded(rows, reader.exclude))
    if not len(kept):
        return
    rows = _with_group(rows, reader.group_by).take(kept)
    order = pc.sort_indices(rows, sort_keys=[("group", "ascending"), ("sample_id", "ascending")]).to_numpy()
    rows = rows.take(order).combine_chunks()
    _check_rows(shard, rows)
    x = _read_vectors(shard, reader, rows, kept[order]) if vectors else None
    groups = rows.column("group").combine_chunks().dictionary_encode()
    starts = np.flatnonzero(np.diff(groups.indices.to_numpy(), prepend=-1))  # sorted, so each group is one run
    for start, end in zip(starts, [*starts[1:], rows.num_rows], strict=True):
        part = rows.slice(start, end - start)
        yield Cell(part.column("group")[0].as_py(), part, None if x is None else x[start:end])


def cell_statistics(shard: RunShard, reader: CellReader) -> list[dict[str, Any]]:
    """What the budgets need to know of each cell of a shard, from its narrow columns."""
    return [
        {
            "shard_id": shard.shard_id,
            "group": cell.group,
            "samples": len(cell),
            "tokens": int(cell.n_tokens.sum()),
            "mass": float(cell.mass.sum()),
            "grad_norm": float((cell.column("grad_norm") / cell.column("pool_prob")).sum()),
            "longest": int(cell.n_tokens.max()),
        }
        for cell in read_cells(shard, reader)
    ]


def matched_exclusions(shard: RunShard, reader: CellReader) -> list[str]:
    """Entries of the exclusion list that name a row of the shard, sorted."""
    if not reader.exclude:
        return []
    rows = read_rows(shard, reader.schema, [*_EXCLUSION_KEYS, "content_hash"])
    names = {name for column in _EXCLUSION_KEYS for name in rows.column(column).to_pylist()}
    names |= {digest.hex() for digest in rows.column("content_hash").to_pylist()}
    return sorted(reader.exclude & names)


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
    length, norm = rows.column("sketch_norm").to_numpy(), rows.column("grad_norm").to_numpy()
    problems = {
        "its sample_id occurs twice": _repeated(rows.column("sample_id")),
        "its n_tokens is below 1": n_tokens < 1,
        "its pool_prob is not in (0, 1]": ~((pool_prob > 0) & (pool_prob <= 1)),
        "its sketch_norm is not a finite number above 0": ~(np.isfinite(length) & (length > 0)),
        "its grad_norm is not a finite number of at least 0": ~(np.isfinite(norm) & (norm >= 0)),
    }
    for problem, found in problems.items():
        if found.any():
            folder, sample = shard.files[0].rsplit("/", 1)[0], rows["sample_id"][int(np.argmax(found))]
            raise BadInputError(
                f"{folder}: shard {shard.source['path']}, sample {sample}: {problem}; embed this corpus again"
            )


def _repeated(ids: pa.ChunkedArray) -> np.ndarray:
    """(n,) bool: values that an earlier row has too."""
    repeated = np.zeros(len(ids), dtype=bool)
    if pc.count_distinct(ids).as_py() < len(ids):
        repeated[:] = True
        repeated[np.unique(ids.to_numpy().astype(str), return_index=True)[1]] = False
    return repeated


def _read_vectors(shard: RunShard, reader: CellReader, rows: pa.Table, source: np.ndarray) -> np.ndarray:
    """(n, k) float32 vectors of ``rows``, whose places in the shard's files are ``source`` (n,)."""
    k = reader.schema.field("direction").type.list_size
    x = np.empty((len(source), k), dtype=np.float32)
    by_source = np.argsort(source)
    begin = 0
    for direction in read_directions(shard, reader.schema):
        low, high = np.searchsorted(source, [begin, begin + len(direction)], sorter=by_source)
        here = by_source[low:high]
        x[here] = direction[source[here] - begin]
        begin += len(direction)
    if reader.similarity == "cosine":
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    else:
        x *= (rows.column("sketch_norm").to_numpy() / rows.column("n_tokens").to_numpy()).astype(np.float32)[:, None]
    return x
