"""The options of ``cptsel order``, each declared once."""

from dataclasses import dataclass

from cptsel.pipeline.config import Configuration, argument, option


@dataclass(frozen=True, kw_only=True)
class OrderConfig(Configuration):
    """Options of ``cptsel order``."""

    replay: str = argument("Directory written by cptsel select.", metavar="REPLAY")
    epochs: int = option(1, "Epochs to schedule; each has its own order.", section="Schedule", metavar="E", least=1)
    world_size: int = option(
        1,
        "Ranks (times data-loading workers) over which the shards of an epoch are spread.",
        section="Schedule",
        metavar="W",
        least=1,
        most=1_000_000,
    )
    staleness: float = option(
        0.1,
        "Constant added to a shard's mean gradient norm, as a share of the mean over all shards: 0 trusts "
        "the norms; larger values bring the draw closer to one by token counts.",
        section="Schedule",
        metavar="SIGMA",
        least=0,
    )
    seed: int = option(0, "Seed of the order.", section="Schedule", metavar="N", least=0, most=2**31 - 1)
    out: str = option(
        help="Directory to write; REPLAY is not changed. Where possible, samples files are hard links to those of "
        "REPLAY: you may delete either directory, but don't edit files in place.",
        section="Running",
        metavar="ORDERED",
    )
    overwrite: bool = option(False, "Replace ORDERED if it exists.", section="Running")
    dry_run: bool = option(False, "Only say what would be done.", section="Running")
