"""Squared gradients of single samples with respect to all parameters, added up (docs/design.md, Fisher information)."""

import math
from collections.abc import Mapping

import numpy as np
import torch

from cptsel.pipeline.errors import BadInputError, UsageError
from cptsel.pipeline.kernels.gradients.fisher import draw_labels, head_gradient, label_variates
from cptsel.pipeline.model.frozen import FrozenModel


class SquaredGradients:
    """Sums of weighted squared gradients, in float32 on the model's device.

    One sample goes through the model at a time: a gradient of a batch would be that of a sum, whose square is not the
    sum of squares.

    Attributes:
        sums: by name of the parameter, as ``named_parameters`` of the model has it; a tensor that two layers share is
            there once, under its first name.
    """

    def __init__(self, model: FrozenModel):
        """Raises UsageError where a parameter is quantised, so that it has no gradient."""
        self.model = model
        self.parameters = dict(model.model.named_parameters())
        for name, parameter in self.parameters.items():
            if not parameter.is_floating_point():
                raise UsageError(
                    f"--model {model.spec.source}: the parameter {name} is {parameter.dtype} and has no gradient; give "
                    "a checkpoint that is not quantised"
                )
            parameter.requires_grad_(True)
        self.sums: Mapping[str, torch.Tensor] = {
            name: torch.zeros(parameter.shape, dtype=torch.float32, device=parameter.device)
            for name, parameter in self.parameters.items()
        }
        self._head = self._name_of(model.head.weight)
        self._bias = None if model.head.bias is None else self._name_of(model.head.bias)

    def add(self, sample_id: str, ids: np.ndarray, weight: float, seed: int | None) -> float:
        """Add weight · (∇ Σ_t log p(y_t))² of one window.

        Args:
            sample_id: seeds its labels.
            ids: (T + 1,) the prefix and its own token ids.
            weight: of the sample.
            seed: of labels that are drawn from the model; None for the text's own tokens.

        Returns:
            Its loss in nats, summed over the T predicted tokens.

        Raises:
            BadInputError: a number of the loss is not finite.
        """
        head = self.model.head
        tokens, lengths = self.model.pad([ids])
        with torch.enable_grad():
            hidden = self.model.hidden(tokens[:, :-1], lengths)
        with torch.no_grad():
            rows, labels = hidden.detach()[0], tokens[0, 1:]
            if seed is not None:
                u = torch.from_numpy(label_variates(seed, sample_id, len(rows))).to(rows.device)
                labels = draw_labels(rows, head, u)
            found = head_gradient(rows, labels, head)
        loss = float(found.loss)
        if not math.isfinite(loss):
            raise BadInputError(
                f"sample {sample_id}: the model gives no finite loss ({loss}); use --dtype float32, or another --model"
            )
        gradients = torch.autograd.grad(
            hidden, list(self.parameters.values()), found.hidden.unsqueeze(0), allow_unused=True
        )
        with torch.no_grad():
            for (name, total), gradient in zip(self.sums.items(), gradients, strict=True):
                whole = None if gradient is None else gradient.float()
                of_head = found.weight if name == self._head else found.bias if name == self._bias else None
                if of_head is not None:
                    whole = of_head if whole is None else whole + of_head
                if whole is not None:
                    total.addcmul_(whole, whole, value=weight)
        return loss

    def _name_of(self, tensor: torch.Tensor) -> str:
        return next(name for name, parameter in self.parameters.items() if parameter is tensor)
