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
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.cutting import Sample, cut_block
from cptsel.pipeline.embedding.plan import (
    ModelPlan,
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
from cptsel.schemas.arrow import SPEC_VERSION
from cptsel.schemas.headers import LookaheadHeader
from cptsel.schemas.validation import validate

FACTS = "lookahead.json"
FOLDER = "lookahead"  # below a run
DEFAULT_LR = {"adamw": 3e-4, "sgd": 0.1}
_SPARE = 1.5  # documents are drawn for so many times the tokens that are wanted


@dataclass(frozen=True)
class Steps:
    """How θ' is reached from θ: ``tokens`` of the new corpus a step, at least one window."""

    steps: int
    optimizer: str
    lr: float
    tokens: int
    seed: int


def make_lookahead(
    folder: str,
    steps: Steps,
    plan: ModelPlan,
    files: Files,
    read: ReadOptions,
    named: str | None,
    progress: Progress | None = None,
) -> LookaheadHeader:
    """Take the steps and write the checkpoint, with what is to be known of it in ``lookahead.json``, which comes last.

    Args:
        folder: to write; local.
        steps: of the training.
        plan: of the model, which is loaded in float32.
        files: (uri, path, bytes) of every shard of the new corpus.
        read: how its rows are read.
        named: format of all files, if it is known.
        progress: told how many steps are taken.

    Returns:
        The facts.

    Raises:
        UsageError: the corpus has not enough text, or the loss grows.
    """
    shards = _shards(files, read, named)
    tokenizer = tokenizer_of(plan)
    windows = _draw(shards, steps, plan, tokenizer, files, read, named)
    model = FrozenModel(plan.spec)
    prefix = np.asarray(plan.prefix.ids, np.int32)
    parts = [
        [[np.concatenate([prefix, part[i].ids]) for i in batch] for batch in _batched(part, plan)] for part in windows
    ]

    def taken(done: int) -> None:
        if progress is not None:
            progress(done, steps.steps, "steps along the new corpus")

    losses = take_steps(model, parts, steps.optimizer, steps.lr, taken)
    shutil.rmtree(folder, ignore_errors=True)  # what a killed call has left
    os.makedirs(folder)
    save(model, folder)
    facts = identity(steps, plan, shards) | {
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


def steps_of(steps: int, optimizer: str, lr: float | None, tokens: int, seed: int) -> Steps:
    """With the optimiser's own learning rate where none is given."""
    return Steps(steps, optimizer, DEFAULT_LR[optimizer] if lr is None else lr, tokens, seed)


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
    text = not holds_ids(files, None)
    start = plan_model(replace(config, dtype="float32", gradient="head", modules=None), here, text)
    steps = steps_of(
        config.lookahead_steps, config.lookahead_optimizer, config.lookahead_lr, config.lookahead_tokens, config.seed
    )
    read = replace(read_options(config, start), limit=None, group_by=())
    asked = identity(steps, start, _shards(files, read, None))
    place, work = io.join(config.out, FOLDER), io.join(config.out, outputs.WORK, FOLDER)
    found = next((folder for folder in (place, work) if not config.overwrite and _holds(folder, asked)), None)
    if found is None:
        _refuse_other(config, asked)
        make_lookahead(work, steps, start, files, read, None, progress)
        found = work
    moved = plan_model(replace(config, model=found, revision=None), here, base.has_tokenizer)
    facts: Any = {**moved.facts, "source": config.model, "revision": base.facts["revision"]}
    before = None if config.skip_base_loss else (base.spec.source, base.spec.revision)
    spec = replace(moved.spec, source=place, mixing=base.spec.mixing, base=before)
    return replace(moved, spec=spec, facts=facts), asked


def _refuse_other(config: EmbedConfig, asked: dict[str, Any]) -> None:
    """Raise UsageError where a run was begun at another checkpoint, before this one is made in vain."""
    path = io.join(config.out, "run.json")
    if not config.overwrite and io.exists(path):
        header = io.read_json(path)
        begun = header.get("options", {}).get("lookahead") if isinstance(header, dict) else None
        if begun != asked:
            raise UsageError(f"{config.out}: {lookahead_difference(begun, asked)}; {remedy_for(config)}")


def put_in_place(out: str) -> None:
    """Move a checkpoint that was made for a run from ``.work`` to where its workers read it."""
    place, work = io.join(out, FOLDER), io.join(out, outputs.WORK, FOLDER)
    if not io.is_remote(out) and os.path.isdir(work):
        shutil.rmtree(place, ignore_errors=True)
        os.replace(work, place)


def _holds(folder: str, asked: dict[str, Any]) -> bool:
    path = io.join(folder, FACTS)
    return io.exists(path) and asked.items() <= io.read_json(path).items()


def identity(steps: Steps, plan: ModelPlan, shards: Sequence[Shard]) -> dict[str, Any]:
    """What decides θ': the steps, θ and the new corpus, by fingerprints."""
    return asdict(steps) | {
        "weights": plan.weights,
        "max_tokens": plan.max_tokens,
        "corpus": hashing.fingerprint([shard.identity for shard in shards]),
    }


def _shards(files: Files, read: ReadOptions, named: str | None) -> list[Shard]:
    found = []
    for number, (uri, path, size) in enumerate(files):
        try:
            found.append(inventory(number, uri, path, size, read.block_bytes, named, tokens=read.tokens))
        except OSError as error:
            raise UsageError(f"{uri}: {error}; mend or leave it out") from error
    return found


def _draw(
    shards: Sequence[Shard],
    steps: Steps,
    plan: ModelPlan,
    tokenizer: Any,
    files: Files,
    read: ReadOptions,
    named: str | None,
) -> list[list[Sample]]:
    """Windows of each step: of documents in the order of variates of their names, until there are tokens enough."""
    wanted = steps.steps * steps.tokens
    there = probe(files, read, tokenizer, plan.prefix, plan.max_tokens, named).tokens
    for rate in dict.fromkeys((min(1.0, _SPARE * wanted / max(there, 1.0)), 1.0)):
        pool = replace(read, pool=Pool(steps.seed, Range(0.0, rate)))
        samples = [sample for shard in shards for sample in _samples(shard, pool, plan, tokenizer)]
        samples.sort(key=lambda sample: (sample.document.pool_place, sample.doc_key, sample.window))
        parts = _deal(samples, steps)
        if len(parts) == steps.steps:
            return parts
    tokens = sum(len(sample.ids) for sample in samples)
    raise UsageError(
        f"the new corpus has {tokens:,} tokens, and {steps.steps} steps of {steps.tokens:,} take {wanted:,}; ask for "
        "fewer of either"
    )


def _deal(samples: Sequence[Sample], steps: Steps) -> list[list[Sample]]:
    """The windows of each step; fewer steps where they run out."""
    parts: list[list[Sample]] = []
    room = 0
    for sample in samples:
        if room <= 0:
            if len(parts) == steps.steps:
                return parts
            parts.append([])
            room = steps.tokens
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


def _batched(samples: Sequence[Sample], plan: ModelPlan) -> list[list[int]]:
    return list(batches([len(sample.ids) for sample in samples], plan.tokens_per_batch))
