"""θ' a few steps along the new domain: which text the steps see, and the checkpoint that they give."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from cptsel.pipeline import hashing, io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.corpus.documents import ReadOptions, read_block, read_stream
from cptsel.pipeline.corpus.listing import Files, list_inputs
from cptsel.pipeline.corpus.pool import Pool, Range
from cptsel.pipeline.corpus.shards import Shard, inventory
from cptsel.pipeline.embedding.begun import begun_run
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.cutting import Sample, cut_block
from cptsel.pipeline.embedding.plan import (
    ModelPlan,
    check_runs_here,
    holds_ids,
    lookahead_difference,
    plan_model,
    remedy_for,
    tokenizer_of,
)
from cptsel.pipeline.embedding.pool import read_options
from cptsel.pipeline.embedding.probe import probe
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.model.batching import batches
from cptsel.pipeline.model.frozen import FrozenModel
from cptsel.pipeline.model.lookahead import save, take_steps
from cptsel.pipeline.summary import counted
from cptsel.schemas.arrow import SPEC_VERSION
from cptsel.schemas.headers import LookaheadHeader
from cptsel.schemas.validation import validate

FACTS = "lookahead.json"
FOLDER = "lookahead"  # below a run
DEFAULT_LR = {"adamw": 3e-4, "sgd": 0.1}
_SPARE = 1.5  # documents are drawn for so many times the tokens that are wanted


@dataclass(frozen=True)
class Training:
    """How θ' is reached from θ: ``tokens`` of the new corpus a step, at least one window."""

    steps: int
    optimizer: str
    lr: float
    tokens: int
    seed: int


def training_of(steps: int, optimizer: str, lr: float | None, tokens: int, seed: int) -> Training:
    """With the optimiser's own learning rate where none is given."""
    return Training(steps, optimizer, DEFAULT_LR[optimizer] if lr is None else lr, tokens, seed)


@dataclass(frozen=True, eq=False)
class NewCorpus:
    """The text that the steps go along.

    Attributes:
        files: (uri, path, bytes) of every shard.
        shards: what the inventory found of them.
        read: how rows are read.
        named: format of all files, if it is known.
    """

    files: Files
    shards: list[Shard]
    read: ReadOptions
    named: str | None


def new_corpus(files: Files, read: ReadOptions, named: str | None) -> NewCorpus:
    """Hash every file and find its blocks.

    Raises:
        UsageError: a file can't be read.
    """
    shards = []
    for number, (uri, path, size) in enumerate(files):
        try:
            shards.append(inventory(number, uri, path, size, read.block_bytes, named, tokens=read.tokens))
        except OSError as error:
            raise UsageError(f"{uri}: {error}; mend or leave it out") from error
    return NewCorpus(files, shards, read, named)


def make_lookahead(
    folder: str, training: Training, plan: ModelPlan, corpus: NewCorpus, progress: Progress | None = None
) -> LookaheadHeader:
    """Take the steps and write the checkpoint, with what is to be known of it in ``lookahead.json``, which comes last.

    Args:
        folder: to write; local.
        training: the steps.
        plan: of the model, which is loaded in float32.
        corpus: along which they go.
        progress: told how many steps are taken.

    Returns:
        The facts.

    Raises:
        UsageError: the corpus has not enough text, or the loss grows.
    """
    windows = _draw(corpus, training, plan)
    model = FrozenModel(plan.spec)

    def taken(done: int) -> None:
        if progress is not None:
            progress(done, training.steps, "steps along the new corpus")

    batched = [_batches(part, plan) for part in windows]
    losses = take_steps(model, batched, training.optimizer, training.lr, taken)
    shutil.rmtree(folder, ignore_errors=True)  # what a killed call has left
    os.makedirs(folder)
    save(model, folder)
    facts = identity(training, plan, corpus) | {
        "format": "cptsel.lookahead",
        "spec_version": SPEC_VERSION,
        "model": plan.facts["source"],
        "documents": len({sample.doc_key for part in windows for sample in part}),
        "windows": sum(map(len, windows)),
        "losses": losses,
    }
    header = validate(facts, "lookahead")
    io.write_json(io.join(folder, FACTS), header)
    return header


def ahead(
    config: EmbedConfig, base: ModelPlan, here: bool, progress: Progress | None = None
) -> tuple[ModelPlan, dict[str, Any]]:
    """The model of ``embed --lookahead``, made in ``.work`` where RUN does not have it, and what decides it.

    Raises:
        UsageError: as of ``make_lookahead``, or the run is written to a remote filesystem.
    """
    if io.is_remote(config.out):
        raise UsageError(
            f"--lookahead: workers can't load a checkpoint from {config.out}; make it by cptsel lookahead in a folder "
            "that they see, and give it as --model, and the model itself as --base"
        )
    _, files = list_inputs(config.lookahead, None)  # --format is of the old corpus
    start = plan_model(
        replace(config, dtype="float32", gradient="head", modules=None), here, text=not holds_ids(files, None)
    )
    training = training_of(
        config.lookahead_steps, config.lookahead_optimizer, config.lookahead_lr, config.lookahead_tokens, config.seed
    )
    corpus = new_corpus(files, replace(read_options(config, start), limit=None, group_by=()), None)
    asked = identity(training, start, corpus)
    place, work = io.join(config.out, FOLDER), io.join(config.out, outputs.WORK, FOLDER)
    found = next((folder for folder in (place, work) if not config.overwrite and _holds(folder, asked)), None)
    if found is None:
        _refuse_other(config, asked)
        check_runs_here(start, "--lookahead", "give a checkpoint made by cptsel lookahead as --model, with --base")
        make_lookahead(work, training, start, corpus, progress)
        found = work
    moved = plan_model(replace(config, model=found, revision=None), here, base.has_tokenizer)
    facts: Any = {**moved.facts, "source": config.model, "revision": base.facts["revision"]}
    before = None if config.skip_base_loss else (base.spec.source, base.spec.revision)
    spec = replace(moved.spec, source=place, mixing=base.spec.mixing, base=before)
    return replace(moved, spec=spec, facts=facts), asked


def _refuse_other(config: EmbedConfig, asked: dict[str, Any]) -> None:
    """Raise UsageError where a run was begun at another checkpoint, before this one is made in vain."""
    header = begun_run(config)
    if header and (begun := header["options"].get("lookahead")) != asked:
        raise UsageError(f"{config.out}: {lookahead_difference(begun, asked)}; {remedy_for(config)}")


def put_in_place(out: str) -> None:
    """Move a checkpoint that was made for a run from ``.work`` to where its workers read it."""
    place, work = io.join(out, FOLDER), io.join(out, outputs.WORK, FOLDER)
    if not io.is_remote(out) and os.path.isdir(work):
        shutil.rmtree(place, ignore_errors=True)
        os.replace(work, place)


def _holds(folder: str, asked: dict[str, Any]) -> bool:
    path = io.join(folder, FACTS)
    found = io.read_json(path) if io.exists(path) else None
    return isinstance(found, dict) and asked.items() <= found.items()


def identity(training: Training, plan: ModelPlan, corpus: NewCorpus) -> dict[str, Any]:
    """What decides θ': the steps, θ and the new corpus, by fingerprints."""
    return asdict(training) | {
        "weights": plan.weights,
        "max_tokens": plan.max_tokens,
        "corpus": hashing.fingerprint([shard.identity for shard in corpus.shards]),
    }


def _draw(corpus: NewCorpus, training: Training, plan: ModelPlan) -> list[list[Sample]]:
    """Windows of each step: of documents in the order of variates of their names, until there are tokens enough."""
    wanted, tokenizer = training.steps * training.tokens, tokenizer_of(plan)
    there = probe(corpus.files, corpus.read, tokenizer, plan.prefix, plan.max_tokens, corpus.named).tokens
    for rate in dict.fromkeys((min(1.0, _SPARE * wanted / max(there, 1.0)), 1.0)):
        read = replace(corpus.read, pool=Pool(training.seed, Range(0.0, rate)))
        samples = [sample for shard in corpus.shards for sample in _samples(shard, read, plan, tokenizer)]
        samples.sort(key=lambda sample: (sample.document.pool_place, sample.doc_key, sample.window))
        parts = _deal(samples, training)
        if len(parts) == training.steps:
            return parts
    tokens = sum(len(sample.ids) for sample in samples)
    raise UsageError(
        f"the new corpus has {counted(tokens, 'token')}, and {counted(training.steps, 'step')} of {training.tokens:,} "
        f"take {wanted:,}; ask for fewer of either"
    )


def _deal(samples: Sequence[Sample], training: Training) -> list[list[Sample]]:
    """The windows of each step; fewer steps where they run out."""
    parts: list[list[Sample]] = []
    room = 0
    for sample in samples:
        if room <= 0:
            if len(parts) == training.steps:
                return parts
            parts.append([])
            room = training.tokens
        parts[-1].append(sample)
        room -= len(sample.ids)
    return parts if room <= 0 else parts[:-1]


def _samples(shard: Shard, read: ReadOptions, plan: ModelPlan, tokenizer: Any) -> list[Sample]:
    try:
        blocks = (
            read_stream(shard, read) if shard.blocks is None else (read_block(shard, b, read) for b in shard.blocks)
        )
        cuts = [cut_block(shard.path, block, tokenizer, plan.prefix, plan.max_tokens) for block in blocks]
    except OSError as error:
        raise UsageError(f"{shard.uri}: {error}; mend or leave it out") from error
    return [sample for cut in cuts for sample in cut.samples]


def _batches(samples: Sequence[Sample], plan: ModelPlan) -> list[list[np.ndarray]]:
    """The windows of a step in batches, each window behind the prefix: int32 arrays of ids."""
    prefix = np.asarray(plan.prefix.ids, np.int32)
    lengths = [len(sample.ids) for sample in samples]
    return [
        [np.concatenate([prefix, samples[i].ids]) for i in batch] for batch in batches(lengths, plan.tokens_per_batch)
    ]
