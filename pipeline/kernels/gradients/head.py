"""Forward-only per-sample gradient of the summed token loss with respect to the LM head.

See docs/design.md, Head gradient.

With a = h Wᵀ + b, z = f(a), p = softmax(z) and e_t = f′(a_t) ⊙ (p_t − onehot(y_t)), the gradient is G = Σ_t e_t h_tᵀ
(V, d): known after the forward pass, no backward pass needed. f is the identity, a scale, a soft-cap, or a scale and
then a soft-cap, as the model has it.
"""

from dataclasses import dataclass

import torch

from cptsel.pipeline.kernels.gradients.batch import BatchGradients
from cptsel.pipeline.kernels.gradients.sketch import HeadSketch
from cptsel.pipeline.kernels.gradients.transfer import real_positions

CHUNK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 27}  # logits held at once: 4 MiB, about a CPU cache; half a GiB


@dataclass(frozen=True)
class LogitMap:
    """z = f(a) = cap · tanh(scale · a / cap), or scale · a without a cap."""

    scale: float = 1.0
    softcap: float | None = None

    def apply_(self, a: torch.Tensor) -> torch.Tensor:
        """z from a, in place."""
        if self.scale != 1.0:
            a.mul_(self.scale)
        if self.softcap is not None:
            a.div_(self.softcap).tanh_().mul_(self.softcap)
        return a

    def apply(self, a: torch.Tensor) -> torch.Tensor:
        """z from a, which stays, so that autograd can go back through it."""
        z = a if self.scale == 1.0 else a * self.scale
        return z if self.softcap is None else (z / self.softcap).tanh() * self.softcap

    def slope(self, z: torch.Tensor) -> torch.Tensor | float:
        """f′(a) in terms of z = f(a): scale · (1 − (z / cap)²), or the scale."""
        if self.softcap is None:
            return self.scale
        return (1.0 - (z / self.softcap).square()).mul_(self.scale)


@dataclass(frozen=True, eq=False)
class LMHead:
    """The head of a language model: logits z = f(h Wᵀ + b) of its inputs h.

    Attributes:
        weight: (V, d), in the model's dtype.
        bias: (V,) or None.
        logit_map: f.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    logit_map: LogitMap = LogitMap()

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, V) float32 of inputs (n, d), a tensor of its own."""
        return self.logit_map.apply_(torch.nn.functional.linear(rows, self.weight, self.bias).float())

    def token_slices(self, tokens: int) -> list[slice]:
        """Slices of so many tokens in order, each of which has ``CHUNK_ELEMENTS`` logits or less."""
        elements = CHUNK_ELEMENTS.get(self.weight.device.type, CHUNK_ELEMENTS["cuda"])
        chunk = max(1, elements // self.weight.shape[0])
        return [slice(start, min(start + chunk, tokens)) for start in range(0, tokens, chunk)]


def head_gradients(
    hidden: torch.Tensor,
    labels: torch.Tensor,
    lengths: torch.Tensor,
    head: LMHead,
    sketch: HeadSketch,
    validation: HeadSketch,
    exact_norm: bool = False,
    below: torch.Tensor | None = None,
) -> BatchGradients:
    """Sketch the head gradient of every sample of a right-padded batch.

    Args:
        hidden: (B, T, d) inputs of the head at the positions that predict, in the model's dtype.
        labels: (B, T) int64, the token each position predicts.
        lengths: (B,) int64, how many positions of each sample are real; best on the host.
        head: of the model.
        sketch: tables of the sketch.
        validation: tables of the validation sketch.
        exact_norm: also compute ‖G‖_F exactly; costs about as much as the head itself.
        below: (B, T, d) zeros that take what ``head_backward`` returns, at the cost of the head once more.

    Returns:
        Sums over each sample's tokens, never means, accumulated in float32 whatever the model's dtype.
    """
    shape, device = hidden.shape[:2], hidden.device
    real = real_positions(lengths, shape[1], device)
    rows, targets = hidden[real], labels[real]  # (N, d) and (N,): padding is never multiplied
    loss = torch.empty(len(rows), dtype=torch.float32, device=device)
    folded = torch.empty(len(rows), sketch.k_v, dtype=torch.float32, device=device)
    folded_validation = torch.empty(len(rows), validation.k_v, dtype=torch.float32, device=device)
    below_rows = None if below is None else torch.empty_like(rows)
    for part in head.token_slices(len(rows)):
        errors, loss[part], slope_at_target = softmax_errors(rows[part], targets[part], head)
        for table, out in ((sketch, folded), (validation, folded_validation)):
            out[part] = table.fold_vocab(errors)
            table.subtract_onehot(out[part], targets[part], slope_at_target)
        if below_rows is not None:
            below_rows[part] = through_head(errors, targets[part], slope_at_target, head)
    if below is not None and below_rows is not None:
        below[real] = below_rows
    states = _padded(rows.float(), real, shape)
    return BatchGradients(
        sketch=sketch.fold_product(_padded(folded, real, shape), states),
        validation=validation.fold_product(_padded(folded_validation, real, shape), states),
        loss_sum=_padded(loss, real, shape).sum(dim=1),
        exact_norm=_exact_norms(hidden, labels, lengths, head) if exact_norm else None,
    )


def head_losses(hidden: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor, head: LMHead) -> torch.Tensor:
    """Losses (B,) float32 in nats, summed over tokens, of a right-padded batch; arguments as of ``head_gradients``."""
    real = real_positions(lengths, hidden.shape[1], hidden.device)
    rows, targets = hidden[real], labels[real]
    losses = torch.empty(len(rows), dtype=torch.float32, device=hidden.device)
    for part in head.token_slices(len(rows)):
        losses[part] = torch.nn.functional.cross_entropy(head.logits(rows[part]), targets[part], reduction="none")
    return _padded(losses, real, hidden.shape[:2]).sum(dim=1)


def softmax_errors(
    rows: torch.Tensor, targets: torch.Tensor, head: LMHead
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | float]:
    """All of e but the one-hot's part, of n tokens.

    Args:
        rows: (n, d) inputs of the head.
        targets: (n,) int64, the tokens that they predict.
        head: of the model.

    Returns:
        f′(a) ⊙ p (n, V), losses (n,) in nats, both float32, and f′ at the targets: (n,), or one number for all.
    """
    z = head.logits(rows)
    slope = head.logit_map.slope(z)
    z_target = z.gather(1, targets.unsqueeze(1)).squeeze(1)
    top = z.amax(dim=1, keepdim=True)
    p = z.sub_(top).exp_()
    total = p.sum(dim=1, keepdim=True)
    loss = (total.log() + top).squeeze(1) - z_target
    p.div_(total)
    if isinstance(slope, torch.Tensor):
        return p.mul_(slope), loss, slope.gather(1, targets.unsqueeze(1)).squeeze(1)
    if slope != 1.0:
        p.mul_(slope)
    return p, loss, slope


def through_head(
    errors: torch.Tensor, targets: torch.Tensor, slope: torch.Tensor | float, head: LMHead
) -> torch.Tensor:
    """Σ_v e_tv W_v (n, d), in the dtype of W, from f′ ⊙ p (n, V), which becomes e in place."""
    errors[torch.arange(len(errors), device=errors.device), targets] -= slope
    return errors.to(head.weight.dtype) @ head.weight


def _padded(values: torch.Tensor, real: tuple[torch.Tensor, torch.Tensor], shape: torch.Size) -> torch.Tensor:
    """Values of the real positions (N, ...) at their places in a batch (B, T, ...), zero at padding."""
    batch = torch.zeros(*shape, *values.shape[1:], dtype=values.dtype, device=values.device)
    batch[real] = values
    return batch


def _exact_norms(hidden: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor, head: LMHead) -> torch.Tensor:
    """‖G‖_F (B,) float32 of every sample; arguments as of ``head_gradients``."""
    norms = [_frobenius(hidden[i, :length], labels[i, :length], head) for i, length in enumerate(lengths.tolist())]
    return torch.stack(norms)


def _frobenius(hidden: torch.Tensor, labels: torch.Tensor, head: LMHead) -> torch.Tensor:
    """‖Eᵀ H‖_F of one sample (T, d), by the cheaper of Σ_{t,s} (e_t·e_s)(h_t·h_s) and the product itself, in slices.

    One sample's E (T, V) is held whole, in float32; G never is.
    """
    steps, width = hidden.shape
    vocab = head.weight.shape[0]
    errors, _, slope = softmax_errors(hidden, labels, head)
    errors[torch.arange(steps, device=hidden.device), labels] -= slope
    h = hidden.float()
    if steps <= width:
        gram = torch.zeros(steps, steps, dtype=torch.float64, device=hidden.device)
        for part in torch.split(errors, 1 << 15, dim=1):
            gram += part @ part.T
        square = (gram * (h @ h.T)).sum()
    else:
        square = torch.zeros((), dtype=torch.float64, device=hidden.device)
        for start in range(0, vocab, 1 << 13):
            square += (errors[:, start : start + (1 << 13)].T @ h).double().square().sum()
    return square.clamp_min(0.0).sqrt().float()


def head_backward(
    hidden: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor, head: LMHead
) -> tuple[torch.Tensor, torch.Tensor]:
    """The backward pass through the head, in slices of tokens: what the layers below it get.

    Args:
        hidden, labels, lengths, head: as of ``head_gradients``.

    Returns:
        Losses (B,) float32, summed over tokens; and their gradients by ``hidden`` (B, T, d), in its dtype, zero at
        padding: Σ_v e_tv W_v.
    """
    real = real_positions(lengths, hidden.shape[1], hidden.device)
    rows, targets = hidden[real], labels[real]
    losses = torch.empty(len(rows), dtype=torch.float32, device=hidden.device)
    below = torch.empty_like(rows)
    for part in head.token_slices(len(rows)):
        errors, losses[part], slope = softmax_errors(rows[part], targets[part], head)
        below[part] = through_head(errors, targets[part], slope, head)
    gradient = torch.zeros_like(hidden)
    gradient[real] = below
    return _padded(losses, real, hidden.shape[:2]).sum(dim=1), gradient
