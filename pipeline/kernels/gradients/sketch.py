"""Seeded linear sketches of head gradients: a two-stage CountSketch (docs/design.md, Sketch).

For a sample with token errors E (T, V) and hidden states H (T, d) the head gradient is G = Eᵀ H (V, d), never made:

* stage 1, a CountSketch of the vocabulary axis: bucket(v) = v mod k_v with random signs, so a row of E (or of the
  probabilities behind it) folds to k_v numbers by adding V / k_v signed slices, without permuting or copying the head;
* stage 2, Eₛᵀ H (k_v, d), one small product a sample;
* stage 3, a CountSketch of those k_v·d numbers to k, with buckets drawn without replacement (a random permutation dealt
  round the buckets: never fuller than ⌈k_v·d / k⌉) and random signs.

All stages are linear and signs are independent and symmetric, so inner products of sketches are unbiased estimates of
inner products of gradients (Charikar, Chen & Farach-Colton 2002; Weinberger et al. 2009).

The random numbers are raw 64-bit words of Philox 4x64-10 (Salmon et al. 2011), a counter-based generator whose stream
NumPy holds fixed, keyed by (seed, format version, name of the table): the same on every device, worker and release.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

FORMAT_VERSION = 1
K_V = 1024  # stage-1 buckets of the sketch: at 256 collisions add a fifth to the variance, at 1024 nothing to be seen
K_V_VALIDATION = 251  # coprime to K_V: two vocabulary entries that collide in one sketch rarely do in the other
AT_ONCE = 1 << 26  # numbers of stage 2 held at once, over samples


def philox_words(seed: int, name: str, n: int) -> np.ndarray:
    """``n`` raw Philox words, uint64, keyed by (seed, FORMAT_VERSION, name)."""
    digest = hashlib.blake2b(f"cptsel/{FORMAT_VERSION}/{seed}/{name}".encode(), digest_size=16).digest()
    return np.random.Philox(key=int.from_bytes(digest, "little")).random_raw(n)


def signs(seed: int, name: str, n: int) -> np.ndarray:
    """``n`` independent signs, float32 of ±1: the top bit of each word."""
    return np.where(philox_words(seed, name, n) >> np.uint64(63), np.float32(1), np.float32(-1))


def permutation(seed: int, name: str, n: int) -> np.ndarray:
    """A uniform permutation of ``n``, int64: the stable order of ``n`` random words."""
    return np.argsort(philox_words(seed, name, n), kind="stable")


@dataclass(frozen=True)
class HeadSketch:
    """Tables of one two-stage sketch, on one device.

    Attributes:
        k: length of the sketch.
        k_v: stage-1 buckets.
        vocab_signs: (V,) float32, ±1.
        take: (rounds · k,) int64, indices into the flattened (k_v, d) product, dealt into ``rounds`` rows of k buckets;
            the padding points at entry 0 with sign 0.
        take_signs: (rounds · k,) float32 in {-1, 0, 1}.
    """

    k: int
    k_v: int
    vocab_signs: torch.Tensor
    take: torch.Tensor
    take_signs: torch.Tensor

    @classmethod
    def create(
        cls, seed: int, name: str, vocab: int, hidden: int, k: int, k_v: int, device: str = "cpu"
    ) -> "HeadSketch":
        """Draw the tables for a head of ``vocab`` × ``hidden``.

        Args:
            seed: of the projection.
            name: names the tensor and the sketch ("head", "head/validation"): other name, independent sketch.
            vocab: V, rows of the head.
            hidden: d, columns of the head.
            k: length of the sketch.
            k_v: stage-1 buckets; made smaller where the vocabulary is smaller.
            device: where the tables live.
        """
        k_v = min(k_v, vocab)
        n = k_v * hidden
        rounds = -(-n // k)
        take = np.zeros(rounds * k, dtype=np.int64)
        take_signs = np.zeros(rounds * k, dtype=np.float32)
        take[:n] = permutation(seed, f"{name}/entries", n)
        take_signs[:n] = signs(seed, f"{name}/entry-signs", n)
        return cls(
            k=k,
            k_v=k_v,
            vocab_signs=torch.from_numpy(signs(seed, f"{name}/vocab-signs", vocab)).to(device),
            take=torch.from_numpy(take).to(device),
            take_signs=torch.from_numpy(take_signs).to(device),
        )

    def fold_vocab(self, rows: torch.Tensor) -> torch.Tensor:
        """Stage 1: (N, V) float32 → (N, k_v) float32. One pass over ``rows`` into a small accumulator."""
        folded = torch.zeros(rows.shape[0], self.k_v, dtype=torch.float32, device=rows.device)
        for start in range(0, rows.shape[1], self.k_v):
            part = rows[:, start : start + self.k_v]
            folded[:, : part.shape[1]].addcmul_(part, self.vocab_signs[start : start + self.k_v])
        return folded

    def subtract_onehot(self, folded: torch.Tensor, labels: torch.Tensor, scale: torch.Tensor | float = 1.0) -> None:
        """Subtract stage 1 of scale · onehot(labels) from ``folded`` (N, k_v), in place; labels (N,) int64."""
        values = (self.vocab_signs[labels] * scale).unsqueeze(1)
        folded.scatter_add_(1, (labels % self.k_v).unsqueeze(1), -values)

    def fold_product(self, folded: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Stages 2 and 3: (B, T, k_v) and (B, T, d), zero at padding, both float32 → (B, k) float32."""
        samples = max(1, AT_ONCE // self.take.numel())
        parts = []
        for some, states in zip(torch.split(folded, samples), torch.split(hidden, samples), strict=True):
            product = torch.bmm(some.transpose(1, 2), states).flatten(1)
            dealt = product.index_select(1, self.take).mul_(self.take_signs)
            parts.append(dealt.view(product.shape[0], -1, self.k).sum(dim=1))
        return torch.cat(parts)

    def sketch(self, errors: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """All stages for one sample: errors (T, V), hidden (T, d), float32 → (k,). For tests and docs."""
        return self.fold_product(self.fold_vocab(errors).unsqueeze(0), hidden.unsqueeze(0))[0]
