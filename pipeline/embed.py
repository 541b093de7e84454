"""``cptsel embed``: stream a corpus through the frozen model and write one sketched gradient a sample.

Reads like DESIGN.md section 4: list the shards, name everything by fingerprints, resume or refuse, embed block by
block on Beam, check that nothing was lost.
"""

import json
import os
import posixpath
import resource
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import apache_beam as beam
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.run import run_fingerprint
from cptsel.pipeline.config import EmbedConfig, to_yaml
from cptsel.pipeline.corpus.documents import ReadOptions
from cptsel.pipeline.corpus.shards import Block, Shard, list_inputs
from cptsel.pipeline.embedding.block import RowOptions, check_counts
from cptsel.pipeline.embedding.estimate import estimate
from cptsel.pipeline.embedding.plan import (
    ModelPlan,
    check_config,
    plan_model,
    refuse_difference,
    run_header,
)
from cptsel.pipeline.embedding.report import check_damage, has_rejects, read_rejects, summary
from cptsel.pipeline.embedding.transforms import (
    CollectSorted,
    EmbedGradients,
    InventoryShards,
    Unit,
    UnitResult,
    unit_path,
)
from cptsel.pipeline.engine.beam import is_local, make_pipeline, pipeline_options
from cptsel.pipeline.engine.progress import Progress, Watch
from cptsel.pipeline.errors import PartialError, UsageError
from cptsel.schemas import arrow
from cptsel.schemas.validation import validate


def embed(config: EmbedConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Run ``cptsel embed``.

    Returns:
        The summary that the command prints.

    Raises:
        UsageError: an option, path or model that can't be used, or an output directory of another run.
        BadInputError: more than ``max_bad_fraction`` of the rows, or of the bytes, gave nothing.
        PartialError: some shards could not be read; the others are done, and a rerun resumes.
    """
    began = time.monotonic()
    config = _with_absolute_paths(config)
    check_config(config)
    _check_out(config.out)
    options = pipeline_options(config.beam_args, config.workers)
    root, files = list_inputs(config.inputs, config.root)
    model = plan_model(config, here=config.dry_run or is_local(options))
    if config.dry_run:
        return estimate(config, model, files)
    if outputs.made_by(config.out) is None:  # mark it as ours before anything else is in it
        outputs.write_config(config.out, "embed", to_yaml(config))
    shards = _inventory(config, files, options)
    header = run_header(config, model, root, shards)
    status = _begin(config, header, shards)
    if status == "already done":
        return summary(config, status, io.read_json(io.join(config.out, "run.json")), [])
    results = _run(config, model, header, shards, options, progress)
    failures = [result.error for result in results if result.error]
    return _finish(config, header, shards, results, failures, status, time.monotonic() - began)


def _with_absolute_paths(config: EmbedConfig) -> EmbedConfig:
    """Workers may stand in other directories, and the saved configuration is to work from any."""
    inputs = tuple("@" + io.absolute(item[1:]) if item[:1] == "@" else io.absolute(item) for item in config.inputs)
    return replace(
        config,
        inputs=inputs,
        model=io.absolute(config.model) if os.path.isdir(config.model) else config.model,
        root=config.root and io.absolute(config.root),
        out=io.absolute(config.out),
        exclude=config.exclude and io.absolute(config.exclude),
    )


def _check_out(out: str) -> None:
    """Refuse to write into what is not an embedding run."""
    if not io.is_remote(out) and os.path.exists(out) and not os.path.isdir(out):
        raise UsageError(f"{out} is a file; choose a directory for --out")
    if outputs.list_tree(out) and outputs.made_by(out) != "embed":
        raise UsageError(f"{out} holds files that cptsel embed did not write; choose another --out")


def _inventory(config: EmbedConfig, files: list, options: Any) -> list[Shard]:
    """Hash every shard and find its blocks; in order of shard_id.

    Raises:
        UsageError: a file can't be read, so the corpus can't be named.
    """
    listing = io.join(config.out, ".work", "inventory.jsonl")
    with make_pipeline(options) as pipeline:
        _ = (
            pipeline
            | "Files" >> beam.Create([(i, uri, path, size) for i, (uri, path, size) in enumerate(files)])
            | "InventoryShards" >> InventoryShards(config.block_bytes)
            | "ToJson" >> beam.Map(_inventory_line)
            | "Collect" >> CollectSorted(listing)
        )
    entries = [json.loads(line) for line in io.read_bytes(listing).decode().splitlines()]
    io.delete_tree(io.join(config.out, ".work"))  # now, so that a finished run which refuses or is done stays as it was
    unread = [f"{entry['uri']}: {entry['error']}" for entry in entries if "error" in entry]
    if unread:
        raise UsageError(f"{unread[0]} ({len(unread)} of {len(files)} shards can't be read); mend or leave it out")
    return sorted((_shard(entry) for entry in entries), key=lambda shard: shard.shard_id)


def _inventory_line(entry: Shard | tuple[str, str]) -> str:
    value = asdict(entry) if isinstance(entry, Shard) else {"uri": entry[0], "error": entry[1]}
    return json.dumps(value, sort_keys=True)


def _shard(entry: dict[str, Any]) -> Shard:
    blocks = entry.pop("blocks")
    return Shard(**entry, blocks=None if blocks is None else tuple(Block(**block) for block in blocks))


def _begin(config: EmbedConfig, header: dict[str, Any], shards: list[Shard]) -> str:
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
    _write_shards(config.out, shards, {})
    validate(header, "run")
    io.write_json(path, header)
    return status


def _all_there(out: str) -> bool:
    """Whether a finished run still has the files of all its units."""
    if not io.exists(io.join(out, "units.parquet")):
        return False
    units = io.read_parquet(io.join(out, "units.parquet"), ["shard_id", "block"])
    pairs = zip(units["shard_id"].to_pylist(), units["block"].to_pylist(), strict=True)
    names = {posixpath.basename(unit_path(out, "embeddings", *pair)) for pair in pairs}
    return all(names <= set(io.list_names(io.join(out, kind))) for kind in ("embeddings", "rejects"))


def _changed_shards(out: str, shards: list[Shard]) -> list[str]:
    """Paths of shards that came, went or changed since the run in ``out`` was begun."""
    path = io.join(out, "shards.parquet")
    if not io.exists(path):
        return []
    table = io.read_parquet(path, ["path", "sha256"])
    old = set(zip(table["path"].to_pylist(), table["sha256"].to_pylist(), strict=True))
    return sorted({path for path, _ in old ^ {(shard.path, shard.sha256) for shard in shards}})


def _run(
    config: EmbedConfig,
    model: ModelPlan,
    header: dict[str, Any],
    shards: list[Shard],
    options: Any,
    progress: Progress | None,
) -> list[UnitResult]:
    """Embed what is still to do; one result a block, sorted."""
    listing = io.join(config.out, ".work", "units.jsonl")
    rows = RowOptions(
        max_tokens=model.max_tokens,
        split_special_tokens=config.split_special_tokens,
        tokens_per_batch=model.tokens_per_batch,
        storage=config.storage,
        groups=config.group_by,
        exclude=config.exclude,
    )
    read = ReadOptions(
        text_field=config.text_field,
        id_field=config.id_field,
        group_by=config.group_by,
        max_line_bytes=config.max_line_bytes,
        block_bytes=config.block_bytes,
        limit=config.limit,
    )
    folder = io.join(config.out, "embeddings")
    expected = sum(len(s.blocks) if s.blocks is not None else _stream_blocks(s, config) for s in shards)
    with Watch(progress, lambda: len(io.list_names(folder, ".parquet")), expected, "blocks embedded"):
        try:
            with make_pipeline(options) as pipeline:
                _ = (
                    pipeline
                    | "Units" >> beam.Create(list(_units(shards)))
                    | "EmbedGradients" >> EmbedGradients(config.out, run_fingerprint(header), model.spec, rows, read)
                    | "ToJson" >> beam.Map(_result_line)
                    | "Collect" >> CollectSorted(listing)
                )
        except (OSError, RuntimeError, MemoryError) as error:  # anything else is a mistake of ours
            raise _stopped(error) from error
    results = [UnitResult(**json.loads(line)) for line in io.read_bytes(listing).decode().splitlines()]
    return sorted(results, key=lambda result: (result.shard_id, result.block))


def _stopped(error: Exception) -> PartialError:
    """One sentence for what a runner raised; the blocks that were written stay."""
    if "out of memory" in str(error).lower():
        return PartialError("a worker ran out of memory; run the same command again with fewer --workers to resume")
    sentence = str(error).strip().split("\n")[-1][:300]
    return PartialError(f"embed stopped: {sentence}; run the same command again to resume")


def _units(shards: list[Shard]) -> Iterable[Unit]:
    for shard in shards:
        if shard.blocks is None:
            yield Unit(shard, None)
        else:
            bare = replace(shard, blocks=())  # a unit need not carry the places of all the others
            yield from (Unit(bare, block) for block in shard.blocks)


def _stream_blocks(shard: Shard, config: EmbedConfig) -> int:
    """A guess at the blocks of a compressed shard, for the progress bar: text shrinks to about a quarter."""
    return max(1, round(4 * shard.bytes / config.block_bytes))


def _result_line(result: UnitResult) -> str:
    return json.dumps(asdict(result), sort_keys=True)


def _finish(
    config: EmbedConfig,
    header: dict[str, Any],
    shards: list[Shard],
    results: list[UnitResult],
    failures: list[str],
    status: str,
    seconds: float,
) -> dict[str, Any]:
    """Check the counts, write what speaks of the whole run, and mark it done."""
    _check_complete(shards, results)
    good = [(result, result.counts) for result in results if result.counts is not None]
    totals = {name: sum(counts[name] for _, counts in good) for name in arrow.COUNT_COLUMNS}
    check_counts(totals, config.out)
    units = {
        "shard_id": [result.shard_id for result, _ in good],
        "block": [result.block for result, _ in good],
        **{name: [counts[name] for _, counts in good] for name in arrow.COUNT_COLUMNS},
    }
    io.write_parquet(io.join(config.out, "units.parquet"), pa.table(units, schema=arrow.UNITS))
    by_shard: dict[int, dict[str, int]] = {shard.shard_id: dict.fromkeys(arrow.COUNT_COLUMNS, 0) for shard in shards}
    for result, counts in good:
        for name in arrow.COUNT_COLUMNS:
            by_shard[result.shard_id][name] += counts[name]
    _write_shards(config.out, shards, by_shard)
    rejects = read_rejects(config.out, shards, [result for result, counts in good if has_rejects(counts)])
    if failures:
        raise PartialError(f"{failures[0]} ({len(failures)} shards failed); the others are done: run again to resume")
    check_damage(config, shards, by_shard, totals, rejects)
    header = header | {"totals": totals | {"rejects": rejects.reasons}}
    validate(header, "run")
    io.write_json(io.join(config.out, "run.json"), header)
    fresh = sum(counts["n_tokens"] for result, counts in good if result.fresh)
    io.write_json(io.join(config.out, "stats.json"), _stats(config, seconds, fresh))
    io.delete_tree(io.join(config.out, ".work"))
    for name in filter(outputs.is_temporary, outputs.list_tree(config.out)):  # of attempts that were killed
        io.delete(io.join(config.out, name))
    io.write_bytes(io.join(config.out, "_SUCCESS"), b"")
    return summary(config, status, header, rejects.warnings())


def _check_complete(shards: list[Shard], results: list[UnitResult]) -> None:
    """Raise AssertionError where a block of a readable shard did not report: nothing is lost silently."""
    blocks: dict[int, list[int]] = {shard.shard_id: [] for shard in shards}
    failed = {result.shard_id for result in results if result.error}
    for result in results:
        blocks[result.shard_id].append(result.block)
    for shard in shards:
        found = blocks[shard.shard_id]
        expected = len(found) if shard.blocks is None else len(shard.blocks)
        if shard.shard_id not in failed and (not found or found != list(range(expected))):
            raise AssertionError(f"{shard.uri}: blocks {found} of {expected} reported; please report this")


def _write_shards(out: str, shards: list[Shard], counts: dict[int, dict[str, int]]) -> None:
    """shards.parquet; ``rows`` and ``tokens`` are 0 until the run is finished."""
    columns: dict[str, list] = {
        name: [getattr(shard, name) for shard in shards]
        for name in ("shard_id", "uri", "path", "format", "compression", "bytes", "sha256")
    }
    columns["rows"] = [counts.get(shard.shard_id, {}).get("rows_read", 0) for shard in shards]
    columns["tokens"] = [counts.get(shard.shard_id, {}).get("tokens", 0) for shard in shards]
    io.write_parquet(io.join(out, "shards.parquet"), pa.table(columns, schema=arrow.RUN_SHARDS))


def _stats(config: EmbedConfig, seconds: float, tokens: int) -> dict[str, Any]:
    """Time of this call and memory of its largest local process (remote workers report to their runner)."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "format": "cptsel.stats",
        "spec_version": arrow.SPEC_VERSION,
        "seconds": round(seconds, 3),
        "tokens": tokens,
        "tokens_per_second": round(tokens / max(seconds, 1e-9), 1),
        "peak_memory_bytes": peak * 1024,
        "workers": config.workers,
        "threads": config.threads,
    }
