"""``cptsel embed``: stream a corpus through the frozen model and write one sketched gradient a sample.

List the shards, name everything by fingerprints, resume or refuse, embed block by block on Beam, check that nothing was
lost (docs/design.md, Structure).
"""

import json
import os
import time
from dataclasses import asdict, replace
from typing import Any

import apache_beam as beam

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.run import run_fingerprint
from cptsel.pipeline.artifacts.writing import check_output, writing
from cptsel.pipeline.config import to_yaml
from cptsel.pipeline.corpus.pool import Pool
from cptsel.pipeline.corpus.shards import Shard, list_inputs, would_find
from cptsel.pipeline.embedding.block import RowOptions
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.earlier import EarlierRun
from cptsel.pipeline.embedding.estimate import estimate
from cptsel.pipeline.embedding.finish import finish
from cptsel.pipeline.embedding.inventory import count_groups, take_inventory, units_of
from cptsel.pipeline.embedding.lookahead import ahead
from cptsel.pipeline.embedding.mixing import with_mixing
from cptsel.pipeline.embedding.plan import (
    ModelPlan,
    check_config,
    first_difference,
    holds_ids,
    plan_model,
    run_header,
    with_base,
)
from cptsel.pipeline.embedding.pool import (
    Files,
    make_pool,
    open_earlier,
    pool_header,
    pool_share,
    read_options,
    recorded_pool,
)
from cptsel.pipeline.embedding.report import summary
from cptsel.pipeline.embedding.results import Results, gather
from cptsel.pipeline.embedding.resume import begin
from cptsel.pipeline.embedding.stopping import stopping
from cptsel.pipeline.embedding.tally import Tally
from cptsel.pipeline.embedding.transforms import EmbedGradients
from cptsel.pipeline.embedding.units import UnitResult
from cptsel.pipeline.engine.beam import is_local, make_pipeline, pipeline_options
from cptsel.pipeline.engine.handed import Handed
from cptsel.pipeline.engine.progress import Progress, Watch
from cptsel.pipeline.engine.tasks import ReadTasks, WriteLines, awaiting, read_lines, write_tasks
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.summary import Summary
from cptsel.schemas.headers import RunHeader


def embed(config: EmbedConfig, progress: Progress | None = None) -> Summary:
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
    check_output(config.out, "embed", overwrite=config.overwrite, resumes=True)
    options = pipeline_options(config.beam_args, config.workers)
    root, files = list_inputs(config.inputs, config.root, config.format)
    _check_out_is_apart(config, files)
    ids = holds_ids(files, config.format)
    model = plan_model(config, config.dry_run or bool(config.time_budget) or is_local(options), text=not ids)
    earlier = open_earlier(config)
    if config.dry_run:
        return estimate(config, model, files, earlier and earlier[1])
    with writing(config.out, "embed", overwrite=config.overwrite, resumes=True) as output:
        if output.is_new:  # mark it as ours before anything else is in it
            outputs.write_config(config.out, "embed", to_yaml(config))
        shards = take_inventory(config, files, model.tokens, options)
        before = earlier and earlier[1]
        pool = recorded_pool(config, before) or plan_pool(config, model, files, shards, before, options)
        model, steps, base = with_mixing(config, model, files), None, None
        if config.lookahead:
            model, steps = ahead(config, model, is_local(options))
        elif config.base:
            model, base = with_base(config, model, is_local(options))
        header = run_header(config, model, root, shards, pool_header(config, pool), steps, base, ids)
        grown = check_earlier(config, earlier, header)
        status = begin(config, output, header, shards)
        if status == "already done":
            io.delete_tree(io.join(config.out, outputs.WORK))
            return summary(config, status, io.read_json(io.join(config.out, "run.json")), [])
        results = _run(config, model, header, shards, pool, grown, options, progress)
        return finish(config, header, shards, results, status, time.monotonic() - began)


def _check_out_is_apart(config: EmbedConfig, files: list[tuple[str, str, int]]) -> None:
    """Refuse an output that the inputs hold, or would hold once something is written there."""
    out = config.out.rstrip("/")
    written = [out, *(f"{out}/{name}" for name in ("run.json", "units.parquet", "embeddings/000000-00000.parquet"))]
    inside = out + "/"
    if any(uri.startswith(inside) for uri, _, _ in files) or any(would_find(config.inputs, uri) for uri in written):
        raise UsageError(
            f"--out {config.out} lies among the inputs, and would be read as a part of the corpus; move it"
        )


def _with_absolute_paths(config: EmbedConfig) -> EmbedConfig:
    """Workers may stand in other directories, and the saved configuration is to work from any."""
    return replace(
        config,
        inputs=_absolute(config.inputs),
        model=io.absolute(config.model) if os.path.isdir(config.model) else config.model,
        base=io.absolute(config.base) if config.base and os.path.isdir(config.base) else config.base,
        root=config.root and io.absolute(config.root),
        grow=config.grow and io.absolute(config.grow),
        after=config.after and io.absolute(config.after),
        mixing=config.mixing and io.absolute(config.mixing),
        lookahead=_absolute(config.lookahead),
        out=io.absolute(config.out),
        exclude=config.exclude and io.absolute(config.exclude),
    )


def plan_pool(
    config: EmbedConfig, model: ModelPlan, files: Files, shards: list[Shard], earlier: Pool | None, options: Any
) -> Pool:
    """The pool of a new run."""
    share = pool_share(config, model, files, earlier)
    return make_pool(config, share, files, earlier, lambda: count_groups(config, shards, options))


def check_earlier(config: EmbedConfig, earlier: tuple[RunHeader, Pool] | None, header: RunHeader) -> EarlierRun | None:
    """The run whose rows are taken over, with ``--grow``.

    Raises:
        UsageError: the run of ``--grow`` or ``--after`` has rows in other terms; the sentence names the difference.
    """
    if earlier is None:
        return None
    old, pool = earlier
    directory = config.grow or config.after or ""
    if difference := first_difference(old, header, but=("pool",)):
        raise UsageError(f"{directory}: {difference}; embed with what that run has, or without it")
    return EarlierRun(directory, run_fingerprint(old), pool) if config.grow else None


def _absolute(inputs: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("@" + io.absolute(item[1:]) if item[:1] == "@" else io.absolute(item) for item in inputs)


def _run(
    config: EmbedConfig,
    model: ModelPlan,
    header: RunHeader,
    shards: list[Shard],
    pool: Pool,
    grown: EarlierRun | None,
    options: Any,
    progress: Progress | None,
) -> Results:
    """Embed what is still to do."""
    work = io.join(config.out, outputs.WORK, "units")
    listing = io.join(work, "results")
    rows = RowOptions(
        max_tokens=model.max_tokens,
        split_special_tokens=config.split_special_tokens,
        tokens_per_batch=model.tokens_per_batch,
        storage=config.storage,
        groups=config.group_by,
        exclude=config.exclude,
        ids=not model.has_tokenizer,
        earlier=grown,
    )
    folder = io.join(config.out, "embeddings")
    expected = sum(len(s.blocks) if s.blocks is not None else _stream_blocks(s, config) for s in shards)
    tally = Tally(folder, expected)
    with Watch(progress, tally.look, expected, "blocks embedded", tally.detail), stopping():
        tasks = write_tasks(work, units_of(shards))
        with awaiting(options, tasks), make_pipeline(options) as pipeline:
            _ = (
                pipeline
                | "Units" >> ReadTasks(tasks)
                | "EmbedGradients"
                >> EmbedGradients(
                    out=config.out,
                    run=run_fingerprint(header),
                    spec=model.spec,
                    rows=Handed(io.join(work, "rows.pickle"), rows),
                    read=Handed(io.join(work, "read.pickle"), read_options(config, model, pool)),
                    keep_going=config.keep_going,
                )
                | "ToJson" >> beam.Map(_result_line)
                | "Collect" >> WriteLines(listing)
            )
    return gather(UnitResult(**json.loads(line)) for line in read_lines(listing))


def _stream_blocks(shard: Shard, config: EmbedConfig) -> int:
    """A guess at the blocks of a compressed shard, for the progress bar: text shrinks to about a quarter."""
    return max(1, round(4 * shard.bytes / config.block_bytes))


def _result_line(result: UnitResult) -> str:
    return json.dumps(asdict(result), sort_keys=True)
