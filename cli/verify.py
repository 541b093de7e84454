"""``cptsel verify``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.summary import Summary
from cptsel.pipeline.verification.config import VerifyConfig


@pass_command(VerifyConfig, "cptsel verify replay --sources")
def verify(config: VerifyConfig, progress: Any) -> Summary:
    """Check that a manifest and its sources, an embedding run or an export are what they say.

    Checks schemas, checksums, counts, weights and mass by group; in a run every file of embeddings, in an export every
    play. Exits with 4 if anything is wrong. What follows -- goes to Apache Beam.
    """
    from cptsel.pipeline.verify import verify as run

    return run(config, progress)
