"""``cptsel lookahead``: a checkpoint a few steps along a new corpus, at which an old one is then embedded."""

import os
import time

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.writing import check_apart, commit, writing
from cptsel.pipeline.config import check_values, to_yaml
from cptsel.pipeline.corpus.listing import list_inputs
from cptsel.pipeline.embedding.config import EmbedConfig, LookaheadConfig
from cptsel.pipeline.embedding.lookahead import make_lookahead, new_corpus, training_of
from cptsel.pipeline.embedding.plan import holds_ids, plan_model
from cptsel.pipeline.embedding.pool import read_options
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.results import LookaheadResult

_MODEL_FILES = r"[^/]+\.(json|safetensors|model|txt|jinja|py)"


def lookahead(config: LookaheadConfig, progress: Progress | None = None) -> LookaheadResult:
    """Run ``cptsel lookahead``.

    Returns:
        The summary that the command prints.

    Raises:
        UsageError: an option, path or model that can't be used, too little text, or a loss that grows.
    """
    began = time.monotonic()
    check_values(config)
    out = io.absolute(config.out)
    if io.is_remote(out):
        raise UsageError(
            f"--out {config.out}: checkpoints are written to local or mounted directories; copy it from one"
        )
    model = os.path.abspath(config.model) if os.path.isdir(config.model) else config.model
    if os.path.isdir(model):
        check_apart(out, model)
    _, files = list_inputs(config.inputs, config.root, config.format)
    as_embed = _as_embed(config, model, out)
    plan = plan_model(as_embed, text=not holds_ids(files, config.format))
    training = training_of(config.steps, config.optimizer, config.lr, config.tokens, config.seed)
    with writing(out, "lookahead", overwrite=config.overwrite, dry_run=config.dry_run, data=_MODEL_FILES) as output:
        if config.dry_run:
            return LookaheadResult(
                out=out, status="dry-run", files=len(files), steps=training.steps, tokens_a_step=training.tokens
            )
        if output.is_new:  # mark it as ours before anything else is in it
            outputs.write_config(out, "lookahead", to_yaml(config))
        # Made beside what is there, so that text that does not suffice costs no older checkpoint.
        made = io.join(out, outputs.WORK, "model")
        corpus = new_corpus(files, read_options(as_embed, plan), config.format)
        facts = make_lookahead(made, training, plan, corpus, progress)
        output.begin(to_yaml(config))
        for name in sorted(os.listdir(made)):
            os.replace(io.join(made, name), io.join(out, name))
        stats = {"seconds": round(time.monotonic() - began, 3)}
        io.write_json(io.join(out, outputs.STATS), stats)
        commit(out)
    return LookaheadResult(
        out=out,
        status="done",
        model=facts["model"],
        optimizer=facts["optimizer"],
        learning_rate=facts["lr"],
        steps=facts["steps"],
        documents_seen=facts["documents"],
        windows_seen=facts["windows"],
        loss_before=facts["losses"][0],
        loss_after=facts["losses"][-1],
        seconds=stats["seconds"],
    )


def _as_embed(config: LookaheadConfig, model: str, out: str) -> EmbedConfig:
    """The options of an ``embed`` that reads the new corpus with the model, which is trained in float32."""
    return EmbedConfig(
        inputs=config.inputs,
        format=config.format,
        text_field=config.text_field,
        model=model,
        revision=config.revision,
        trust_remote_code=config.trust_remote_code,
        max_tokens=config.max_tokens,
        dtype="float32",
        device=config.device,
        threads=config.threads,
        seed=config.seed,
        out=out,
    )
