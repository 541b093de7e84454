"""A few steps of training along the new domain: θ' from θ, where gradients of the old corpus are then taken."""

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.model.frozen import FrozenModel
from cptsel.pipeline.model.naming import weight_files

OPTIMIZERS: dict[str, Callable[[Any, float], torch.optim.Optimizer]] = {
    "sgd": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
    "adamw": lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
}

Batch = Sequence[np.ndarray]
"""Rows of token ids, each the prefix and a window's own ids."""


def take_steps(
    model: FrozenModel,
    steps: Sequence[Sequence[Batch]],
    optimizer: str,
    lr: float,
    taken: Callable[[int], None] = lambda done: None,
) -> list[float]:
    """Train all parameters on the mean loss a token, one step a list of batches; the model is changed.

    Args:
        model: in float32, as small steps are lost in less. Dropout stays off.
        steps: of each step its batches, whose gradients are summed.
        optimizer: ``sgd`` (plain) or ``adamw`` (β .9 and .95, no decay).
        lr: learning rate, constant.
        taken: told before each step how many are done, and at the end.

    Returns:
        Nats a token: before each step on that step's batches, and at the end on those of the first step again.

    Raises:
        UsageError: a loss is not finite.
    """
    parameters = list(model.model.requires_grad_(True).parameters())
    stepper = OPTIMIZERS[optimizer](parameters, lr)
    losses = []
    try:
        for done, batches in enumerate(steps):
            taken(done)
            stepper.zero_grad()
            losses.append(_mean_loss(model, batches, backward=True))
            stepper.step()
            _check(losses, lr)
        stepper.zero_grad()
        losses.append(_mean_loss(model, steps[0], backward=False))
        _check(losses, lr)
        taken(len(steps))
    finally:
        model.model.requires_grad_(False)
    return losses


def save(model: FrozenModel, folder: str) -> None:
    """The model as ``save_pretrained`` writes it, with the tokenizer's files beside it."""
    model.model.save_pretrained(folder, safe_serialization=True)
    suffixes = {".json", ".model", ".txt", ".jinja", *([".py"] if model.spec.trust_remote_code else [])}
    ours = {*(path.name for path in Path(folder).iterdir()), *weight_files(model.path), "model.safetensors.index.json"}
    for path in sorted(Path(model.path).iterdir()):
        if path.name not in ours and path.suffix in suffixes:
            shutil.copyfile(path, Path(folder) / path.name)


def _mean_loss(model: FrozenModel, batches: Sequence[Batch], backward: bool) -> float:
    predicted = sum(len(row) - 1 for batch in batches for row in batch)
    total = 0.0
    with torch.set_grad_enabled(backward):
        for batch in batches:
            width = max(len(row) for row in batch)
            ids = torch.zeros(len(batch), width, dtype=torch.int64)
            labels = torch.full((len(batch), width - 1), -100, dtype=torch.int64)
            for i, row in enumerate(batch):
                tokens = torch.as_tensor(row, dtype=torch.int64)
                ids[i, : len(row)], labels[i, : len(row) - 1] = tokens, tokens[1:]
            ids, labels = ids.to(model.spec.device), labels.to(model.spec.device)
            mask = (torch.arange(width - 1, device=ids.device) < (labels >= 0).sum(dim=1, keepdim=True)).long()
            logits = model.model(input_ids=ids[:, :-1], attention_mask=mask, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-100, reduction="sum"
            )
            if backward:
                torch.autograd.backward(loss / predicted)
            total += float(loss.detach())
    return total / predicted


def _check(losses: Sequence[float], lr: float) -> None:
    if not math.isfinite(losses[-1]) or losses[-1] > 2 * losses[0] + 1:
        raise UsageError(
            f"the loss on the new corpus went from {losses[0]:.3f} to {losses[-1]:.3f} nats a token in "
            f"{len(losses) - 1} steps at a learning rate of {lr:g}; lower it"
        )
