"""``cptsel order``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.summary import Summary


@pass_command(OrderConfig, "cptsel order replay --epochs 2 --world-size 8 --out ordered")
def order(config: OrderConfig, progress: Any) -> Summary:
    """Put the shards of a manifest in order, epoch by epoch and rank by rank.

    Shards with large gradients tend to come early, by priority sampling: from any first part of the order, totals of
    the whole can be estimated without bias. Runs on this machine, without Beam.
    """
    from cptsel.pipeline.order import order as run

    return run(config, progress)
