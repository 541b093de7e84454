"""The shards of a corpus and their blocks, found before anything is embedded."""

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.lock import Held
from cptsel.pipeline.artifacts.ranges import POLL_S, Ledger
from cptsel.pipeline.artifacts.shard_range import ShardRange, range_bounds
from cptsel.pipeline.corpus.documents import ReadOptions
from cptsel.pipeline.corpus.listing import Files
from cptsel.pipeline.corpus.shards import Block, Shard, inventory
from cptsel.pipeline.corpus.text_bytes import TextBytes
from cptsel.pipeline.corpus.types import Companion, TokenRule
from cptsel.pipeline.embedding.blocks import BlockSize
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.stopping import stopping
from cptsel.pipeline.embedding.units import Unit
from cptsel.pipeline.engine.beam import is_local
from cptsel.pipeline.engine.tasks import call_on_tasks
from cptsel.pipeline.errors import UsageError

_SHARE = 4  # of the ranges that nobody is at, a command takes this part at a time: those that come later find some left


@dataclass(frozen=True)
class Inventory:
    """What the one reading before that of ``embed`` found.

    Attributes:
        shards: in order of shard_id.
        group_bytes: bytes of text by the first group column, where they were counted.
    """

    shards: list[Shard]
    group_bytes: dict[str | None, float] = field(default_factory=dict)


def take_inventory(
    config: EmbedConfig, files: Files, tokens: TokenRule, options: Any, counts: bool, blocks: BlockSize
) -> Inventory:
    """Hash every shard, find its blocks, and, with ``counts``, add up the text of each group.

    Raises:
        UsageError: a file can't be read, so the corpus can't be named.
    """
    folder, digests = (io.join(config.out, outputs.WORK, name) for name in ("inventory", "digests"))
    take = _take(config, tokens, digests, counts, blocks)
    return _joined(_entries(files, range(len(files)), take, options, folder))


def share_inventory(
    config: EmbedConfig,
    files: Files,
    tokens: TokenRule,
    options: Any,
    counts: bool,
    blocks: BlockSize,
    ledger: Ledger,
    part: ShardRange,
) -> Inventory:
    """``take_inventory`` by all commands that embed ranges of the corpus: each takes what no other is at.

    Raises:
        UsageError: a file can't be read, so the corpus can't be named.
    """
    bounds = range_bounds([size for _, _, size in files], part.count)
    take = _take(config, tokens, ledger.digests, counts, blocks)
    order = [*range(part.index, part.count), *range(part.index)]  # its own range first
    while left := [index for index in order if not io.exists(ledger.inventory(index))]:
        most = 1 if part.index in left else -(-len(left) // _SHARE)
        with contextlib.ExitStack() as stack:
            claimed: list[int] = []
            for index in left:
                if len(claimed) < most:
                    with contextlib.suppress(Held):
                        stack.enter_context(ledger.claim(f"inventory-{index:06d}", f"embed --shard-range {part}"))
                        claimed.append(index)
            claimed = [index for index in claimed if not io.exists(ledger.inventory(index))]  # now no one else is at it
            numbers = [number for index in claimed for number in range(bounds[index], bounds[index + 1])]
            folder = io.join(ledger.scratch(part.index), "inventory")
            entries = iter(_entries(files, numbers, take, options, folder))
            for index in claimed:
                lines = [json.dumps(entry) + "\n" for entry in islice(entries, bounds[index + 1] - bounds[index])]
                io.write_bytes(ledger.inventory(index), "".join(lines).encode())
        if not claimed:
            time.sleep(POLL_S)
    return _joined(
        json.loads(line) for index in range(part.count) for line in io.read_bytes(ledger.inventory(index)).splitlines()
    )


def _joined(entries: Iterable[dict[str, Any]]) -> Inventory:
    """Entries of all shards, in their order."""
    shards: list[Shard] = []
    sizes: dict[str | None, float] = {}
    for entry in entries:
        for group, size in entry.pop("group_bytes"):
            sizes[group] = sizes.get(group, 0.0) + size
        shards.append(_shard(entry))
    return Inventory(shards, sizes)


def _entries(
    files: Files, numbers: Sequence[int], take: "TakeInventory", options: Any, folder: str
) -> list[dict[str, Any]]:
    """The fields of the shards of these numbers, in their order."""
    tasks = ((number, *files[number]) for number in numbers)
    with stopping():
        entries = list(call_on_tasks(options, folder, take, tasks))
    unread = [f"{entry['uri']}: {entry['error']}" for entry in entries if "error" in entry]
    if unread:
        where = (
            "" if is_local(options) else ", and see that workers have the corpus under the path that the command has"
        )
        count = f"{len(unread)} of {len(entries)} shards can't be read"
        raise UsageError(f"{unread[0]} ({count}); mend or leave it out{where}")
    return entries


def _take(config: EmbedConfig, tokens: TokenRule, digests: str, counts: bool, blocks: BlockSize) -> "TakeInventory":
    counting = ReadOptions(
        text_field=config.text_field,
        id_field=None,
        group_by=config.group_by[:1],
        max_line_bytes=config.max_line_bytes,
        block_bytes=blocks.bytes,
        block_rows=blocks.rows,
        limit=config.limit,
        tokens=tokens,
    )
    return TakeInventory(blocks, config.format, digests, tokens, counting if counts else None)


@dataclass(frozen=True)
class TakeInventory:
    """(shard_id, uri, path, bytes) → the fields of its Shard and ``group_bytes``; uri and error if it can't be read.

    Attributes:
        blocks: their size.
        format: of the files, where the suffix doesn't tell it.
        digests: directory for the digests of the files.
        tokens: how files of token ids are read.
        counting: how rows are read to count the bytes of their groups, where that is wanted.
    """

    blocks: BlockSize
    format: str | None
    digests: str
    tokens: TokenRule
    counting: ReadOptions | None = None

    def __call__(self, task: tuple[int, str, str, int]) -> dict[str, Any]:
        shard_id, uri, *_ = task
        digests = io.join(self.digests, f"{shard_id:06d}")
        sizes = None if self.counting is None else TextBytes(self.counting)
        try:
            shard = inventory(
                *task, self.blocks.bytes, self.format, digests, self.tokens, sizes, block_rows=self.blocks.rows
            )
        except OSError as error:
            return {"uri": uri, "error": str(error)}
        return asdict(shard) | {"group_bytes": sizes.listed() if sizes else []}


def units_of(shards: Sequence[Shard]) -> Iterator[Unit]:
    """What is read by itself: blocks, and whole streams."""
    for shard in shards:
        if shard.blocks is None:
            yield Unit(shard, None)
        else:
            bare = replace(shard, blocks=())  # a unit need not carry the places of all the others
            yield from (Unit(bare, block) for block in shard.blocks)


def _shard(entry: dict[str, Any]) -> Shard:
    blocks, companion = entry.pop("blocks"), entry.pop("companion")
    return Shard(
        **entry,
        blocks=None if blocks is None else tuple(Block(**block) for block in blocks),
        companion=companion and Companion(**companion),
    )
