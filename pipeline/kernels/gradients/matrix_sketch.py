"""Sketches of the gradients of linear layers: G = Eᵀ A (out, in), folded along both axes before it is made.

For a sample with output gradients E (T, out) and inputs A (T, in) both axes are CountSketched to r numbers by signed
buckets (bucket = index mod r), which are Kronecker factors of one sketch of G; then the (r, r) product Eₛᵀ Aₛ is
CountSketched to k, as for the head (``sketch.py``). All is linear, and inner products are unbiased.
"""

from dataclasses import dataclass

import torch

from cptsel.pipeline.kernels.gradients.sketch import HeadSketch, signs

R = 128  # to which each axis is folded, where it is longer
R_VALIDATION = 61  # coprime to R


@dataclass(frozen=True)
class MatrixSketch:
    """Tables of the sketch of one layer.

    Attributes:
        product: of the output axis, and of what the folded axes give.
        in_signs: (in,) float32, ±1, of the input axis; None where it is not folded.
        r_in: numbers to which it is folded.
    """

    product: HeadSketch
    in_signs: torch.Tensor | None
    r_in: int

    @classmethod
    def create(
        cls, seed: int, name: str, out_width: int, in_width: int, k: int, r: int, device: str = "cpu"
    ) -> "MatrixSketch":
        """Draw the tables of a layer; other name, independent sketch."""
        r_in = min(r, in_width)
        product = HeadSketch.create(seed, name, out_width, r_in, k, r, device)
        folds = in_width > r
        table = torch.from_numpy(signs(seed, f"{name}/in-signs", in_width)).to(device) if folds else None
        return cls(product, table, r_in)

    def fold_inputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, T, in) of any dtype → (B, T, r_in) float32."""
        inputs = inputs.float()
        if self.in_signs is None:
            return inputs
        folded = torch.zeros(*inputs.shape[:-1], self.r_in, dtype=torch.float32, device=inputs.device)
        for start in range(0, inputs.shape[-1], self.r_in):
            part = inputs[..., start : start + self.r_in]
            folded[..., : part.shape[-1]].addcmul_(part, self.in_signs[start : start + self.r_in])
        return folded

    def sketch(self, errors: torch.Tensor, folded_inputs: torch.Tensor) -> torch.Tensor:
        """(B, T, out), zero where nothing is predicted, and (B, T, r_in) → (B, k), float32."""
        batch, steps, width = errors.shape
        folded = self.product.fold_vocab(errors.reshape(batch * steps, width).float())
        return self.product.fold_product(folded.view(batch, steps, -1), folded_inputs)

    def of_matrix(self, gradient: torch.Tensor) -> torch.Tensor:
        """(out, in) → (k,): the sketch of a gradient that is there. For checks."""
        identity = torch.eye(gradient.shape[1], device=gradient.device)
        return self.sketch(gradient.T.unsqueeze(0), self.fold_inputs(identity.unsqueeze(0)))[0]
