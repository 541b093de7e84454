"""The options of ``cptsel embed``, each declared once."""

from dataclasses import dataclass

from cptsel.pipeline.artifacts.shard_range import parse_range
from cptsel.pipeline.config import Configuration, ReadBy, argument, option
from cptsel.pipeline.corpus.formats.registry import FORMATS
from cptsel.pipeline.embedding.pool_size import parse_duration, parse_pool
from cptsel.pipeline.model.device_map import parse_device_map

_CORPUS, _POOL, _MODEL = "Corpus", "Candidate pool", "Model and windows"
_SKETCH, _RUNNING = "Embeddings", "Running"
_LOOKAHEAD = "Lookahead"
_AHEAD = ReadBy("with --lookahead", lambda config: bool(config.lookahead))
_STEPS_HELP = "Training steps on the new corpus; too few show little of what it will make the model forget."
_OPTIMIZER_HELP = "adamw has betas 0.9 and 0.95 and no weight decay; sgd is plain gradient descent."
_LR_HELP = "Learning rate of every step; use that of the training to come. By default 3e-4 with adamw and 0.1 with sgd."
_TOKENS_HELP = "Tokens of the new corpus that each step sees, at least."
_DRAWN = ReadBy("with --pool or --time-budget", lambda config: bool(config.pool or config.time_budget))


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(Configuration):
    """Options of ``cptsel embed``; see its ``--help`` and docs/cli.md for the meaning of each."""

    inputs: tuple[str, ...] = argument(
        "Shards: globs or paths, local or on a filesystem that Beam supports (gs://, s3://, hdfs://), or "
        "@FILE, a file with one of them per line. Hidden files, and marks such as _SUCCESS or _temporary, "
        "are read only if they are named.",
        metavar="'GLOB'...",
    )

    format: str | None = option(
        None,
        "Format of all shards; by default it follows from each shard's suffix. Compression always follows "
        "from the suffix (.gz, .zst, .zstd).",
        section=_CORPUS,
        choices=FORMATS,
    )
    root: str | None = option(
        None,
        "Directory that shard paths are relative to, so that sample ids stay the same if the corpus moves; "
        "by default the longest common directory of the globs.",
        section=_CORPUS,
        metavar="DIR",
    )
    text_field: str = option(
        "text",
        "Field or column with the text, such as meta.body for the field body in meta; in a WebDataset the "
        "extension of a member (text also means txt), or a field of its json.",
        section=_CORPUS,
        metavar="NAME",
    )
    id_field: str | None = option(
        "id",
        "Field or column with the corpus's own document id, such as meta.id for the field id in meta; it may "
        "be missing.",
        section=_CORPUS,
        metavar="NAME",
    )
    group_by: tuple[str, ...] = option(
        (),
        "Field or column, such as language or meta.domain, to keep as a group column; or a part of the "
        "shard's path: the key of a Hive partition (lang in lang=de/), or path[0], path[1], ... below "
        "--root; repeatable.",
        section=_CORPUS,
        metavar="COLUMN",
    )
    eod_token_id: int | None = option(
        None,
        "For a corpus of token ids: the id that ends a document in its files and is not part of it; by "
        "default the EOS of the model's tokenizer, or of its configuration.",
        section=_CORPUS,
        metavar="ID",
        least=0,
    )
    exclude: str | None = option(
        None,
        "File of doc_ids, doc_keys, sample_ids or hex content hashes to leave out, one per line.",
        section=_CORPUS,
        metavar="FILE",
    )
    limit: int | None = option(
        None, "Read only the first N rows of every shard, for a trial.", section=_CORPUS, metavar="N", least=1
    )
    max_bad_fraction: float = option(
        0.01,
        "Largest share of the corpus's rows, windows or bytes, from 0 to 1, that may be lost to damage "
        "before the run fails with exit code 3.",
        section=_CORPUS,
        metavar="SHARE",
        least=0,
        most=1,
    )
    max_line_bytes: int = option(
        8 << 20,
        "Reject lines of JSONL, and documents of other formats, that are longer than this, in bytes; the "
        "tokenizer needs many times as much memory.",
        section=_CORPUS,
        metavar="BYTES",
        least=1,
    )

    pool: str | None = option(
        None,
        "Embed only a random sample of the corpus's documents: 2%, '50B tokens' or '200000 documents'. What is chosen "
        "from it stands for the whole corpus.",
        section=_POOL,
        metavar="SIZE",
        parse=parse_pool,
    )
    time_budget: str | None = option(
        None,
        "Embed as large a pool as this time allows, by the speed of a short trial and --workers: 90m, 6h or 2d.",
        section=_POOL,
        metavar="TIME",
        parse=parse_duration,
    )
    pool_alpha: float = option(
        1.0,
        "Draw each group (of the first --group-by) at a rate proportional to size ** (alpha - 1): 1 draws "
        "the same share of every group, 0 the same amount. If the group is a column of Parquet, Arrow, or "
        "uncompressed MDS or tar, finding the sizes takes one more reading.",
        section=_POOL,
        metavar="ALPHA",
        least=0,
        most=1,
        read=_DRAWN,
    )
    grow: str | None = option(
        None,
        "Finished run of a smaller pool of this corpus: take over its windows and embed the new ones. The "
        "last windows of every block, up to four batches, are embedded again, so small blocks gain nothing. "
        "All other options that shape rows, including --lookahead, must be as in that run.",
        section=_POOL,
        metavar="RUN",
        read=_DRAWN,
    )
    after: str | None = option(
        None,
        "Run of another pool of this corpus: draw only from what comes after that pool, so that no document "
        "is in both. All other options that shape rows, including --lookahead, must be as in that run.",
        section=_POOL,
        metavar="RUN",
        read=_DRAWN,
    )

    model: str = option(
        help="Causal language model, as a directory or a Hub id; weights are read from safetensors only.",
        section=_MODEL,
        metavar="PATH_OR_HUB_ID",
    )
    revision: str | None = option(
        None, "Revision of a model on the Hub: branch, tag or commit.", section=_MODEL, metavar="NAME"
    )
    trust_remote_code: bool = option(False, "Run Python code that comes with the model.", section=_MODEL)
    max_tokens: int | None = option(
        None,
        "Longest window, in tokens; longer documents become several windows. By default 1024, or as many as "
        "the model takes if that is fewer.",
        section=_MODEL,
        metavar="N",
        least=1,
    )
    split_special_tokens: bool = option(
        False,
        "Treat text that spells a special token, such as </s> in a document, as text; by default it becomes "
        "the id of that token, as in the tokenizer.",
        section=_MODEL,
    )
    dtype: str = option(
        "auto",
        "Number type that the model runs in; auto is float32 on a CPU, and the type of the weights on a GPU. "
        "Gradients are always summed in float32.",
        section=_MODEL,
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    device: str = option(
        "auto",
        "Device to run on, such as cpu or cuda:0; auto uses an accelerator if there is one.",
        section=_MODEL,
        metavar="NAME",
    )
    device_map: str | None = option(
        None,
        "For a model that is larger than one device: auto, or a JSON file with the devices of its modules, "
        'such as {"model.layers.0": 0, ...}; "cpu" and "disk" keep a module outside the GPU until its turn. '
        "Needs accelerate.",
        section=_MODEL,
        metavar="auto|FILE",
        parse=parse_device_map,
        read=ReadBy("with --device auto", lambda config: config.device == "auto"),
    )
    tokens_per_batch: int | None = option(
        None,
        "Most tokens in one forward pass, padding included; changes speed and memory. By default 4096 on a "
        "CPU and 32768 on a GPU.",
        section=_MODEL,
        metavar="N",
        least=1,
    )

    lookahead: tuple[str, ...] = option(
        (),
        "New corpus, as a path, glob or @FILE; repeatable. Embed not with --model itself but with a copy "
        "that was trained for a few steps on this text, where forgetting shows. The copy is kept in RUN/lookahead.",
        section=_LOOKAHEAD,
        metavar="'GLOB'",
    )
    lookahead_steps: int = option(50, _STEPS_HELP, section=_LOOKAHEAD, metavar="N", least=1, read=_AHEAD)
    lookahead_optimizer: str = option(
        "adamw", _OPTIMIZER_HELP, section=_LOOKAHEAD, choices=("adamw", "sgd"), read=_AHEAD
    )
    lookahead_lr: float | None = option(None, _LR_HELP, section=_LOOKAHEAD, metavar="LR", above=0, read=_AHEAD)
    lookahead_tokens: int = option(4_096, _TOKENS_HELP, section=_LOOKAHEAD, metavar="N", least=1, read=_AHEAD)
    base: str | None = option(
        None,
        "If --model was already trained on new text: the model before that, as a directory or a Hub id. It "
        "is run too, for its losses, which show what has been forgotten since.",
        section=_LOOKAHEAD,
        metavar="MODEL",
        read=ReadBy("without --lookahead, which makes the checkpoint itself", lambda config: not config.lookahead),
    )
    skip_base_loss: bool = option(
        False,
        "Don't also run --model itself for its losses, which show what the new corpus makes it forget.",
        section=_LOOKAHEAD,
        read=_AHEAD,
    )

    gradient: str = option(
        "head",
        "Layers whose gradients are taken: head is the LM head, which needs only a forward pass; body is all "
        "linear layers below it, which need a backward pass, at two to three times the cost; head+body is "
        "both, each scaled to the same size.",
        section=_SKETCH,
        choices=("head", "body", "head+body"),
    )
    modules: str | None = option(
        None,
        "Take only the layers of the body whose name matches this glob, such as '*mlp*'.",
        section=_SKETCH,
        metavar="PATTERN",
        read=ReadBy("with a --gradient of the body", lambda config: "body" in config.gradient),
    )
    mixing: str | None = option(
        None,
        "Run whose scaling factors of head and body are used, so that both runs can be used together. By "
        "default the factors are measured on a few documents; they are the same for the same corpus and "
        "model, with and without --lookahead.",
        section=_SKETCH,
        metavar="RUN",
        read=ReadBy("with --gradient head+body", lambda config: config.gradient == "head+body"),
    )
    sketch_dim: int = option(
        1024,
        "Length of the sketch that is stored for every sample.",
        section=_SKETCH,
        metavar="K",
        least=1,
        most=1 << 20,
    )
    validation_dim: int = option(
        256,
        "Length of the second, independent sketch, on which selections are validated.",
        section=_SKETCH,
        metavar="K",
        least=1,
        most=1 << 20,
    )
    storage: str = option(
        "float16",
        "How directions are stored; int8 takes half the space.",
        section=_SKETCH,
        choices=("float16", "int8"),
    )
    norm: str = option(
        "sketch",
        "How grad_norm is computed: sketch is free and accurate to a few percent; exact costs about as much "
        "again as the LM head.",
        section=_SKETCH,
        choices=("sketch", "exact"),
    )
    seed: int = option(0, "Seed of the random projections and of the pool.", section=_SKETCH, metavar="N", least=0)

    out: str = option(help="Directory to write; an interrupted one is resumed.", section=_RUNNING, metavar="RUN")
    overwrite: bool = option(False, "Replace RUN if it exists.", section=_RUNNING)
    dry_run: bool = option(
        False, "Only say what would be done, with an estimate of time and storage.", section=_RUNNING
    )
    keep_going: bool = option(
        False,
        "If the model fails on a block, continue with the others and name its shard at the end, as is always "
        "done if a file can't be read. The exit code is 5, and a rerun does only what failed.",
        section=_RUNNING,
    )
    shard_range: str | None = option(
        None,
        "Embed range I, counted from 0, of N ranges of the shards. Run N commands with the same options, on "
        "machines that all see RUN; the last one finishes it. In a Slurm array: "
        "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT.",
        section=_RUNNING,
        metavar="I/N",
        parse=parse_range,
    )
    workers: int = option(1, "Local processes.", section=_RUNNING, metavar="N", least=1, most=1024)
    threads: int = option(
        1,
        "Threads of the model in each process; the same number gives the same bytes.",
        section=_RUNNING,
        metavar="N",
        least=1,
        most=1024,
    )
    block_bytes: int | None = option(
        None,
        "Size, in bytes, of the blocks into which large shards are cut; memory is bounded by what is drawn "
        "from one. By default as in the run of --out, --grow or --after; otherwise 8 MiB, or with a pool up "
        "to 256 MiB: 8 MiB divided by its rate, a power of 2, and no more than a 64th of the corpus.",
        section=_RUNNING,
        metavar="BYTES",
        least=1,
    )
    beam_args: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LookaheadConfig(Configuration):
    """Options of ``cptsel lookahead``."""

    model: str = argument(
        "Causal language model, as a directory or a Hub id; weights are read from safetensors only.", metavar="MODEL"
    )
    inputs: tuple[str, ...] = argument("New corpus: globs, paths or @FILE, as for embed.", metavar="'NEW'...")
    steps: int = option(50, _STEPS_HELP, section=_LOOKAHEAD, metavar="N", least=1)
    optimizer: str = option("adamw", _OPTIMIZER_HELP, section=_LOOKAHEAD, choices=("adamw", "sgd"))
    lr: float | None = option(None, _LR_HELP, section=_LOOKAHEAD, metavar="LR", above=0)
    tokens: int = option(4_096, _TOKENS_HELP, section=_LOOKAHEAD, metavar="N", least=1)
    seed: int = option(0, "Seed of the draw of documents.", section=_LOOKAHEAD, metavar="N", least=0)
    format: str | None = option(
        None, "Format of all shards; by default it follows from each shard's suffix.", section=_CORPUS, choices=FORMATS
    )
    root: str | None = option(None, "Directory that shard paths are relative to.", section=_CORPUS, metavar="DIR")
    text_field: str = option("text", "Field or column with the text.", section=_CORPUS, metavar="NAME")
    revision: str | None = option(
        None, "Revision of a model on the Hub: branch, tag or commit.", section=_MODEL, metavar="NAME"
    )
    trust_remote_code: bool = option(False, "Run Python code that comes with the model.", section=_MODEL)
    max_tokens: int | None = option(
        None,
        "Longest window, in tokens; by default 1024, or as many as the model takes if that is fewer.",
        section=_MODEL,
        metavar="N",
        least=1,
    )
    device: str = option("auto", "Device to run on, such as cpu or cuda:0.", section=_MODEL, metavar="NAME")
    threads: int = option(
        1,
        "Threads of the model; the same number gives the same bytes.",
        section=_RUNNING,
        metavar="N",
        least=1,
        most=1024,
    )
    out: str = option(help="Directory to write; give it to embed as --model.", section=_RUNNING, metavar="DIR")
    overwrite: bool = option(False, "Replace the directory if it exists.", section=_RUNNING)
    dry_run: bool = option(False, "Only say what would be done.", section=_RUNNING)
