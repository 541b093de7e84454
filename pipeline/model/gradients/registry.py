"""The gradient kinds."""

from cptsel.pipeline.model.gradients.base import GradientKind
from cptsel.pipeline.model.gradients.body import BodyGradient
from cptsel.pipeline.model.gradients.head import HeadGradient
from cptsel.pipeline.model.gradients.head_body import HeadBodyGradient

GRADIENTS: dict[str, type[GradientKind]] = {kind.name: kind for kind in (HeadGradient, BodyGradient, HeadBodyGradient)}
