"""``cptsel embed``: stream a corpus through the frozen model and write one sketched gradient a sample.

List the shards, name everything by fingerprints, resume or refuse, embed block by block on Beam, check that nothing was
lost (docs/design.md, Structure).
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

import apache_beam as beam

from cptsel.pipeline import hashing, io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.ranges import Ledger, sharing
from cptsel.pipeline.artifacts.run import run_fingerprint
from cptsel.pipeline.artifacts.shard_range import ShardRange, parse_range, range_bounds
from cptsel.pipeline.artifacts.writing import Output, check_output, writing
from cptsel.pipeline.config import to_yaml
from cptsel.pipeline.corpus.listing import Files
from cptsel.pipeline.corpus.pool import Pool
from cptsel.pipeline.corpus.shards import Shard, list_inputs, would_find
from cptsel.pipeline.embedding.block import RowOptions
from cptsel.pipeline.embedding.blocks import BlockSize, blocks_there, is_by_pool
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.earlier import EarlierRun
from cptsel.pipeline.embedding.estimate import estimate
from cptsel.pipeline.embedding.finish import check_failures, finish
from cptsel.pipeline.embedding.inventory import Inventory, share_inventory, take_inventory, units_of
from cptsel.pipeline.embedding.lookahead import ahead
from cptsel.pipeline.embedding.mixing import named_factors, with_mixing
from cptsel.pipeline.embedding.plan import (
    ModelPlan,
    check_config,
    first_difference,
    holds_ids,
    plan_model,
    run_header,
    with_base,
    with_held,
)
from cptsel.pipeline.embedding.pool import (
    GroupBytes,
    block_size,
    make_pool,
    needs_counts,
    open_earlier,
    pool_header,
    pool_share,
    read_options,
    recorded_pool,
)
from cptsel.pipeline.embedding.report import range_summary, summary
from cptsel.pipeline.embedding.results import Results, gather, range_results, write_range
from cptsel.pipeline.embedding.resume import begin, is_finished, refuse_other_run, shards_of_run
from cptsel.pipeline.embedding.stopping import stopping
from cptsel.pipeline.embedding.tally import Tally
from cptsel.pipeline.embedding.transforms import EmbedGradients
from cptsel.pipeline.embedding.units import UnitResult
from cptsel.pipeline.engine.beam import is_local, make_pipeline, pipeline_options
from cptsel.pipeline.engine.handed import Handed
from cptsel.pipeline.engine.progress import Progress, Watch
from cptsel.pipeline.engine.tasks import ReadTasks, WriteLines, awaiting, read_lines, write_tasks
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.model.naming import local_path
from cptsel.pipeline.results import EmbedResult
from cptsel.pipeline.selection.reading.kept import keep_cells
from cptsel.schemas.headers import RunHeader

_NAMED = 3  # files in one sentence


def embed(config: EmbedConfig, progress: Progress | None = None) -> EmbedResult:
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
    model = plan_model(config, is_local(options), text=not ids)
    earlier = open_earlier(config)
    _check_named(config)
    if config.dry_run:
        return estimate(config, model, files, earlier)
    call = _Call(config, model, ids, root, files, earlier, options, progress, began)
    return _embed_range(call, parse_range(config.shard_range)) if config.shard_range else _embed_all(call)


@dataclass(frozen=True)
class _Call:
    """What is known before anything is written.

    Attributes:
        config: with absolute paths.
        model: at which the run begins.
        ids: the corpus is of token ids.
        root: of the corpus.
        files: (uri, path, bytes) of every shard.
        earlier: the run of ``--grow`` or ``--after`` and its pool.
        options: of Beam.
        progress: told how many blocks are embedded.
        began: seconds, from any fixed point.
        blocks: into which shards are cut, once that is settled.
        share: of the corpus in the pool, where it was found for the sake of the blocks.
    """

    config: EmbedConfig
    model: ModelPlan
    ids: bool
    root: str
    files: Files
    earlier: tuple[RunHeader, Pool] | None
    options: Any
    progress: Progress | None
    began: float
    blocks: BlockSize = field(default_factory=BlockSize)
    share: float | None = None

    @property
    def earlier_pool(self) -> Pool | None:
        return self.earlier and self.earlier[1]

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


@dataclass(frozen=True)
class _Plan:
    """What decides the rows: the model at which gradients are taken, the pool, and ``run.json`` without totals.

    Attributes:
        model, pool, header: these.
        grown: the run whose rows are taken over.
    """

    model: ModelPlan
    pool: Pool
    header: RunHeader
    grown: EarlierRun | None


def _embed_all(call: _Call) -> EmbedResult:
    """The whole run, by this command."""
    config = call.config
    with writing(config.out, "embed", overwrite=config.overwrite, resumes=True) as output:
        if output.is_new:  # mark it as ours before anything else is in it
            outputs.write_config(config.out, "embed", to_yaml(config))
        if not io.is_remote(config.out):
            Ledger(config.out).forget()  # what is known of ranges holds no longer
        call = _with_blocks(call)
        counts = recorded_pool(config, call.earlier_pool) is None and needs_counts(config, call.files)
        taken = take_inventory(config, call.files, call.model.tokens, call.options, counts, call.blocks)
        shards, work = taken.shards, io.join(config.out, outputs.WORK)
        plan = _plan(call, taken)
        status = begin(config, output, plan.header, shards)
        if status == "already done":
            io.delete_tree(work)
            return summary(config, status, io.read_json(io.join(config.out, "run.json")), [])
        results = _run(call, plan, shards, work)
        return finish(config, plan.header, shards, results, status, call.seconds, keep_cells)


def _embed_range(call: _Call, part: ShardRange) -> EmbedResult:
    """One range of the shards; the command that finds all ranges done finishes the run (docs/design.md, Ranges)."""
    config, name = call.config, f"embed --shard-range {part}"
    with sharing(config.out, part, to_yaml(config)) as ledger:
        work = ledger.scratch(part.index)
        with ledger.turn(name):
            call = _with_blocks(call, ledger.terms())
            if is_finished(config.out):
                return _found_finished(call, ledger)
            if ledger.is_planned:
                _refuse_other_files(call)
            ledger.agree(_terms(call, part))
        counts = needs_counts(config, call.files)
        taken = share_inventory(config, call.files, call.model.tokens, call.options, counts, call.blocks, ledger, part)
        shards, plan = taken.shards, _begin_ranges(call, ledger, name, taken) or _plan(call, taken)
        refuse_other_run(config, plan.header, shards)
        first, end = range_bounds([size for _, _, size in call.files], part.count)[part.index :][:2]
        results = range_results(ledger, [part.index], plan.header)
        if results is None:
            results = _run(call, plan, shards[first:end], work)
            check_failures(config, shards, results)
            write_range(ledger, part.index, results, plan.header)
        if left := ledger.missing(part.count):
            return range_summary(config, part, end - first, results, left, call.seconds, plan.header)
        with ledger.turn(name):
            if is_finished(config.out):
                return _found_finished(call, ledger)
            found = range_results(ledger, range(part.count), plan.header)
            if found is None:
                raise UsageError(f"{config.out}: files of {ledger.folder} were taken away; run all commands again")
            everything = replace(found, fresh_tokens=results.fresh_tokens, taken_tokens=results.taken_tokens)
            done = finish(config, plan.header, shards, everything, "done", call.seconds, keep_cells)
            _clear(ledger)
            return done


def _begin_ranges(call: _Call, ledger: Ledger, name: str, taken: Inventory) -> _Plan | None:
    """The plan, if no other command has made it."""
    if ledger.is_planned:
        return None
    with ledger.turn(name):
        if ledger.is_planned:
            return None
        plan = _plan(call, taken)
        begin(call.config, Output(call.config.out, "embed", is_new=False), plan.header, taken.shards)
        ledger.set_planned()
        return plan


def _clear(ledger: Ledger) -> None:
    """Delete what is of no use in a finished run."""
    ledger.forget()
    work = io.join(ledger.out, outputs.WORK)
    io.delete_files(work, outputs.list_tree(work))


def _terms(call: _Call, part: ShardRange) -> dict[str, Any]:
    """What all commands must agree on before they share the inventory."""
    listing = hashing.fingerprint([[path, size] for _, path, size in call.files])
    return {"ranges": part.count, "format": call.config.format, "corpus": listing} | call.blocks.options()


def _with_blocks(call: _Call, terms: Mapping[str, Any] = MappingProxyType({})) -> _Call:
    """Settle the blocks: those that are there, in the run, its ranges or an earlier run, or new ones."""
    config, files, before = call.config, call.files, call.earlier and call.earlier[0]
    there = blocks_there(config, terms, before["options"] if before else {})
    share = pool_share(config, call.model, files) if is_by_pool(config, there) else None
    return replace(call, blocks=block_size(config, there, 1.0 if share is None else share, files), share=share)


def _found_finished(call: _Call, ledger: Ledger) -> EmbedResult:
    """The summary of a run that other commands have finished, after it was found to be the one that is asked for."""
    config = call.config
    shards = _refuse_other_files(call)
    refuse_other_run(config, _plan(call, Inventory(shards)).header, shards)
    _clear(ledger)  # a command that was killed at the end has left it
    return summary(config, "already done", io.read_json(io.join(config.out, "run.json")), [])


def _refuse_other_files(call: _Call) -> list[Shard]:
    """The shards of the run that was begun, after they were found to be those that are listed, in the same sizes."""
    out = call.config.out
    shards = shards_of_run(out)
    before, now = {(shard.path, shard.bytes) for shard in shards}, {(path, size) for _, path, size in call.files}
    if changed := sorted({path for path, _ in before ^ now}):
        more = f" and {len(changed) - _NAMED:,} more" if len(changed) > _NAMED else ""
        names = ", ".join(changed[:_NAMED]) + more
        raise UsageError(
            f"{out}: the corpus ({names}) changed since this run was begun; give what it was begun with, or use "
            "another --out"
        )
    return shards


def _plan(call: _Call, taken: Inventory) -> _Plan:
    """Settle what decides the rows, or take from a run that was begun what it has settled."""
    config, files, here = call.config, call.files, is_local(call.options)
    before, sizes = call.earlier_pool, taken.group_bytes
    pool = recorded_pool(config, before) or plan_pool(config, call.model, files, sizes, before, call.share)
    model, steps, base = with_mixing(config, call.model, files), None, None
    if config.lookahead:
        model, steps = ahead(config, model, here, call.progress)
    elif config.base:
        model, base = with_base(config, model, here)
    if not here:
        model = with_held(model, base if config.base else call.model.weights)
    named = pool_header(config, pool)
    header = run_header(config, model, call.root, taken.shards, named, steps, base, call.ids, call.blocks)
    return _Plan(model, pool, header, check_earlier(config, call.earlier, header))


def _check_named(config: EmbedConfig) -> None:
    """Refuse a model, a new corpus or a run that can't be used later on, before the old corpus is read.

    Raises:
        UsageError: there is one.
    """
    if config.base is not None:
        local_path(config.base, None, "--base")
    if config.lookahead:
        list_inputs(config.lookahead, None)
    named_factors(config)


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
    config: EmbedConfig,
    model: ModelPlan,
    files: Files,
    group_bytes: GroupBytes,
    earlier: Pool | None,
    share: float | None = None,
) -> Pool:
    """The pool of a new run; its share of the corpus is found where it is not known."""
    share = pool_share(config, model, files) if share is None else share
    return make_pool(config, share, files, earlier, group_bytes)


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


def _run(call: _Call, plan: _Plan, shards: Sequence[Shard], work: str) -> Results:
    """Embed what is still to do of some shards, which follow each other."""
    config, model = call.config, plan.model
    if not shards:
        return gather([])
    work = io.join(work, "units")
    listing = io.join(work, "results")
    rows = RowOptions(
        max_tokens=model.max_tokens,
        split_special_tokens=config.split_special_tokens,
        tokens_per_batch=model.tokens_per_batch,
        storage=config.storage,
        groups=config.group_by,
        exclude=config.exclude,
        ids=not model.has_tokenizer,
        earlier=plan.grown,
    )
    folder = io.join(config.out, "embeddings")
    expected = sum(len(s.blocks) if s.blocks is not None else _stream_blocks(s, call.blocks) for s in shards)
    tally = Tally(folder, expected, range(shards[0].shard_id, shards[-1].shard_id + 1))
    with Watch(call.progress, tally.look, expected, "blocks embedded", tally.detail), stopping():
        tasks = write_tasks(work, units_of(shards))
        with awaiting(call.options, tasks), make_pipeline(call.options) as pipeline:
            _ = (
                pipeline
                | "Units" >> ReadTasks(tasks)
                | "EmbedGradients"
                >> EmbedGradients(
                    out=config.out,
                    run=run_fingerprint(plan.header),
                    spec=model.spec,
                    rows=Handed(io.join(work, "rows.pickle"), rows),
                    read=Handed(io.join(work, "read.pickle"), read_options(config, model, plan.pool, call.blocks)),
                    keep_going=config.keep_going,
                )
                | "ToJson" >> beam.Map(_result_line)
                | "Collect" >> WriteLines(listing)
            )
    return gather(UnitResult(**json.loads(line)) for line in read_lines(listing))


def _stream_blocks(shard: Shard, blocks: BlockSize) -> int:
    """A guess at the blocks of a compressed shard, for the progress bar: text shrinks to about a quarter."""
    return max(1, round(4 * shard.bytes / blocks.bytes))


def _result_line(result: UnitResult) -> str:
    return json.dumps(asdict(result), sort_keys=True)
