"""How head and body are weighed against each other where gradients of both are taken."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.embedding.begun import begun_run
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.cutting import cut_block
from cptsel.pipeline.embedding.plan import ModelPlan, check_runs_here, tokenizer_of
from cptsel.pipeline.embedding.pool import read_options
from cptsel.pipeline.embedding.probe import few_documents
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.model.frozen import FrozenModel
from cptsel.pipeline.model.gradients.body import BodyGradient
from cptsel.pipeline.model.gradients.head import HeadGradient
from cptsel.schemas.headers import RunHeader

_WINDOWS = 64
_AT_ONCE = 4


def with_mixing(config: EmbedConfig, plan: ModelPlan, files: Sequence[tuple[str, str, int]]) -> ModelPlan:
    """The plan with the factors of head and body: those of ``--mixing``, ``--grow``, ``--after`` or of a begun run.

    Else each is 1 over the root of Σ ‖g‖² / Σ n over windows of a few documents of the corpus, at the model that was
    given, also with ``--lookahead``: so runs at both have the same.

    Raises:
        UsageError: the run that is named has none, or the documents looked at have no window.
    """
    if config.gradient != "head+body":
        return plan
    factors = named_factors(config)
    if factors is None and (begun := begun_run(config)):
        factors = _mixing_of(begun)
    return replace(plan, spec=replace(plan.spec, mixing=factors or _found(config, plan, files)))


def named_factors(config: EmbedConfig) -> tuple[float, float] | None:
    """The factors of the run that ``--mixing``, ``--grow`` or ``--after`` names; None where none does.

    Raises:
        UsageError: the run has none.
    """
    source = config.mixing or config.grow or config.after
    if config.gradient != "head+body" or source is None:
        return None
    factors = _mixing_of(open_runs([source]).headers[0])
    if factors is None:
        raise UsageError(f"{source}: has no --gradient head+body, so it says nothing of how they are mixed")
    return factors


def _mixing_of(header: RunHeader) -> tuple[float, float] | None:
    found = header["projection"].get("mixing")
    return (found["head"], found["body"]) if found else None


def _found(config: EmbedConfig, plan: ModelPlan, files: Sequence[tuple[str, str, int]]) -> tuple[float, float]:
    tokenizer = tokenizer_of(plan)
    windows = []
    for path, block in few_documents(files, read_options(config, plan), config.format):
        cut = cut_block(path, block, tokenizer, plan.prefix, plan.max_tokens)
        windows += [np.concatenate([np.asarray(plan.prefix.ids, np.int32), sample.ids]) for sample in cut.samples]
    windows = windows[:: max(1, len(windows) // _WINDOWS)]
    if not windows:
        raise UsageError("the documents looked at gave no sample, so head and body can't be weighed; give --mixing RUN")
    check_runs_here(plan, "--gradient head+body", "take the factors of another run by --mixing RUN")
    model = FrozenModel(plan.spec)
    tokens = sum(len(window) - 1 for window in windows)
    factors = []
    for kind in (HeadGradient(model), BodyGradient(model)):
        square = sum(
            float(kind.of_windows(windows[i : i + _AT_ONCE]).sketch.double().square().sum())
            for i in range(0, len(windows), _AT_ONCE)
        )
        factors.append(float((tokens / square) ** 0.5))
    return factors[0], factors[1]
