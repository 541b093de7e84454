"""``embed --dry-run``: what would run, and an estimate of samples, tokens, time and storage from a few documents."""

from collections.abc import Sequence
from typing import Any

from cptsel.pipeline.corpus.pool import Pool
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.plan import ModelPlan
from cptsel.pipeline.embedding.pool import look, machines, pool_share
from cptsel.pipeline.summary import Summary


def estimate(
    config: EmbedConfig, model: ModelPlan, files: Sequence[tuple[str, str, int]], earlier: Pool | None
) -> Summary:
    """Embed a few documents of a few shards, and scale by bytes. Writes nothing.

    Args:
        config: of the run.
        model: what is known of the model.
        files: (uri, path, bytes) of every shard.
        earlier: the pool of ``--grow`` or ``--after``.
    """
    found = look(config, model, files, timed=True)
    share = pool_share(config, model, files, earlier, found)
    fresh = share - (earlier.whole.rate if config.grow and earlier else 0.0)
    totals: dict[str, Any] = {
        "shards": len(files),
        "corpus bytes (as stored)": sum(size for _, _, size in files),
        "max tokens": model.max_tokens,
        "corpus documents (estimate)": round(found.documents),
        "corpus tokens (estimate)": round(found.tokens),
        **({"share in the pool": round(share, 8)} if share < 1 else {}),
        "samples (estimate)": round(found.samples * share),
        "tokens (estimate)": round(found.tokens * share),
        "bytes of embeddings (estimate)": round(found.stored(share)),
        "tokens per second, one worker": round(found.tokens / max(found.seconds, 1e-9)),
        "hours (estimate)": round(found.seconds * fresh / 3600 / (config.workers * machines(config)), 2),
    }
    warnings = [] if found.tokens else ["the documents looked at gave no sample: see what embed rejects"]
    return Summary(
        command="embed",
        out=config.out,
        status="dry-run",
        totals=totals,
        tables=[],
        warnings=warnings,
    )
