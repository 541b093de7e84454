"""What every gradient kind returns of a batch."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class BatchGradients:
    """Of a batch of B samples; all float32 on the model's device.

    Attributes:
        sketch: (B, k) sketch of the gradient G of each sample's summed loss.
        validation: (B, k') independent sketch of G.
        loss_sum: (B,) nats, summed over the predicted tokens.
        exact_norm: (B,) ‖G‖_F, or None where it was not asked for.
    """

    sketch: torch.Tensor
    validation: torch.Tensor
    loss_sum: torch.Tensor
    exact_norm: torch.Tensor | None
