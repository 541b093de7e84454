"""``cptsel locate``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.lookup.config import LocateConfig
from cptsel.pipeline.summary import Summary


@pass_command(LocateConfig, "cptsel locate ordered --epoch 1 --rank 3 --position 4711")
def locate(config: LocateConfig, progress: Any) -> Summary:
    """Say which sample a rank plays at a position.

    Also prints its text if the corpus is available. Without a schedule there is one rank and one epoch. For the
    reverse, all places of a sample, use cptsel explain.
    """
    from cptsel.pipeline.locate import locate as run

    return run(config, progress)
