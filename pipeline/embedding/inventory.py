"""The shards of a corpus and their blocks, found before anything is embedded."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import apache_beam as beam

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.corpus.documents import ReadOptions
from cptsel.pipeline.corpus.shards import Block, Shard
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.transforms import CollectSorted, CountGroups, InventoryShards, Unit
from cptsel.pipeline.engine.beam import make_pipeline
from cptsel.pipeline.errors import UsageError


def take_inventory(config: EmbedConfig, files: list[tuple[str, str, int]], options: Any) -> list[Shard]:
    """Hash every shard and find its blocks; in order of shard_id.

    Raises:
        UsageError: a file can't be read, so the corpus can't be named.
    """
    listing, digests = (io.join(config.out, outputs.WORK, name) for name in ("inventory.jsonl", "digests"))
    with make_pipeline(options) as pipeline:
        _ = (
            pipeline
            | "Files" >> beam.Create([(i, uri, path, size) for i, (uri, path, size) in enumerate(files)])
            | "InventoryShards" >> InventoryShards(config.block_bytes, config.format, digests)
            | "ToJson" >> beam.Map(_inventory_line)
            | "Collect" >> CollectSorted(listing)
        )
    entries = [json.loads(line) for line in io.read_bytes(listing).decode().splitlines()]
    unread = [f"{entry['uri']}: {entry['error']}" for entry in entries if "error" in entry]
    if unread:
        raise UsageError(f"{unread[0]} ({len(unread)} of {len(files)} shards can't be read); mend or leave it out")
    return sorted((_shard(entry) for entry in entries), key=lambda shard: shard.shard_id)


def units_of(shards: list[Shard]) -> Iterator[Unit]:
    """What is read by itself: blocks, and whole streams."""
    for shard in shards:
        if shard.blocks is None:
            yield Unit(shard, None)
        else:
            bare = replace(shard, blocks=())  # a unit need not carry the places of all the others
            yield from (Unit(bare, block) for block in shard.blocks)


def count_groups(config: EmbedConfig, shards: list[Shard], options: Any) -> dict[str | None, float]:
    """Bytes of text by the first group column, from one more reading; none of shards that can't be read."""
    listing = io.join(config.out, outputs.WORK, "groups.jsonl")
    read = ReadOptions(
        text_field=config.text_field,
        id_field=None,
        group_by=config.group_by[:1],
        max_line_bytes=config.max_line_bytes,
        block_bytes=config.block_bytes,
        limit=config.limit,
    )
    with make_pipeline(options) as pipeline:
        _ = (
            pipeline
            | "Units" >> beam.Create(list(units_of(shards)))
            | "CountGroups" >> CountGroups(read)
            | "ToJson" >> beam.Map(json.dumps)
            | "Collect" >> CollectSorted(listing)
        )
    found: dict[str | None, float] = {}
    for line in io.read_bytes(listing).decode().splitlines():
        for group, size in json.loads(line):
            found[group] = found.get(group, 0.0) + size
    return found


def _inventory_line(entry: Shard | tuple[str, str]) -> str:
    value = asdict(entry) if isinstance(entry, Shard) else {"uri": entry[0], "error": entry[1]}
    return json.dumps(value, sort_keys=True)


def _shard(entry: dict[str, Any]) -> Shard:
    blocks = entry.pop("blocks")
    return Shard(**entry, blocks=None if blocks is None else tuple(Block(**block) for block in blocks))
