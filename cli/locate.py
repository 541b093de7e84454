"""``cptsel locate``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.lookup.config import LocateConfig
from cptsel.pipeline.summary import Summary


@pass_command(LocateConfig, "cptsel locate ordered --epoch 1 --rank 3 --position 4711")
def locate(config: LocateConfig, progress: Any) -> Summary:
    """Say which sample a rank plays at a position.

    Its text is told too if the corpus is at hand. Without a schedule there is one rank and one epoch. cptsel explain
    tells the way back: all places of a sample.
    """
    from cptsel.pipeline.locate import locate as run

    return run(config, progress)
