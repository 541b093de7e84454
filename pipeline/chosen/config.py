"""The options of ``cptsel distill`` and ``cptsel fisher``, each declared once."""

from dataclasses import dataclass

from cptsel.pipeline.config import Configuration, ReadBy, argument, option

_MODEL, _RUNNING, _TARGETS, _FISHER = "Model and corpus", "Running", "Targets", "Fisher information"
_LOGITS = ReadBy("with --targets logits", lambda config: config.targets == "logits")
_HIDDEN = ReadBy("with --targets hidden", lambda config: config.targets == "hidden")
_PROJECTED = ReadBy("with --project", lambda config: config.project is not None)
_DRAWN = ReadBy("with --kind true", lambda config: config.kind == "true")
_REPLAY = "Directory written by cptsel select or cptsel order."
_DTYPE = "Number type that the model runs in; "


@dataclass(frozen=True, kw_only=True)
class AtModel(Configuration):
    """What both commands are told of the model, of the corpus and of how to run."""

    model: str = option(
        help="Causal language model, as a directory or a Hub id: the one that the manifest names, or with "
        "--any-model another with the same tokenizer.",
        section=_MODEL,
        metavar="PATH_OR_HUB_ID",
    )
    any_model: bool = option(
        False,
        "Accept a model whose fingerprint the manifest does not name, such as a later checkpoint.",
        section=_MODEL,
    )
    revision: str | None = option(
        None, "Revision of a model on the Hub: branch, tag or commit.", section=_MODEL, metavar="NAME"
    )
    trust_remote_code: bool = option(False, "Run Python code that comes with the model.", section=_MODEL)
    dtype: str = option(
        "auto",
        _DTYPE + "auto is float32 on a CPU, and the type of the weights on a GPU.",
        section=_MODEL,
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    device: str = option(
        "auto",
        "Device to run on, such as cpu or cuda:0; auto uses an accelerator if there is one.",
        section=_MODEL,
        metavar="NAME",
    )
    root: str | None = option(
        None,
        "Directory where the corpus is now; by default where it was embedded.",
        section=_MODEL,
        metavar="DIR",
    )
    out: str = option(help="Directory to write; an interrupted one is resumed.", section=_RUNNING, metavar="DIR")
    overwrite: bool = option(False, "Replace the directory if it exists.", section=_RUNNING)
    dry_run: bool = option(False, "Only say what would be done.", section=_RUNNING)
    workers: int = option(1, "Local processes.", section=_RUNNING, metavar="N", least=1, most=1024)
    threads: int = option(
        1,
        "Threads of the model in each process; the same number gives the same bytes.",
        section=_RUNNING,
        metavar="N",
        least=1,
        most=1024,
    )
    beam_args: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Distill:
    replay: str = argument(_REPLAY, metavar="REPLAY")
    targets: str = option(
        "logits",
        "logits: the most likely tokens at every position, with the logs of their probabilities and of the "
        "remaining probability; hidden: the states that the LM head reads.",
        section=_TARGETS,
        choices=("logits", "hidden"),
    )
    top_k: int = option(64, "Tokens to keep per position.", section=_TARGETS, metavar="K", least=1, read=_LOGITS)
    project: int | None = option(
        None,
        "Project hidden states to this many numbers, by a random matrix that is stored beside them.",
        section=_TARGETS,
        metavar="N",
        least=1,
        most=1 << 16,
        read=_HIDDEN,
    )
    seed: int = option(0, "Seed of that matrix.", section=_TARGETS, metavar="N", least=0, read=_PROJECTED)


@dataclass(frozen=True, kw_only=True)
class DistillConfig(AtModel, _Distill):  # the fields of the last base come first
    """Options of ``cptsel distill``."""

    tokens_per_batch: int | None = option(
        None,
        "Most tokens in one forward pass, padding included; by default 4096 on a CPU and 32768 on a GPU.",
        section=_RUNNING,
        metavar="N",
        least=1,
    )
    unit_tokens: int = option(
        1 << 18,
        "Tokens per file, at least. A file is what one worker processes, holds in memory and resumes.",
        section=_RUNNING,
        metavar="N",
        least=1,
    )


@dataclass(frozen=True, kw_only=True)
class _Fisher:
    replay: str = argument(_REPLAY, metavar="REPLAY")
    kind: str = option(
        "true",
        "true draws the labels from the model, which gives the Fisher information proper; empirical uses the "
        "text's own tokens.",
        section=_FISHER,
        choices=("true", "empirical"),
    )
    weights: str = option(
        "mass",
        "How much a token of a sample counts: mass is its weight, with which it stands for the corpus; "
        "played is what the trainer makes of the weight, such as repeats.",
        section=_FISHER,
        choices=("mass", "played"),
    )
    seed: int = option(0, "Seed of the labels.", section=_FISHER, metavar="N", least=0, read=_DRAWN)


@dataclass(frozen=True, kw_only=True)
class FisherConfig(AtModel, _Fisher):  # the fields of the last base come first
    """Options of ``cptsel fisher``."""

    dtype: str = option(
        "float32",
        _DTYPE + "squares are always summed in float32. In float16, gradients would vanish.",
        section=_MODEL,
        choices=("float32", "bfloat16"),
    )
    unit_tokens: int = option(
        1 << 20,
        "Tokens per partial sum, at least. A partial sum is what one worker computes, writes and resumes; "
        "each takes four bytes per parameter on disk until the end.",
        section=_RUNNING,
        metavar="N",
        least=1,
    )
