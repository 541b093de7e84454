"""Gradients with respect to the LM head, from the forward pass alone (docs/design.md, Head gradient)."""

from typing import ClassVar

import torch

from cptsel.pipeline.kernels.gradients.batch import BatchGradients
from cptsel.pipeline.kernels.gradients.head import head_gradients
from cptsel.pipeline.kernels.gradients.sketch import K_V, K_V_VALIDATION, HeadSketch
from cptsel.pipeline.model.frozen import FrozenModel
from cptsel.pipeline.model.gradients.base import GradientKind


class HeadGradient(GradientKind):
    """With two-stage sketches of the head's (V, d) gradient."""

    name: ClassVar[str] = "head"

    def __init__(self, model: FrozenModel):
        super().__init__(model)
        self.sketch, self.validation = head_sketches(model)

    def of_batch(self, tokens: torch.Tensor, lengths: torch.Tensor) -> BatchGradients:
        model = self.model
        with torch.inference_mode():
            return head_gradients(
                model.hidden(tokens[:, :-1], lengths),
                tokens[:, 1:],
                lengths,
                model.head,
                self.sketch,
                self.validation,
                model.spec.exact_norm,
            )


def head_sketches(model: FrozenModel) -> tuple[HeadSketch, HeadSketch]:
    """Tables of the sketch and of the validation sketch."""
    spec, (vocab, width) = model.spec, model.head.weight.shape
    return (
        HeadSketch.create(spec.seed, "head", vocab, width, spec.sketch_dim, K_V, spec.device),
        HeadSketch.create(spec.seed, "head/validation", vocab, width, spec.validation_dim, K_V_VALIDATION, spec.device),
    )
