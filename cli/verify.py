"""``cptsel verify``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.config import VerifyConfig
from cptsel.pipeline.summary import Summary


@pass_command(VerifyConfig, "cptsel verify replay --sources")
def verify(config: VerifyConfig, progress: Any) -> Summary:
    """Re-read a manifest and its sources, or an embedding run, and hold it to what it says.

    Checks schemas, checksums, counts, weights and mass by group, of a run every file of embeddings; exits with 4 at
    what is wrong. What follows -- goes to Apache Beam.
    """
    from cptsel.pipeline.verify import verify as run

    return run(config, progress)
