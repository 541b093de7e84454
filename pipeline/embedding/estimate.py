"""``embed --dry-run``: what would run, and an estimate of samples, tokens, time and storage from a few documents."""

from collections.abc import Sequence
from dataclasses import replace

from cptsel.pipeline.corpus.pool import Pool
from cptsel.pipeline.embedding.blocks import blocks_there
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.earlier import chunk_of, tokens_taken_over
from cptsel.pipeline.embedding.plan import ModelPlan
from cptsel.pipeline.embedding.pool import block_size, look, lookahead_seconds, machines, pool_share, read_options
from cptsel.pipeline.embedding.probe import Probe
from cptsel.pipeline.results import EmbedResult
from cptsel.schemas.headers import RunHeader


def estimate(
    config: EmbedConfig,
    model: ModelPlan,
    files: Sequence[tuple[str, str, int]],
    earlier: tuple[RunHeader, Pool] | None,
) -> EmbedResult:
    """Embed a few documents of a few shards, and scale by bytes. Writes nothing.

    Args:
        config: of the run.
        model: what is known of the model.
        files: (uri, path, bytes) of every shard.
        earlier: the run of ``--grow`` or ``--after`` and its pool.
    """
    found = look(config, model, files, timed=True)
    share = pool_share(config, model, files, found)
    blocks = block_size(config, blocks_there(config, earlier[0]["options"] if earlier else {}), share, files)
    fewer = read_options(config, model).block_bytes / blocks.bytes
    found = replace(found, blocks=max(found.blocks * fewer, min(found.blocks, len(files))))
    tokens = found.tokens * share
    taken, there = tokens_taken_over(config.grow, model.tokens_per_batch) if config.grow else (0, 0)
    seconds = found.seconds * max(0.0, tokens - taken) / max(found.tokens, 1.0) / (config.workers * machines(config))
    hours = (seconds + lookahead_seconds(config, found)) / 3600
    return EmbedResult(
        out=config.out,
        status="dry-run",
        shards=len(files),
        corpus_bytes=sum(size for _, _, size in files),
        max_tokens=model.max_tokens,
        corpus_documents=round(found.documents),
        corpus_tokens=round(found.tokens),
        pool=f"{share:.4%}" if share < 1 else None,
        samples=round(found.samples * share),
        tokens=round(tokens),
        bytes_of_embeddings=round(found.stored(share)),
        tokens_taken_over=taken if config.grow else None,
        tokens_per_second=round(found.tokens / max(found.seconds, 1e-9)),
        hours=round(hours, 2) if hours >= 1 else float(f"{hours:.2g}"),
        warnings=_warnings(config, model, found, taken, there),
    )


def _warnings(config: EmbedConfig, model: ModelPlan, found: Probe, taken: int, there: int) -> list[str]:
    warnings = [] if found.tokens else ["the documents that were tried gave no sample: see what embed rejects"]
    if 2 * taken < there:
        chunk = chunk_of(model.tokens_per_batch)
        warnings.append(
            f"{config.grow}: of its {there:,} tokens about {taken:,} are taken over, and the others are embedded "
            f"again: its blocks hold few chunks of {chunk:,} tokens (four batches), and only whole ones are taken over"
        )
    return warnings
