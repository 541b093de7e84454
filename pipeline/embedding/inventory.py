"""The shards of a corpus and their blocks, found before anything is embedded."""

import json
from dataclasses import asdict
from typing import Any

import apache_beam as beam

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.corpus.shards import Block, Shard
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.transforms import CollectSorted, InventoryShards
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


def _inventory_line(entry: Shard | tuple[str, str]) -> str:
    value = asdict(entry) if isinstance(entry, Shard) else {"uri": entry[0], "error": entry[1]}
    return json.dumps(value, sort_keys=True)


def _shard(entry: dict[str, Any]) -> Shard:
    blocks = entry.pop("blocks")
    return Shard(**entry, blocks=None if blocks is None else tuple(Block(**block) for block in blocks))
