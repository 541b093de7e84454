"""Checks of an embedding run: that it is what was written, file by file, and that its counts add up."""

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.problems import Problem, Problems
from cptsel.pipeline.artifacts.run import MEND, rows_schema, unit_name
from cptsel.pipeline.artifacts.seal import SMALL_FILES, broken_small_files, read_seal
from cptsel.pipeline.config import VerifyConfig
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import UsageError
from cptsel.schemas.arrow import COUNT_COLUMNS, RUN_SHARDS, UNITS, check_schema
from cptsel.schemas.headers import RunHeader
from cptsel.schemas.validation import validate

STEP = "units"
_UNITS_A_TASK = 64


@dataclass(frozen=True)
class CheckUnits:
    """Rows of ``units.parquet`` → [problems, the first of them]: their files, read from end to end."""

    directory: str
    work: str
    header: RunHeader

    def __call__(self, units: list[dict[str, Any]]) -> list[Any]:
        problems = Problems()
        schema = rows_schema([self.header])
        for unit in units:
            name = unit_name(unit["shard_id"], unit["block"])
            if not all(io.exists(io.join(self.directory, folder, name)) for folder in ("embeddings", "rejects")):
                continue  # as the counts have told; so it is with another size
            found = read_seal(self.directory, name)
            if found["bytes"] != unit["bytes"]:
                continue
            for folder, column in (("embeddings", "sha256"), ("rejects", "rejects_sha256")):
                if found[column] != unit[column]:
                    problems.add(f"{folder}/{name}", None, "is not the file that was written: SHA-256 differs", MEND)
            if found["sha256"] == unit["sha256"]:
                table = io.read_parquet(io.join(self.directory, "embeddings", name))
                if problem := check_schema(table.schema, schema):
                    problems.add(f"embeddings/{name}", None, problem, MEND)
                elif table.num_rows != unit["windows_embedded"]:
                    what = f"has {table.num_rows} rows, but units.parquet says {unit['windows_embedded']}"
                    problems.add(f"embeddings/{name}", None, what, MEND)
                elif set(table["shard_id"].to_pylist()) - {unit["shard_id"]}:
                    problems.add(f"embeddings/{name}", None, "holds rows of another shard", MEND)
        io.write_bytes(io.join(self.work, STEP, unit_name(units[0]["shard_id"], units[0]["block"])), b"")
        return [problems.total, [astuple(problem) for problem in problems.listed()]]


def check_run(directory: str, problems: Problems) -> RunHeader | None:
    """``run.json`` and the small files beside it. Returns the header, None where it can't be read."""
    try:
        header = validate(io.read_json(io.join(directory, "run.json")), "run")
    except (UsageError, ValueError) as error:
        problems.add("run.json", None, str(error).removeprefix("run.json: "))
        return None
    if not io.exists(io.join(directory, outputs.SUCCESS)):
        raise UsageError(f"{directory} is not finished (no _SUCCESS); run the same cptsel embed command again")
    for broken in broken_small_files(directory, header):
        file, _, what = broken.partition(" ")
        problems.add(file, None, what)
    return header


def check_counts(directory: str, header: RunHeader, problems: Problems) -> str:
    """Counts of units, shards and the whole add up, and no file is missing or too many. Returns the extent."""
    tables = {name: io.read_parquet(io.join(directory, name)) for name in SMALL_FILES}
    for name, schema in (("shards.parquet", RUN_SHARDS), ("units.parquet", UNITS)):
        if problem := check_schema(tables[name].schema, schema):
            problems.add(name, None, problem)
            return "stopped"
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
    _check_files(directory, units, problems)
    return f"{len(units):,} units of {len(shards):,} shards"


def _sums(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Σ of the int64 values with each of some keys; 0 where a key has none."""
    there, index = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(there) + 1, np.int64)  # the last is that of no key
    np.add.at(sums, index, values)
    place = np.searchsorted(there, wanted)
    found = np.append(there, -1)[place] == wanted
    return np.where(found, sums[place], 0)


def _check_files(directory: str, units: pa.Table, problems: Problems) -> None:
    """No file of a unit is missing, of another size, or too many."""
    sizes = outputs.tree_sizes(directory)
    of_folder = {
        folder: {path[len(folder) + 1 :]: size for path, size in sizes.items() if path.startswith(f"{folder}/")}
        for folder in ("embeddings", "rejects")
    }
    names = map(unit_name, units["shard_id"].to_pylist(), units["block"].to_pylist())
    expected = dict(zip(names, units["bytes"].to_pylist(), strict=True))
    embeddings, rejects = of_folder["embeddings"], of_folder["rejects"]
    for name, size in expected.items():
        if embeddings.get(name) == size and name in rejects:
            continue
        for folder, there in of_folder.items():
            if name not in there:
                problems.add(f"{folder}/{name}", None, "is missing", MEND)
        if embeddings.get(name, size) != size:
            problems.add(f"embeddings/{name}", None, f"has {embeddings[name]:,} bytes, not {size:,}", MEND)
    for folder, there in of_folder.items():
        for name in there:
            if name not in expected and not outputs.temporary_of(f"{folder}/{name}"):
                problems.add(f"{folder}/{name}", None, "is of no unit of this run", "delete it")


def check_units(
    directory: str, header: RunHeader, config: VerifyConfig, problems: Problems, progress: Progress | None
) -> str:
    """Every file of embeddings and rejects, in parallel. Returns the extent."""
    from cptsel.pipeline.verification.scratch import scratch_steps  # here, as inspect needs no Beam

    units = io.read_parquet(io.join(directory, "units.parquet")).to_pylist()
    tasks = [units[first : first + _UNITS_A_TASK] for first in range(0, len(units), _UNITS_A_TASK)]
    with scratch_steps(directory, config, progress) as steps:
        results = steps.run(STEP, CheckUnits(directory, steps.work, header), tasks)
    for total, kept in results:
        problems.total += total
        problems.kept += [Problem(*entry) for entry in kept]
    return f"{2 * len(units):,} files, {sum(unit['bytes'] for unit in units):,} bytes of embeddings"
