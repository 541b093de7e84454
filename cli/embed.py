"""``cptsel embed``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.summary import Summary


@pass_command(
    EmbedConfig,
    "cptsel embed 'corpus/*/*.jsonl.gz' --model models/base --group-by language --out run --workers 4",
)
def embed(config: EmbedConfig, progress: Any) -> Summary:
    """Embed a corpus: one sketched gradient for every sample.

    Reads JSONL, Parquet, Arrow (Hugging Face datasets), MDS (MosaicML streaming) and WebDataset (.tar) shards, cuts
    every document into windows, and writes for each window the gradient of its loss with respect to the LM head
    (--gradient), sketched to K numbers. JSONL, MDS and WebDataset may be compressed (.gz, .zst). Corpora of token ids
    are read from .bin with .idx (Megatron), .ds with .ds.index (nanotron) and .npy (OLMo). What follows -- goes to
    Apache Beam.
    """
    from cptsel.pipeline.embed import embed as run

    return run(config, progress)
