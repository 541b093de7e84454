"""``cptsel fisher``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.chosen.config import FisherConfig
from cptsel.pipeline.summary import Summary


@pass_command(FisherConfig, "cptsel fisher replay --model models/base --kind true --out fisher")
def fisher(config: FisherConfig, progress: Any) -> Summary:
    """Write the diagonal of the Fisher information over the chosen samples.

    Runs the model forwards and backwards over one sample at a time and adds up its squared gradients, for elastic
    weight consolidation. What follows -- goes to Apache Beam.
    """
    from cptsel.pipeline.fisher import fisher as run

    return run(config, progress)
