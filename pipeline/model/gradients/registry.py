"""The gradient kinds."""

from cptsel.pipeline.model.gradients.base import GradientKind
from cptsel.pipeline.model.gradients.head import HeadGradient

GRADIENTS: dict[str, type[GradientKind]] = {kind.name: kind for kind in (HeadGradient,)}
