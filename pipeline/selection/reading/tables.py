"""Vectors in the files that steps of a global selection hand to each other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline.selection.reading.cells import Cell


def vectors_table(cell: Cell, keep: np.ndarray, **columns: np.ndarray) -> pa.Table:
    """Names, tokens, samples, vectors, states and further columns of some atoms of a cell."""
    assert cell.vectors is not None
    values: dict[str, Any] = {
        "sample_id": pa.array(cell.names, pa.string()).filter(pa.array(keep)),
        "n_tokens": cell.n_tokens[keep],
        "samples": cell.samples[keep],
        "free": cell.free[keep],
        "rounds": cell.rounds[keep],
        "x": as_lists(cell.vectors[keep]),
    }
    if cell.validation is not None:
        values["validation"] = as_lists(cell.validation[keep])
    return pa.table(values | {name: found[keep] for name, found in columns.items()})


def as_lists(x: np.ndarray) -> pa.FixedSizeListArray:
    """(n, k) as an array of lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(x).reshape(-1)), x.shape[1])


def matrix(rows: pa.Table, name: str = "x") -> np.ndarray:
    """A column of lists as (n, k)."""
    lists = rows[name].combine_chunks()
    if isinstance(lists, pa.ChunkedArray):  # of no chunks
        lists = pa.concat_arrays(lists.chunks)
    return lists.flatten().to_numpy().reshape(rows.num_rows, lists.type.list_size)


def places(ids: Sequence[str], names: Sequence[str] | np.ndarray) -> np.ndarray:
    """(n,) int64 place of each id among the sorted names, -1 where it is none of them."""
    known = np.asarray(names)
    place = np.searchsorted(known, np.asarray(ids)).clip(max=len(known) - 1)
    return np.where(known[place] == np.asarray(ids), place, -1)
