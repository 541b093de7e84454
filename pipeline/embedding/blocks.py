"""How large the blocks of a run are: as asked for, as in the run that it goes on from, or by the pool."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cptsel.pipeline.corpus.types import BLOCK_BYTES, BLOCK_ROWS
from cptsel.pipeline.embedding.begun import begun_run
from cptsel.pipeline.embedding.config import EmbedConfig

MOST_BYTES = 256 << 20
"""Of a block that is larger for the sake of a pool. As much text may a block hold at any rate (``BLOCK_DECODED``)."""

LEAST_BLOCKS = 64  # that blocks of that kind leave of a corpus, by its bytes: workers share blocks


@dataclass(frozen=True)
class BlockSize:
    """Bytes and rows at which a block ends."""

    bytes: int = BLOCK_BYTES
    rows: int = BLOCK_ROWS

    def options(self) -> dict[str, Any]:
        """What ``run.json`` says of it: the rows only where they are not those of every run without a pool."""
        return {"block_bytes": self.bytes} | ({} if self.rows == BLOCK_ROWS else {"block_rows": self.rows})


def blocks_of_options(options: Mapping[str, Any]) -> BlockSize:
    """The reverse of ``BlockSize.options``."""
    return BlockSize(options["block_bytes"], options.get("block_rows", BLOCK_ROWS))


def blocks_there(config: EmbedConfig, *others: Mapping[str, Any]) -> BlockSize | None:
    """The blocks of a run that was begun in ``--out`` and is not to be replaced, or the first that others have.

    Args:
        config: of the run.
        others: options of runs as in ``run.json``, or nothing.
    """
    header = begun_run(config)
    begun = header["options"] if header else {}
    found = (options for options in (begun, *others) if isinstance(options.get("block_bytes"), int))
    return next(map(blocks_of_options, found), None)


def is_by_pool(config: EmbedConfig, there: BlockSize | None) -> bool:
    """Whether the blocks follow from the pool's rate, as neither the user nor a run says what they are."""
    pooled = config.pool is not None or config.time_budget is not None
    return pooled and there is None and config.block_bytes is None


def new_blocks(config: EmbedConfig, there: BlockSize | None, rate: float, corpus_bytes: int) -> BlockSize:
    """The blocks of a run.

    A block of a pool holds about as much text to embed as one of the whole corpus: its bytes and rows are those divided
    by the pool's rate. They are so many times the usual as a power of 2 is, so that a rate that is found by a clock
    gives the same ones on most days.

    Args:
        config: of the run.
        there: blocks of a run from which this one goes on; taken where nothing else is asked for.
        rate: the largest at which documents are drawn.
        corpus_bytes: of all shards, as stored.
    """
    asked = config.block_bytes
    if there is not None and asked in {None, there.bytes}:
        return there
    if asked is None:
        most = min(MOST_BYTES, max(BLOCK_BYTES, corpus_bytes // LEAST_BLOCKS))
        asked = BLOCK_BYTES
        while 2 * asked <= most and 2 * asked * rate <= BLOCK_BYTES:
            asked *= 2
    pooled = config.pool is not None or config.time_budget is not None
    return BlockSize(asked, BLOCK_ROWS * max(1, asked // BLOCK_BYTES) if pooled else BLOCK_ROWS)
