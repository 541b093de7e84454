"""What is in the output directory when a run begins: nothing, a part of the same run, all of it, or another run."""

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.run import unit_name
from cptsel.pipeline.artifacts.seal import SMALL_FILES, broken_small_files
from cptsel.pipeline.config import to_yaml
from cptsel.pipeline.corpus.shards import Shard
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.finish import write_shards
from cptsel.pipeline.embedding.plan import refuse_difference
from cptsel.schemas.headers import RunHeader
from cptsel.schemas.validation import validate


def begin(config: EmbedConfig, header: RunHeader, shards: list[Shard]) -> str:
    """Start a run, resume it, or find it done; returns the status word of the summary.

    Raises:
        UsageError: the directory holds another run.
    """
    path = io.join(config.out, "run.json")
    status = "done"
    if io.exists(path):
        if config.overwrite:
            io.delete(io.join(config.out, "_SUCCESS"))
            for folder in ("embeddings", "rejects"):
                if io.list_names(io.join(config.out, folder)):
                    io.delete_tree(io.join(config.out, folder))
            io.delete(path)  # last: while it is there, a rerun knows that files of another run may be left
        else:
            old = io.read_json(path)
            refuse_difference(config.out, old, header, _changed_shards(config.out, shards))
            if io.exists(io.join(config.out, "_SUCCESS")):
                if _all_there(config.out):
                    return "already done"
                io.delete(io.join(config.out, "_SUCCESS"))
            status = "resumed"
    outputs.write_config(config.out, "embed", to_yaml(config))
    write_shards(config.out, shards)
    validate(header, "run")
    io.write_json(path, header)
    return status


def _all_there(out: str) -> bool:
    """Whether a finished run still has the files of all its units, in their sizes, and its small files as written."""
    sizes = outputs.tree_sizes(out)
    if not set(SMALL_FILES) <= sizes.keys() or broken_small_files(out, io.read_json(io.join(out, "run.json"))):
        return False
    units = io.read_parquet(io.join(out, "units.parquet"), ["shard_id", "block", "bytes"]).to_pylist()
    names = [unit_name(unit["shard_id"], unit["block"]) for unit in units]
    return all(
        sizes.get(f"embeddings/{name}") == unit["bytes"] and f"rejects/{name}" in sizes
        for name, unit in zip(names, units, strict=True)
    )


def _changed_shards(out: str, shards: list[Shard]) -> list[str]:
    """Paths of shards that came, went or changed since the run in ``out`` was begun."""
    path = io.join(out, "shards.parquet")
    if not io.exists(path):
        return []
    table = io.read_parquet(path, ["path", "sha256"])
    old = set(zip(table["path"].to_pylist(), table["sha256"].to_pylist(), strict=True))
    return sorted({path for path, _ in old ^ {(shard.path, shard.sha256) for shard in shards}})
