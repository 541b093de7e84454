"""The points of the map as a table, for viewers of embeddings: ``cptsel report --map``."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cptsel.pipeline import io
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.reporting.facts import Facts
from cptsel.schemas.arrow import MAP

_MARK = {"cptsel": "report --map"}  # of the file, by which a later call knows that it may replace it


def points_table(
    rows: pa.Table, xy: np.ndarray, selections: Sequence[Facts], texts: Mapping[str, str | None]
) -> pa.Table:
    """One row a point (schemas.arrow.MAP), in the order of ``rows``.

    Args:
        rows: of the population: sample_id, group, n_tokens, loss and, where it is known, rise.
        xy: (n, 2) places.
        selections: one or two.
        texts: whole, by sample_id.
    """
    ids = rows["sample_id"].to_pylist()
    columns = {
        "x": xy[:, 0].astype(np.float32),
        "y": xy[:, 1].astype(np.float32),
        "text": [texts.get(name) for name in ids],
        **{
            name: rows[name] for name in ("group", "sample_id", "n_tokens", "loss", "rise") if name in rows.schema.names
        },
    }
    for head, facts in zip(("", "other_"), selections, strict=False):
        picks = facts.picks.select(["sample_id", "weight", "repeat"]).to_pylist()
        found = {pick["sample_id"]: (pick["weight"], pick["repeat"]) for pick in picks}
        columns[f"{head}chosen"] = [name in found for name in ids]
        columns[f"{head}weight"] = [found[name][0] if name in found else None for name in ids]
        columns[f"{head}plays"] = [found[name][1] if name in found else 0 for name in ids]
    nothing = pa.nulls(len(ids))
    return pa.table({field.name: columns.get(field.name, nothing) for field in MAP}).cast(MAP)


def check_points_file(path: str, overwrite: bool) -> None:
    """Refuse a file that is there, unless ``overwrite`` is on and a report wrote it.

    Raises:
        UsageError: it is there.
    """
    if not io.exists(path):
        return
    if not overwrite:
        raise UsageError(f"--map {path} exists; pass --overwrite or another --map")
    try:
        with io.open_read(path) as handle:
            found = pq.ParquetFile(handle).schema_arrow.metadata or {}
    except (OSError, pa.ArrowException):
        found = {}
    if any(found.get(key.encode()) != value.encode() for key, value in _MARK.items()):
        raise UsageError(f"--map {path} was not written by cptsel report; choose another --map")


def write_points(path: str, table: pa.Table) -> None:
    """Write the table of ``points_table``; equal tables give equal bytes."""
    io.write_parquet(path, table, _MARK)
