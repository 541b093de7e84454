"""``embed --dry-run``: what would run, and an estimate of samples, tokens, time and storage from a few documents."""

import time
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.corpus.documents import DocumentBlock, ReadOptions, read_block, read_stream
from cptsel.pipeline.corpus.shards import Shard, inventory
from cptsel.pipeline.embedding.block import BlockEmbedder, RowOptions
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.plan import ModelPlan
from cptsel.pipeline.errors import CptselError
from cptsel.pipeline.summary import Summary

SHARDS = 3
ROWS = 40  # of each of these shards


def estimate(config: EmbedConfig, model: ModelPlan, files: list[tuple[str, str, int]]) -> Summary:
    """Embed the first rows of a few shards, spread over the listing, and scale by bytes. Writes nothing.

    Args:
        config: of the run.
        model: what is known of the model.
        files: (uri, path, bytes) of every shard.
    """
    rows = RowOptions(model.max_tokens, model.tokens_per_batch, config.storage, config.group_by, config.exclude)
    embedder = BlockEmbedder(model.spec, rows)
    picked = sorted({round(i * (len(files) - 1) / max(1, SHARDS - 1)) for i in range(SHARDS)})
    tokens = samples = stored = 0
    corpus_bytes = seconds = 0.0
    for index in picked:
        uri, path, size = files[index]
        try:
            shard = inventory(index, uri, path, size, config.block_bytes, config.format)
        except OSError as error:
            raise CptselError(f"{uri}: {error}") from error
        block = _first_rows(config, shard)
        began = time.perf_counter()
        done = embedder.embed(path, block)
        seconds += time.perf_counter() - began
        tokens += done.counts["tokens"]
        samples += done.counts["windows_embedded"]
        stored += len(io.parquet_bytes(done.embeddings))
        corpus_bytes += _share(config, shard, block)
    total = sum(size for _, _, size in files)
    scale = total / max(corpus_bytes, 1.0)
    totals: dict[str, Any] = {
        "shards": len(files),
        "corpus bytes (as stored)": total,
        "max tokens": model.max_tokens,
        "samples (estimate)": round(samples * scale),
        "tokens (estimate)": round(tokens * scale),
        "bytes of embeddings (estimate)": round(stored * scale),
        "tokens per second, one worker": round(tokens / max(seconds, 1e-9)),
        "hours (estimate)": round(seconds * scale / 3600 / config.workers, 2),
    }
    warnings = [] if tokens else ["the first rows of the shards looked at gave no sample: see what embed rejects"]
    return Summary(
        command="embed",
        out=config.out,
        status="dry-run",
        totals=totals,
        tables=[],
        warnings=warnings,
    )


def _read_options(config: EmbedConfig, limit: int | None) -> ReadOptions:
    return ReadOptions(
        config.text_field, config.id_field, config.group_by, config.max_line_bytes, config.block_bytes, limit
    )


def _first_rows(config: EmbedConfig, shard: Shard) -> DocumentBlock:
    options = _read_options(config, min(ROWS, config.limit or ROWS))
    if shard.blocks is None:
        return next(iter(read_stream(shard, options)))
    return read_block(shard, shard.blocks[0], options)


def _share(config: EmbedConfig, shard: Shard, sample: DocumentBlock) -> float:
    """Bytes of the shard, as stored, that the sampled rows stand for: the sample's share of the first block's rows."""
    if config.limit is not None and config.limit <= ROWS:
        return float(shard.bytes)
    options = _read_options(config, config.limit)
    if shard.blocks is None:
        first = next(iter(read_stream(shard, options)))
        whole = shard.bytes if first.last else min(shard.bytes, config.block_bytes / 4)
        return whole * sample.rows_read / max(1, first.rows_read)
    rows = sum(block.rows for block in shard.blocks)
    return shard.bytes * min(1.0, sample.rows_read / max(1, min(rows, config.limit or rows)))
