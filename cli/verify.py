"""``cptsel verify``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.summary import Summary
from cptsel.pipeline.verification.config import VerifyConfig


@pass_command(VerifyConfig, "cptsel verify replay --sources")
def verify(config: VerifyConfig, progress: Any) -> Summary:
    """Re-read a manifest and its sources, an embedding run or an export, and hold it to what it says.

    Checks schemas, checksums, counts, weights and mass by group, of a run every file of embeddings, of an export every
    play; exits with 4 at what is wrong. What follows -- goes to Apache Beam.
    """
    from cptsel.pipeline.verify import verify as run

    return run(config, progress)
