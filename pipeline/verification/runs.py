"""Checks of an embedding run: that it is what was written, file by file; ``counts`` holds what it adds up to."""

from dataclasses import dataclass
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.artifacts.run import MEND, rows_schema, unit_name
from cptsel.pipeline.artifacts.seal import broken_small_files, read_seal
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.summary import counted
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.schemas.arrow import check_schema
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
                    what = f"has {counted(table.num_rows, 'row')}, but units.parquet says {unit['windows_embedded']}"
                    problems.add(f"embeddings/{name}", None, what, MEND)
                elif set(table["shard_id"].to_pylist()) - {unit["shard_id"]}:
                    problems.add(f"embeddings/{name}", None, "holds rows of another shard", MEND)
        io.write_scratch(io.join(self.work, STEP, unit_name(units[0]["shard_id"], units[0]["block"])), b"")
        return problems.handed()


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


def check_units(
    directory: str, header: RunHeader, config: VerifyConfig, problems: Problems, progress: Progress | None
) -> str:
    """Every file of embeddings and rejects, in parallel. Returns the extent."""
    from cptsel.pipeline.verification.scratch import scratch_steps  # here, as inspect needs no Beam

    units = io.read_parquet(io.join(directory, "units.parquet")).to_pylist()
    tasks = [units[first : first + _UNITS_A_TASK] for first in range(0, len(units), _UNITS_A_TASK)]
    with scratch_steps(directory, config, progress) as steps:
        results = steps.run(STEP, CheckUnits(directory, steps.work, header), tasks)
    for found in results:
        problems.take(*found)
    return f"{counted(2 * len(units), 'file')}, {counted(sum(unit['bytes'] for unit in units), 'byte')} of embeddings"
