"""Sizes that bound memory and time of a selection, and hardly change what is chosen."""

from dataclasses import dataclass

from cptsel.pipeline.spill.columns import PART_ROWS


@dataclass(frozen=True)
class Tuning:
    """What no user needs to set; tests make them small, so that a small run meets every case.

    Attributes:
        clients: samples of a group that score a merge: all up to so many, above that about so many, by name.
        partition_rows: samples of a partition, where their number isn't asked for.
        training_rows: samples of a group that train the centroids of its partitions.
        pick_rows: picks that the command itself holds at once.
        draw_margin: rows that a shard sends to a draw beyond its share, in standard deviations of their number.
    """

    clients: int = 200_000
    partition_rows: int = 50_000
    training_rows: int = 100_000
    pick_rows: int = PART_ROWS
    draw_margin: float = 4.0


DEFAULT = Tuning()
