"""``cptsel distill``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.chosen.config import DistillConfig
from cptsel.pipeline.summary import Summary


@pass_command(DistillConfig, "cptsel distill replay --model models/base --top-k 64 --out targets")
def distill(config: DistillConfig, progress: Any) -> Summary:
    """Write what a teacher model predicts for the chosen samples.

    Reads the text of every chosen sample from the corpus, checks it against its hash, and runs the model over the token
    ids that were embedded. What follows -- goes to Apache Beam.
    """
    from cptsel.pipeline.distill import distill as run

    return run(config, progress)
