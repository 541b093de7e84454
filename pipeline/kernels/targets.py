"""Targets for distillation of one model's next-token distributions: the top of each, and the mass of the rest.

With logits z of a token position and log Z = log Σ_v exp z_v, kept are the k largest z_v − log Z with their v, and
log Σ_{v not kept} exp z_v − log Z, which is summed over the rest itself, not found as 1 minus the top.
"""

from dataclasses import dataclass

import numpy as np
import torch

from cptsel.pipeline.kernels.gradients.head import LMHead
from cptsel.pipeline.kernels.gradients.sketch import signs


@dataclass(frozen=True)
class TopTargets:
    """Of n positions.

    Attributes:
        ids: (n, k) int64, tokens by falling probability; of equal ones the lower id first.
        log_probs: (n, k) float32, nats.
        rest: (n,) float32, log of the probability of all other tokens; −inf where there are none.
    """

    ids: torch.Tensor
    log_probs: torch.Tensor
    rest: torch.Tensor


def top_targets(rows: torch.Tensor, head: LMHead, k: int) -> TopTargets:
    """The k most likely tokens of every position, in float32 whatever the model's dtype.

    Args:
        rows: (n, d) inputs of the head.
        head: of the model.
        k: between 1 and V.

    Raises:
        ValueError: k is not.
    """
    n, vocab = rows.shape[0], head.weight.shape[0]
    if not 1 <= k <= vocab:
        raise ValueError(f"k must be between 1 and {vocab}, not {k}")
    ids = torch.empty(n, k, dtype=torch.int64, device=rows.device)
    log_probs = torch.empty(n, k, dtype=torch.float32, device=rows.device)
    rest = torch.empty(n, dtype=torch.float32, device=rows.device)
    for part in head.token_slices(n):
        z = head.logits(rows[part])
        log_z = z.logsumexp(dim=1)
        ids[part] = _top_ids(z, k)
        log_probs[part] = z.gather(1, ids[part]) - log_z.unsqueeze(1)
        rest[part] = z.scatter_(1, ids[part], -torch.inf).logsumexp(dim=1) - log_z
    return TopTargets(ids, log_probs, rest)


def _top_ids(z: torch.Tensor, k: int) -> torch.Tensor:
    """(n, k) int64; ``topk`` alone leaves open which of equal logits it takes, and in bfloat16 many are equal."""
    values, ids = z.topk(k, dim=1)
    least = values[:, -1:]
    crowded = (z >= least).sum(dim=1) > k
    if bool(crowded.any()):
        some, bound = z[crowded], least[crowded]
        above, equal = some > bound, some == bound
        room = k - above.sum(dim=1, keepdim=True)
        taken = above | (equal & (equal.cumsum(dim=1, dtype=torch.int32) <= room))
        ids[crowded] = taken.nonzero()[:, 1].view(-1, k)
    ids = ids.sort(dim=1).values
    return ids.gather(1, z.gather(1, ids).argsort(dim=1, descending=True, stable=True))


def hidden_projection(seed: int, width: int, numbers: int) -> np.ndarray:
    """(d, N) float32 of random signs over √N: inner products keep their value in expectation (Achlioptas 2003).

    Args:
        seed: of the signs, which are those of ``kernels.gradients.sketch``.
        width: d, of the hidden states.
        numbers: N, that each becomes.
    """
    return (signs(seed, f"hidden/{width}/{numbers}", width * numbers) / np.float32(numbers**0.5)).reshape(
        width, numbers
    )
