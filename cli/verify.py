"""``cptsel verify``."""

from functools import partial
from typing import Any

from cptsel.cli._common import Summary, pass_command
from cptsel.cli._options import config_argument, config_option
from cptsel.pipeline.config import VerifyConfig

_checks = partial(config_option, VerifyConfig, section="Checks")
_running = partial(config_option, VerifyConfig, section="Running")

PARAMETERS = [
    config_argument(VerifyConfig, "replay", "Directory written by cptsel select, order or embed.", metavar="REPLAY"),
    _checks("sources", "Also read the corpus again and compare shard checksums and the text of every chosen sample."),
    _checks(
        "root",
        "Directory in which the corpus lies now, for --sources; by default where it was embedded.",
        metavar="DIR",
    ),
    _running("workers", "Local processes, for --sources.", metavar="N"),
]


@pass_command(VerifyConfig, PARAMETERS, "cptsel verify replay --sources")
def verify(config: VerifyConfig, progress: Any) -> Summary:
    """Re-read a manifest and its sources, or an embedding run, and hold it to what it says.

    Checks schemas, checksums, counts, weights and mass by group, of a run every file of embeddings; exits with 4 at
    what is wrong. What follows -- goes to Apache Beam.
    """
    from cptsel.pipeline.verify import verify as run

    return run(config, progress)
