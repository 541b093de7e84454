"""What is in the output directory when a run begins: nothing, a part of the same run, all of it, or another run."""

from typing import NamedTuple

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.run import unit_name
from cptsel.pipeline.artifacts.seal import broken_small_files
from cptsel.pipeline.artifacts.writing import Output
from cptsel.pipeline.config import to_yaml
from cptsel.pipeline.corpus.shards import Shard
from cptsel.pipeline.embedding.begun import begun_run
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.finish import write_shards
from cptsel.pipeline.embedding.lookahead import put_in_place
from cptsel.pipeline.embedding.plan import refuse_difference
from cptsel.pipeline.errors import UsageError
from cptsel.schemas.headers import RunHeader
from cptsel.schemas.validation import validate


def begin(config: EmbedConfig, output: Output, header: RunHeader, shards: list[Shard]) -> str:
    """Start a run, resume it, or find it done; returns the status word of the summary.

    Raises:
        UsageError: the directory holds another run, or its run.json is damaged.
    """
    path = io.join(config.out, "run.json")
    status = "done"
    if config.overwrite:
        output.begin(to_yaml(config))
    elif old := begun_run(config):
        refuse_difference(config, old, header, *changed_shards(config.out, shards))
        if io.exists(io.join(config.out, outputs.SUCCESS)):
            if _all_there(config.out):
                return "already done"
            io.delete(io.join(config.out, outputs.SUCCESS))
        status = "resumed"
    outputs.write_config(config.out, "embed", to_yaml(config))
    put_in_place(config.out)
    write_shards(config.out, shards)
    validate(header, "run")
    io.write_json(path, header)
    return status


def is_finished(out: str) -> bool:
    """Whether the run is marked as done."""
    return io.exists(io.join(out, outputs.SUCCESS))


def refuse_other_run(config: EmbedConfig, header: RunHeader, shards: list[Shard]) -> None:
    """Raise UsageError where the run that was begun in ``--out`` is another one; the sentence names the difference."""
    begun = begun_run(config)
    if begun is None:
        raise UsageError(f"{config.out}: run.json was taken away; run all commands again")
    refuse_difference(config, begun, header, *changed_shards(config.out, shards))


def shards_of_run(out: str) -> list[Shard]:
    """The shards of a run that was begun, as its table says, without their blocks."""
    names = ["shard_id", "uri", "path", "format", "compression", "bytes", "sha256"]
    rows = io.read_parquet(io.join(out, "shards.parquet"), names).to_pylist()
    return [Shard(**row, blocks=()) for row in rows]


def _all_there(out: str) -> bool:
    """Whether a finished run is whole: its small files, and every file of its units, read from end to end.

    Files that are not what was written are deleted, so that their units are made anew.
    """
    header = validate(io.read_json(io.join(out, "run.json")), "run")
    if broken_small_files(out, header):
        return False
    units = io.read_parquet(io.join(out, "units.parquet")).to_pylist()
    wanted = {f"embeddings/{unit_name(unit['shard_id'], unit['block'])}": unit["sha256"] for unit in units}
    wanted |= {f"rejects/{unit_name(unit['shard_id'], unit['block'])}": unit["rejects_sha256"] for unit in units}
    there = set(outputs.list_tree(out))
    found = outputs.hash_files(out, sorted(there & wanted.keys()))
    rotten = [name for name, (digest, _) in found.items() if digest != wanted[name]]
    io.delete_files(out, rotten)
    return not rotten and wanted.keys() <= there


class Changes(NamedTuple):
    """Paths of shards that came, went or changed since a run was begun, and whether all of them only came."""

    paths: list[str]
    only_new: bool


def changed_shards(out: str, shards: list[Shard]) -> Changes:
    """How a corpus differs from that of the run in ``out``, as far as the run's table is there."""
    path = io.join(out, "shards.parquet")
    if not io.exists(path):
        return Changes([], False)
    rows = io.read_parquet(path).to_pylist()
    old = {(row["path"], row["sha256"], row.get("companion_sha256")) for row in rows}
    new = {(shard.path, shard.sha256, shard.companion and shard.companion.sha256) for shard in shards}
    return Changes(sorted({path for path, *_ in old ^ new}), old < new)
