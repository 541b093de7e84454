"""The pool of a run: its rate, fixed before the first row, and how it goes with an earlier run's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.artifacts.shard_range import parse_range
from cptsel.pipeline.corpus.documents import ReadOptions
from cptsel.pipeline.corpus.listing import Files
from cptsel.pipeline.corpus.path_groups import path_groups
from cptsel.pipeline.corpus.pool import Pool, Range
from cptsel.pipeline.embedding.begun import begun_run
from cptsel.pipeline.embedding.block import BlockEmbedder, RowOptions
from cptsel.pipeline.embedding.blocks import BlockSize, is_by_pool, new_blocks
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.earlier import tokens_taken_over
from cptsel.pipeline.embedding.plan import ModelPlan, check_runs_here, tokenizer_of
from cptsel.pipeline.embedding.pool_size import PoolSize, parse_duration, parse_pool
from cptsel.pipeline.embedding.probe import Probe, probe
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.kernels.sampling.pool import pool_rates
from cptsel.schemas.headers import RunHeader

GroupBytes = Mapping[str | None, float]


def asked_size(config: EmbedConfig) -> PoolSize | None:
    """What ``--pool`` or ``--time-budget`` asks for; None for the whole corpus."""
    if config.pool is not None:
        return parse_pool(config.pool)
    return parse_duration(config.time_budget) if config.time_budget is not None else None


def open_earlier(config: EmbedConfig) -> tuple[RunHeader, Pool] | None:
    """The finished run that ``--grow`` or ``--after`` names, and its pool.

    Raises:
        UsageError: it is no finished run, or of another seed.
    """
    directory = config.grow or config.after
    if directory is None:
        return None
    header = open_runs([directory]).headers[0]
    seed = header["projection"]["seed"]
    if seed != config.seed:
        raise UsageError(f"{directory}: was embedded with --seed {seed}, which draws another pool; give that seed")
    if config.grow and config.after:
        raise UsageError("--grow and --after: a pool goes on from one run; give one of them")
    return header, Pool.from_json(seed, header["options"].get("pool"))


def recorded_pool(config: EmbedConfig, earlier: Pool | None) -> Pool | None:
    """The pool of a run that was begun in ``--out``, if the same was asked for; its rate is not found anew.

    Args:
        config: of the run.
        earlier: the pool of ``--grow`` or ``--after``, which says where the ranges begin.
    """
    header = begun_run(config)
    value = header["options"].get("pool") if header else None
    if not isinstance(value, dict) or {name: value.get(name) for name in _ASKED} != _asked(config):
        return None
    pool, before = Pool.from_json(config.seed, value), earlier or Pool(config.seed, Range(0.0, 0.0))
    begins = {group: _start(config, before.range_of(group)) for group in (None, *pool.groups)}
    return pool if all(pool.range_of(group).start == start for group, start in begins.items()) else None


def _start(config: EmbedConfig, before: Range) -> float:
    """Where a range begins: with ``--after`` behind that of the earlier run."""
    return before.start + before.rate if config.after else before.start


def pool_share(config: EmbedConfig, model: ModelPlan, files: Files, found: Probe | None = None) -> float:
    """The share of the corpus that is asked for; tokens, documents and speed are found by ``probe``.

    A time budget is for the steps of ``--lookahead`` and what is not taken over from ``--grow``.

    Args:
        config: of the run.
        model: what is known of the model.
        files: (uri, path, bytes) of every shard.
        found: what is known of the corpus; by default it is looked at.

    Raises:
        UsageError: there is not so much.
    """
    size = asked_size(config)
    if size is None:
        return 1.0
    if size.kind == "share":
        return size.value
    found = found or look(config, model, files, timed=size.kind == "seconds")
    if size.kind == "seconds":
        whole = found.seconds / (config.workers * machines(config))
        left = size.value - lookahead_seconds(config, found)
        if left <= 0:
            raise UsageError(
                f"--time-budget {config.time_budget}: the steps of --lookahead take about "
                f"{(size.value - left) / 3600:.2g} hours by themselves; give more time, or fewer --lookahead-steps"
            )
        taken = tokens_taken_over(config.grow, model.tokens_per_batch)[0] if config.grow else 0
        return min(1.0, left / max(whole, 1e-9) + taken / max(found.tokens, 1.0))
    whole = found.tokens if size.kind == "tokens" else found.documents
    if size.value > 1.2 * whole:
        raise UsageError(
            f"--pool {config.pool}: the corpus has about {whole:,.0f} {size.kind}; ask for less, or leave it out"
        )
    return min(1.0, size.value / max(whole, 1.0))


def lookahead_seconds(config: EmbedConfig, found: Probe) -> float:
    """What the steps of ``--lookahead`` take, about: three forward passes a token, in one process.

    Args:
        config: of the run.
        found: with seconds, which are those of a forward pass for gradients of the head, three with its backward pass
            for the body, and one more for losses.
    """
    if not config.lookahead:
        return 0.0
    passes = (3 if "body" in config.gradient else 1) + (not config.skip_base_loss)
    tokens = config.lookahead_steps * config.lookahead_tokens
    return 3 * tokens * found.seconds / max(found.tokens, 1.0) / passes


def machines(config: EmbedConfig) -> int:
    """How many commands embed the run, each with ``--workers``."""
    return parse_range(config.shard_range).count if config.shard_range else 1


def make_pool(config: EmbedConfig, share: float, files: Files, earlier: Pool | None, counted: GroupBytes) -> Pool:
    """The ranges of all groups.

    Args:
        config: of the run.
        share: of the corpus.
        files: (uri, path, bytes) of every shard.
        earlier: the pool of ``--grow`` or ``--after``.
        counted: bytes of the text of each group, where the paths don't tell the groups (``needs_counts``).

    Raises:
        UsageError: ``--grow`` would shrink a group, or there is not so much after ``--after``.
    """
    before = earlier or Pool(config.seed, Range(0.0, 0.0))
    by = config.group_by[0] if config.pool_alpha < 1 else None
    if earlier and earlier.by != by:
        raise UsageError(
            f"{config.grow or config.after}: its pool has rates by {earlier.by or 'no group'}, the new one by "
            f"{by or 'no group'}; give the same --pool-alpha and --group-by"
        )
    sizes = {} if by is None else (_path_bytes(files, by) or counted)
    rates = {None: share} if by is None else pool_rates(sizes, share, config.pool_alpha)
    ranges = {}
    for group, rate in rates.items():
        start, held = before.range_of(group)
        where = f" of group {group}" if by is not None else ""
        if config.after and start + held + rate > 1 + 1e-12:
            raise UsageError(
                f"--after {config.after}: {rate:.4%} of the documents{where} are asked for, and {1 - start - held:.4%} "
                "come after it; ask for a smaller pool"
            )
        if config.grow and rate < held:
            raise UsageError(
                f"--grow {config.grow}: has {held:.4%} of the documents{where}, and {rate:.4%} are asked for; ask for "
                "more"
            )
        ranges[group] = Range(_start(config, before.range_of(group)), rate)
    whole = ranges[None] if by is None else max(ranges.values(), key=lambda range_: range_.rate)
    return Pool(config.seed, whole, by, {} if by is None else ranges)


def needs_counts(config: EmbedConfig, files: Files) -> bool:
    """Whether ``make_pool`` has to know the bytes of groups, which stand in a column."""
    return config.pool_alpha < 1 and not _path_bytes(files, config.group_by[0])


def look(config: EmbedConfig, model: ModelPlan, files: Files, timed: bool) -> Probe:
    """What the corpus holds, and, ``timed``, how long the model takes for it."""
    rows = RowOptions(
        model.max_tokens, model.tokens_per_batch, config.storage, config.group_by, ids=not model.has_tokenizer
    )
    spec = replace(model.spec, mixing=model.spec.mixing or (1.0, 1.0))
    if config.lookahead and not config.skip_base_loss:  # what the model runs for losses is of the same size
        spec = replace(spec, base=(spec.source, spec.revision))
    if timed:
        option, instead = ("--dry-run", "leave it out") if config.dry_run else ("--time-budget", "use --pool")
        check_runs_here(model, option, instead)
    embedder = BlockEmbedder(spec, rows) if timed else None
    tokenizer = embedder.tokenizer if embedder else tokenizer_of(model)
    return probe(files, read_options(config, model), tokenizer, model.prefix, model.max_tokens, config.format, embedder)


def block_size(config: EmbedConfig, there: BlockSize | None, share: float, files: Files) -> BlockSize:
    """The blocks of a run, a new one's by its pool; where groups differ, by the largest of their rates.

    Rates that only a reading of the corpus tells, which is by blocks, count as 1.

    Args:
        config: of the run.
        there: blocks of a run from which this one goes on.
        share: of the corpus in the pool.
        files: (uri, path, bytes) of every shard.
    """
    by_pool = is_by_pool(config, there) and not needs_counts(config, files)
    rate = make_pool(config, share, files, None, {}).whole.rate if by_pool else 1.0
    return new_blocks(config, there, rate, sum(size for _, _, size in files))


def read_options(
    config: EmbedConfig, model: ModelPlan, pool: Pool | None = None, blocks: BlockSize | None = None
) -> ReadOptions:
    """How rows are read; without ``blocks``, to look at a corpus before it is known how a run cuts it."""
    size = blocks or new_blocks(config, None, 1.0, 0)
    return ReadOptions(
        text_field=config.text_field,
        id_field=config.id_field,
        group_by=config.group_by,
        max_line_bytes=config.max_line_bytes,
        block_bytes=size.bytes,
        block_rows=size.rows,
        limit=config.limit,
        pool=pool or Pool(config.seed),
        tokens=model.tokens,
    )


_ASKED = ("asked", "alpha")


def _asked(config: EmbedConfig) -> dict[str, Any]:
    return {"asked": config.pool or config.time_budget, "alpha": config.pool_alpha}


def pool_header(config: EmbedConfig, pool: Pool) -> dict[str, Any] | None:
    """What ``run.json`` says of the pool; None for the whole corpus."""
    return None if asked_size(config) is None else _asked(config) | pool.to_json()


def _path_bytes(files: Files, group: str) -> dict[str | None, float]:
    """Bytes, as stored, by the group that the paths give; empty where they give none."""
    found: dict[str | None, float] = {}
    for _, path, size in files:
        values = path_groups(path, [group])
        if group not in values:
            return {}
        found[values[group]] = found.get(values[group], 0.0) + size
    return found
