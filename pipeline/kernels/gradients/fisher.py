"""The head's part of per-sample gradients of log-likelihoods, and labels drawn from the model.

See docs/design.md, Fisher information. With e_t = f′(a_t) ⊙ (p_t − onehot(y_t)) as in ``head``, the gradient of a
sample's loss −Σ_t log p(y_t) is Σ_t e_t h_tᵀ for the head, Σ_t e_t for its bias, and e_t W for the hidden state h_t.
"""

from dataclasses import dataclass

import numpy as np
import torch

from cptsel.pipeline.kernels.gradients.head import LMHead, softmax_errors, through_head
from cptsel.pipeline.kernels.gradients.sketch import philox_words


@dataclass(frozen=True)
class HeadGradient:
    """Of one sample's summed loss.

    Attributes:
        loss: () float64, nats, summed over tokens.
        hidden: (T, d) in the dtype of the hidden states.
        weight: (V, d) float32.
        bias: (V,) float32, or None.
    """

    loss: torch.Tensor
    hidden: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None


def head_gradient(hidden: torch.Tensor, labels: torch.Tensor, head: LMHead) -> HeadGradient:
    """Backward pass of one sample through the head, in slices of tokens, so that its logits are never held whole.

    Args:
        hidden: (T, d) inputs of the head, without graph.
        labels: (T,) int64.
        head: of the model.
    """
    weight, bias = head.weight, head.bias
    below = torch.empty_like(hidden)
    of_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
    of_bias = None if bias is None else torch.zeros(bias.shape, dtype=torch.float32, device=bias.device)
    loss = torch.zeros((), dtype=torch.float64, device=hidden.device)
    for part in head.token_slices(len(hidden)):
        errors, losses, slope = softmax_errors(hidden[part], labels[part], head)
        below[part] = through_head(errors, labels[part], slope, head)  # errors are whole from here on
        of_weight.addmm_(errors.T, hidden[part].float())
        if of_bias is not None:
            of_bias += errors.sum(dim=0)
        loss += losses.double().sum()
    return HeadGradient(loss, below, of_weight, of_bias)


def draw_labels(hidden: torch.Tensor, head: LMHead, u: torch.Tensor) -> torch.Tensor:
    """Labels (T,) int64 drawn from the model's own distributions, by inversion of their cumulative sums in float64.

    Args:
        hidden, head: as of ``head_gradient``.
        u: (T,) float64 in (0, 1], a variate a position.
    """
    labels = torch.empty(hidden.shape[0], dtype=torch.int64, device=hidden.device)
    for part in head.token_slices(len(hidden)):
        z = head.logits(hidden[part])
        sums = z.double().sub_(z.amax(dim=1, keepdim=True)).exp_().cumsum(dim=1)
        drawn = torch.searchsorted(sums, u[part].unsqueeze(1) * sums[:, -1:])  # the first sum that reaches it
        labels[part] = drawn.squeeze(1)
    return labels


def label_variates(seed: int, sample_id: str, n: int) -> np.ndarray:
    """(n,) float64 in (0, 1] of a sample's positions: a function of (seed, sample_id) and nothing else."""
    words = philox_words(seed, f"fisher/{sample_id}", n)
    return ((words >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53
