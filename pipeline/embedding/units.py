"""A unit, which is one block of a shard: how it is read, its files, and what became of it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import unit_name
from cptsel.pipeline.artifacts.seal import read_seal
from cptsel.pipeline.corpus.documents import DocumentBlock, ReadOptions, read_block, read_stream
from cptsel.pipeline.corpus.shards import Block, Shard
from cptsel.pipeline.errors import UsageError

UNIT_KEY = "cptsel.unit"
RUN_KEY = "cptsel.run"


@dataclass(frozen=True)
class Unit:
    """A block of a shard, or (``block`` None) a compressed shard that is read once, front to back."""

    shard: Shard
    block: Block | None


def read_unit(unit: Unit, options: ReadOptions) -> Iterable[DocumentBlock]:
    """The block, or the blocks of the stream one after another."""
    if unit.block is None:
        return read_stream(unit.shard, options)
    return [read_block(unit.shard, unit.block, options)]


@dataclass(frozen=True)
class UnitResult:
    """What became of one block: its counts and checksums, or (``error``) why its shard could not be read.

    ``taken`` are tokens that a ``fresh`` one, which this call has made, took over from an earlier run.
    """

    shard_id: int
    block: int
    counts: dict[str, int] | None
    error: str | None = None
    fresh: bool = False
    taken: int = 0
    seal: dict[str, Any] | None = None


def unit_path(out: str, kind: str, shard_id: int, block: int) -> str:
    """Path of a unit's file; ``kind`` is "embeddings" or "rejects"."""
    return io.join(out, kind, unit_name(shard_id, block))


def stored_unit(out: str, run: str, shard_id: int, block: int) -> tuple[UnitResult, bool] | None:
    """A unit that an earlier attempt finished for the same run, and whether it ends its shard; else None."""
    path = unit_path(out, "embeddings", shard_id, block)
    if not io.exists(path) or not io.exists(unit_path(out, "rejects", shard_id, block)):
        return None
    try:
        metadata = io.read_parquet_metadata(path)
        if metadata.get(RUN_KEY) != run:
            return None
        for kind in ("embeddings", "rejects"):
            io.read_parquet(unit_path(out, kind, shard_id, block))  # holds every page against its checksum
    except UsageError:  # damaged: the unit is made again
        return None
    unit = json.loads(metadata[UNIT_KEY])
    if (unit["shard_id"], unit["block"]) != (shard_id, block):  # a file of the same run in another's place
        return None
    return UnitResult(shard_id, block, unit["counts"], seal=read_seal(out, unit_name(shard_id, block))), unit["last"]
