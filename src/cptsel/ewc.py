"""Elastic weight consolidation in PyTorch. Needs torch and safetensors alone: copy this file into a trainer.

It reads what ``cptsel fisher REPLAY --out DIR`` wrote::

    ewc = EWC(model, "DIR")                     # before the first step: the weights are those to stay near
    loss = new_domain_loss + 0.5 * strength * ewc(model)

(Kirkpatrick et al. 2017, *Overcoming catastrophic forgetting in neural networks*, eq. 3.) The Fisher information is
that of a token, so it has the scale of a loss that is a mean over tokens: near the start, the mean KL divergence a
token from the old model to the new one is about half of ``ewc(model)``, as far as parameters don't interact.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file


def ewc_penalty(
    parameters: Mapping[str, torch.Tensor], fisher: Mapping[str, torch.Tensor], anchor: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """Σ_i F_i (θ_i − θ*_i)², float32, over the parameters that ``fisher`` names.

    Args:
        parameters: θ by name, as ``dict(model.named_parameters())``.
        fisher: F, of the same shapes.
        anchor: θ*, where F was found.
    """
    terms = [
        (values * (parameters[name].float() - anchor[name].float()).square()).sum() for name, values in fisher.items()
    ]
    return torch.stack(terms).sum()


class EWC:
    """The penalty of a model that starts where the Fisher information was found.

    Args:
        model: with the weights to stay near; a copy of them is kept.
        directory: written by ``cptsel fisher``.

    Raises:
        ValueError: the directory is not finished, or is of a model with other parameters.
    """

    def __init__(self, model: torch.nn.Module, directory: str):
        folder = Path(directory)
        if not (folder / "_SUCCESS").exists() or not (folder / "fisher.safetensors").exists():
            raise ValueError(f"{directory} is not finished; write it by cptsel fisher")
        parameters = dict(model.named_parameters())
        stored = load_file(folder / "fisher.safetensors")
        for name, values in stored.items():
            if name not in parameters or parameters[name].shape != values.shape:
                there = f"has {tuple(parameters[name].shape)}" if name in parameters else "is not in the model"
                raise ValueError(f"{directory}: {name} is {tuple(values.shape)} there and {there}; give its own model")
        self.fisher = {name: values.to(parameters[name].device) for name, values in stored.items()}
        self.anchor = {name: parameters[name].detach().clone() for name in stored}

    def __call__(self, model: torch.nn.Module) -> torch.Tensor:
        """Σ_i F_i (θ_i − θ*_i)² of the model as it is now."""
        return ewc_penalty(dict(model.named_parameters()), self.fisher, self.anchor)
