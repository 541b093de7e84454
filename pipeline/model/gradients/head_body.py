"""Gradients of the head and of the body, each scaled to the same size (docs/design.md, Body gradient)."""

from typing import ClassVar

import torch

from cptsel.pipeline.kernels.gradients.batch import BatchGradients
from cptsel.pipeline.kernels.gradients.head import head_gradients
from cptsel.pipeline.model.frozen import FrozenModel
from cptsel.pipeline.model.gradients.body import BodyGradient
from cptsel.pipeline.model.gradients.head import head_sketches


class HeadBodyGradient(BodyGradient):
    """c_head · G_head and c_body · G_body as one gradient, by ``ModelSpec.mixing``; both sketched into the same k."""

    name: ClassVar[str] = "head+body"

    def __init__(self, model: FrozenModel):
        super().__init__(model)
        assert model.spec.mixing is not None  # the driver finds it
        self.factors = model.spec.mixing
        self.head_tables = head_sketches(model)

    def _head(
        self, hidden: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[BatchGradients, torch.Tensor]:
        model, below = self.model, torch.zeros_like(hidden)
        above = head_gradients(
            hidden,
            labels,
            lengths,
            model.head,
            *self.head_tables,
            model.spec.exact_norm,
            below,
        )
        return above, below

    def _joined(self, body: BatchGradients, above: BatchGradients) -> BatchGradients:
        head, rest = self.factors
        norm = None
        if body.exact_norm is not None and above.exact_norm is not None:
            norm = torch.hypot(head * above.exact_norm, rest * body.exact_norm)
        return BatchGradients(
            sketch=head * above.sketch + rest * body.sketch,
            validation=head * above.validation + rest * body.validation,
            loss_sum=above.loss_sum,
            exact_norm=norm,
        )
