"""``cptsel embed``."""

from functools import partial
from typing import Any

from cptsel.cli._common import Summary, pass_command
from cptsel.cli._options import config_argument, config_option
from cptsel.pipeline.config import EmbedConfig
from cptsel.pipeline.corpus.formats.registry import FORMATS

_corpus = partial(config_option, EmbedConfig, section="Corpus")
_model = partial(config_option, EmbedConfig, section="Model and windows")
_sketch = partial(config_option, EmbedConfig, section="Embeddings")
_running = partial(config_option, EmbedConfig, section="Running")

PARAMETERS = [
    config_argument(
        EmbedConfig,
        "inputs",
        "Shards: globs or paths, local or on a filesystem of Beam's (gs://, s3://, hdfs://); "
        "@FILE for a file with one of them a line.",
        metavar="'GLOB'...",
    ),
    _corpus(
        "format",
        "Format of all shards; by default each one's suffix tells it. Compression goes by .gz and .zst in any case.",
        choices=tuple(FORMATS),
    ),
    _corpus(
        "root",
        "Directory to which shard paths are relative, so that a corpus that moves keeps its sample ids; "
        "by default the longest common directory of the globs.",
        metavar="DIR",
    ),
    _corpus("text_field", "Field or column that holds the text.", metavar="NAME"),
    _corpus(
        "id_field", "Field or column that holds the corpus's own document id; it need not be there.", metavar="NAME"
    ),
    _corpus(
        "group_by",
        "Field or column, such as language or domain, kept as a group column; may be repeated.",
        metavar="COLUMN",
    ),
    _corpus(
        "exclude",
        "File of doc_ids, doc_keys, sample_ids or hex content hashes, one a line, to leave out.",
        metavar="FILE",
    ),
    _corpus("limit", "Read only the first N rows of every shard: for a try.", metavar="N"),
    _corpus(
        "max_bad_fraction",
        "Largest share of rows, from 0 to 1, that may be rejected before the run fails with exit code 3.",
        metavar="SHARE",
    ),
    _corpus("max_line_bytes", "Lines longer than this, in bytes, are rejected.", metavar="BYTES"),
    _model(
        "model",
        "Causal language model, as a directory or a Hub id; weights are read from safetensors only.",
        metavar="PATH_OR_HUB_ID",
    ),
    _model("revision", "Revision of a model on the Hub: branch, tag or commit.", metavar="NAME"),
    _model("trust_remote_code", "Run Python code that comes with the model."),
    _model(
        "max_tokens",
        "Longest window, in tokens; longer documents become several windows; by default 1024, or what the model has.",
        metavar="N",
    ),
    _model(
        "split_special_tokens",
        "Take text that spells a special token, such as </s> in a document, for text; by default it becomes that "
        "token's id, as the tokenizer does.",
    ),
    _model(
        "dtype",
        "Number type the model runs in; auto is float32 on a CPU, that of the weights on a GPU. Gradients are always "
        "summed in float32.",
        choices=("auto", "float32", "bfloat16", "float16"),
    ),
    _model(
        "device", "Device to run on, such as cpu or cuda:0; auto takes an accelerator if there is one.", metavar="NAME"
    ),
    _model(
        "tokens_per_batch",
        "Most tokens, padding included, in one forward pass; changes speed and memory; by default 4096 on a CPU and "
        "32768 on a GPU.",
        metavar="N",
    ),
    _sketch("sketch_dim", "Length of the sketch that is stored for every sample.", metavar="K"),
    _sketch("validation_dim", "Length of the second, independent sketch by which selections are judged.", metavar="K"),
    _sketch("storage", "How directions are stored; int8 takes half the space.", choices=("float16", "int8")),
    _sketch(
        "norm",
        "How grad_norm is found: sketch is free and within a few percent; exact costs about as much again "
        "as the LM head.",
        choices=("sketch", "exact"),
    ),
    _sketch("seed", "Seed of the random projections.", metavar="N"),
    _running("out", "Directory to write; one that was interrupted is resumed.", metavar="RUN"),
    _running("overwrite", "Replace RUN if it is there."),
    _running("dry_run", "Say what would be done, with an estimate of time and storage, and do nothing."),
    _running("workers", "Local processes.", metavar="N"),
    _running("threads", "Threads of each process for the model; the same count gives the same bytes.", metavar="N"),
    _running(
        "block_bytes",
        "Size, in bytes, of the pieces into which large shards are cut; memory is bounded by it.",
        metavar="BYTES",
    ),
]


@pass_command(
    EmbedConfig,
    PARAMETERS,
    "cptsel embed 'corpus/*/*.jsonl.gz' --model models/base --group-by language --out run --workers 4",
)
def embed(config: EmbedConfig, progress: Any) -> Summary:
    """Embed a corpus: one sketched gradient for every sample.

    Reads JSONL (plain, .gz or .zst) and Parquet shards, cuts every document into windows, and writes for each window
    the gradient of its loss with respect to the LM head, sketched to K numbers. No backward pass is run. What follows
    -- goes to Apache Beam.
    """
    from cptsel.pipeline.embed import embed as run

    return run(config, progress)
