"""What a gradient kind must be able to do. One file a kind; ``registry.py`` lists them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch

from cptsel.pipeline.kernels.gradients.batch import BatchGradients
from cptsel.pipeline.model.frozen import FrozenModel


class GradientKind(ABC):
    """Takes gradients of a frozen model; made by workers, once a process, with the tables that it needs.

    Attributes:
        name: in ``ModelSpec.gradient``.
        model: that the gradients are of.
    """

    name: ClassVar[str]

    def __init__(self, model: FrozenModel):
        self.model = model

    @abstractmethod
    def of_batch(self, tokens: torch.Tensor, lengths: torch.Tensor) -> BatchGradients:
        """Gradients of a padded batch.

        Args:
            tokens: (B, T + 1) int64: each row the prefix and the window's own ids, then zeros.
            lengths: (B,) int64 on the host, how many of them are predicted; at least one.
        """

    def of_windows(self, ids: Sequence[np.ndarray]) -> BatchGradients:
        """Gradients of one batch.

        Args:
            ids: per sample the prefix and the window's own token ids, int; at least two each.

        Returns:
            Gradients in the order given.
        """
        return self.of_batch(*self.model.pad(ids))
