"""Checks of an embedding run by its small files and the names of all others: that counts add up and no file is lost."""

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.artifacts.run import MEND, unit_name
from cptsel.pipeline.summary import counted
from cptsel.schemas.arrow import COUNT_COLUMNS, RUN_SHARDS, UNITS, check_schema
from cptsel.schemas.headers import RunHeader

#: Columns of the small files that counts and names are made of.
_COLUMNS = {
    "shards.parquet": ["shard_id", "rows", "tokens", "bytes_lost"],
    "units.parquet": ["shard_id", "block", *COUNT_COLUMNS, "bytes"],
}


def check_counts(directory: str, header: RunHeader, problems: Problems, files: outputs.Listing | None = None) -> str:
    """Counts of units, shards and the whole add up, and no file is missing or too many.

    Args:
        files: what is there; with sizes, sizes are looked at too. By default the directory is listed with them.

    Returns:
        The extent.
    """
    tables = {}
    for name, schema in (("shards.parquet", RUN_SHARDS), ("units.parquet", UNITS)):
        path = io.join(directory, name)
        if problem := check_schema(io.read_parquet_schema(path), schema):
            problems.add(name, None, problem)
            return "stopped"
        tables[name] = io.read_parquet(path, _COLUMNS[name])
    units, shards = tables["units.parquet"], tables["shards.parquet"]
    for name in COUNT_COLUMNS:
        file, rows = ("shards.parquet", shards) if name == "bytes_lost" else ("units.parquet", units)
        added = int(rows[name].to_numpy().sum())
        if added != header["totals"][name]:
            problems.add(file, None, f"{name} add up to {added:,}, but run.json says {header['totals'][name]:,}")
    of, shard_ids = units["shard_id"].to_numpy(), shards["shard_id"].to_numpy()
    for column, of_units in (("rows", "rows_read"), ("tokens", "tokens")):
        added_up = _sums(of, units[of_units].to_numpy(), shard_ids)
        said = shards[column].to_numpy()
        for row in np.flatnonzero(added_up != said).tolist():
            what = f"{column} is {said[row]:,}, but its units add up to {added_up[row]:,}"
            problems.add("shards.parquet", row, what)
    if files is None:
        files = outputs.Listing(directory)
        files.sizes()
    _check_files(files, units, problems)
    return f"{counted(len(units), 'unit')} of {counted(len(shards), 'shard')}"


def _sums(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Σ of the int64 values with each of some keys; 0 where a key has none."""
    there, index = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(there) + 1, np.int64)  # the last is that of no key
    np.add.at(sums, index, values)
    place = np.searchsorted(there, wanted)
    found = np.append(there, -1)[place] == wanted
    return np.where(found, sums[place], 0)


def _check_files(files: outputs.Listing, units: pa.Table, problems: Problems) -> None:
    """No file of a unit is missing, too many or, where sizes are known, of another size."""
    names = list(map(unit_name, units["shard_id"].to_pylist(), units["block"].to_pylist()))
    expected = set(names)
    for folder in ("embeddings", "rejects"):
        there = set(files.folders.get(folder, ()))
        if there != expected:
            for name in [name for name in names if name not in there]:
                problems.add(f"{folder}/{name}", None, "is missing", MEND)
            for name in sorted(there - expected):
                if not outputs.temporary_of(f"{folder}/{name}"):
                    problems.add(f"{folder}/{name}", None, "is of no unit of this run", "delete it")
    if files.has_sizes:
        sizes = files.sizes()
        for name, size in zip(names, units["bytes"].to_pylist(), strict=True):
            found = sizes.get(f"embeddings/{name}", size)
            if found != size:
                problems.add(f"embeddings/{name}", None, f"has {counted(found, 'byte')}, not {size:,}", MEND)
