"""``embed --dry-run``: what would run, and an estimate of samples, tokens, time and storage from a few documents."""

from collections.abc import Sequence

from cptsel.pipeline.corpus.pool import Pool
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.plan import ModelPlan
from cptsel.pipeline.embedding.pool import look, machines, pool_share
from cptsel.pipeline.results import EmbedResult


def estimate(
    config: EmbedConfig, model: ModelPlan, files: Sequence[tuple[str, str, int]], earlier: Pool | None
) -> EmbedResult:
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
    return EmbedResult(
        out=config.out,
        status="dry-run",
        shards=len(files),
        corpus_bytes=sum(size for _, _, size in files),
        max_tokens=model.max_tokens,
        corpus_documents=round(found.documents),
        corpus_tokens=round(found.tokens),
        share_in_the_pool=round(share, 8) if share < 1 else None,
        samples=round(found.samples * share),
        tokens=round(found.tokens * share),
        bytes_of_embeddings=round(found.stored(share)),
        tokens_per_second=round(found.tokens / max(found.seconds, 1e-9)),
        hours=round(found.seconds * fresh / 3600 / (config.workers * machines(config)), 2),
        warnings=[] if found.tokens else ["the documents looked at gave no sample: see what embed rejects"],
    )
