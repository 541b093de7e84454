"""Documents of a shard, block by block: bad rows become rejects with a reason, and the rest is read.

    for block in shard.blocks:                      # plain JSONL, Parquet, Arrow, in any order
        documents = read_block(shard, block, options)
    for documents in read_stream(shard, options):   # compressed JSONL, front to back

A row is a physical line, split at ``\\n`` alone, or one of Parquet or Arrow. Blank and bad ones count: row numbers
never shift.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace

from cptsel.pipeline.corpus.formats.registry import FORMATS
from cptsel.pipeline.corpus.opening import opened
from cptsel.pipeline.corpus.path_groups import path_groups
from cptsel.pipeline.corpus.texts import read_texts
from cptsel.pipeline.corpus.types import (
    REASONS,
    Block,
    Document,
    DocumentBlock,
    ReadOptions,
    Reject,
    Shard,
)

__all__ = [
    "REASONS",
    "Document",
    "DocumentBlock",
    "ReadOptions",
    "Reject",
    "read_block",
    "read_parts",
    "read_stream",
    "read_texts",
]


def read_block(shard: Shard, block: Block, options: ReadOptions) -> DocumentBlock:
    """Read one block of a shard whose blocks are known.

    The result depends on the file and the options, never on how the file was cut into blocks: only on where this block
    lies. Rows at or past ``options.limit`` are neither read nor counted.

    Raises:
        OSError: the file can't be read, or is not the one of which the inventory was made.
    """
    with opened(shard) as handle:
        return FORMATS[shard.format].read_block(handle, shard, block, _of_shard(options, shard))


def read_stream(shard: Shard, options: ReadOptions) -> Iterator[DocumentBlock]:
    """Read a stream, such as a compressed JSONL shard, once, front to back.

    Yields at least one block; a block ends at the first line end at or past ``options.block_bytes`` uncompressed bytes,
    and ``last`` is True on the final one only.

    Raises:
        OSError: the file can't be read, or is not the one of which the inventory was made.
    """
    with opened(shard) as handle:
        yield from FORMATS[shard.format].read_stream(handle, shard, _of_shard(options, shard))


def read_parts(shard: Shard, options: ReadOptions, blocks: int) -> tuple[list[DocumentBlock], float]:
    """The first blocks of a stream, and the share of its bytes, as stored, that they take."""
    with opened(shard) as handle:
        stream = FORMATS[shard.format].read_stream(handle, shard, _of_shard(options, shard))
        found = list(itertools.islice(stream, blocks))
        return found, 1.0 if found[-1].last else handle.tell() / shard.bytes


def _of_shard(options: ReadOptions, shard: Shard) -> ReadOptions:
    return replace(options, shard_groups=path_groups(shard.path, options.group_by))
