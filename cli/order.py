"""``cptsel order``."""

from functools import partial
from typing import Any

from cptsel.cli._common import Summary, pass_command
from cptsel.cli._options import config_argument, config_option
from cptsel.pipeline.config import OrderConfig

_schedule = partial(config_option, OrderConfig, section="Schedule")
_running = partial(config_option, OrderConfig, section="Running")

PARAMETERS = [
    config_argument(OrderConfig, "replay", "Directory written by cptsel select.", metavar="REPLAY"),
    _schedule("epochs", "Epochs to schedule; each has an order of its own.", metavar="E"),
    _schedule(
        "world_size", "Ranks (times data-loading workers) over which the shards of an epoch are spread.", metavar="W"
    ),
    _schedule(
        "staleness",
        "Constant added to a shard's mean gradient norm, as a share of the mean over all shards: 0 "
        "trusts the norms, larger values draw closer to token counts.",
        metavar="SIGMA",
    ),
    _schedule("seed", "Seed of the order.", metavar="N"),
    _running("out", "Directory to write; REPLAY stays as it is.", metavar="ORDERED"),
    _running("overwrite", "Replace ORDERED if it is there."),
    _running("dry_run", "Say what would be done and do nothing."),
]


@pass_command(OrderConfig, PARAMETERS, "cptsel order replay --epochs 2 --world-size 8 --out ordered")
def order(config: OrderConfig, progress: Any) -> Summary:
    """Put the shards of a manifest in order, epoch by epoch and rank by rank.

    Shards with large gradients tend to come early, by priority sampling: any first part of the order is an unbiased
    sample of the whole. Runs on this machine, without Beam.
    """
    from cptsel.pipeline.order import order as run

    return run(config, progress)
