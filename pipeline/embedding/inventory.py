"""The shards of a corpus and their blocks, found before anything is embedded."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.lock import Held
from cptsel.pipeline.artifacts.ranges import POLL_S, Ledger
from cptsel.pipeline.artifacts.shard_range import ShardRange, range_bounds
from cptsel.pipeline.corpus.contents import content_bytes
from cptsel.pipeline.corpus.documents import ReadOptions
from cptsel.pipeline.corpus.shards import Block, Shard, inventory
from cptsel.pipeline.corpus.types import Companion, TokenRule
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.stopping import stopping
from cptsel.pipeline.embedding.units import Unit, read_unit
from cptsel.pipeline.engine.tasks import call_on_tasks
from cptsel.pipeline.errors import UsageError

Files = Sequence[tuple[str, str, int]]
_SHARE = 4  # of the ranges that nobody is at, a command takes this part at a time: those that come later find some left


def take_inventory(config: EmbedConfig, files: Files, tokens: TokenRule, options: Any) -> list[Shard]:
    """Hash every shard and find its blocks; in order of shard_id.

    Raises:
        UsageError: a file can't be read, so the corpus can't be named.
    """
    folder, digests = (io.join(config.out, outputs.WORK, name) for name in ("inventory", "digests"))
    return [_shard(entry) for entry in _entries(config, files, range(len(files)), tokens, options, folder, digests)]


def share_inventory(
    config: EmbedConfig, files: Files, tokens: TokenRule, options: Any, ledger: Ledger, part: ShardRange
) -> list[Shard]:
    """``take_inventory`` by all commands that embed ranges of the corpus: each takes what no other is at.

    Raises:
        UsageError: a file can't be read, so the corpus can't be named.
    """
    bounds = range_bounds([size for _, _, size in files], part.count)
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
            entries = iter(_entries(config, files, numbers, tokens, options, folder, ledger.digests))
            for index in claimed:
                lines = [json.dumps(entry) + "\n" for entry in islice(entries, bounds[index + 1] - bounds[index])]
                io.write_bytes(ledger.inventory(index), "".join(lines).encode())
        if not claimed:
            time.sleep(POLL_S)
    return [
        _shard(json.loads(line))
        for index in range(part.count)
        for line in io.read_bytes(ledger.inventory(index)).splitlines()
    ]


def _entries(
    config: EmbedConfig,
    files: Files,
    numbers: Sequence[int],
    tokens: TokenRule,
    options: Any,
    folder: str,
    digests: str,
) -> list[dict[str, Any]]:
    """The fields of the shards of these numbers, in their order."""
    tasks = ((number, *files[number]) for number in numbers)
    take = TakeInventory(config.block_bytes, config.format, digests, tokens)
    with stopping():
        entries = list(call_on_tasks(options, folder, take, tasks))
    unread = [f"{entry['uri']}: {entry['error']}" for entry in entries if "error" in entry]
    if unread:
        raise UsageError(f"{unread[0]} ({len(unread)} of {len(entries)} shards can't be read); mend or leave it out")
    return entries


@dataclass(frozen=True)
class TakeInventory:
    """(shard_id, uri, path, bytes) → the fields of its Shard, or uri and error of a file that can't be read.

    Attributes:
        block_bytes: size of a block.
        format: of the files, where the suffix doesn't tell it.
        digests: directory for the digests of the files.
        tokens: how files of token ids are read.
    """

    block_bytes: int
    format: str | None
    digests: str
    tokens: TokenRule

    def __call__(self, task: tuple[int, str, str, int]) -> dict[str, Any]:
        shard_id, uri, path, size = task
        digests = io.join(self.digests, f"{shard_id:06d}")
        try:
            return asdict(inventory(shard_id, uri, path, size, self.block_bytes, self.format, digests, self.tokens))
        except OSError as error:
            return {"uri": uri, "error": str(error)}


def units_of(shards: Sequence[Shard]) -> Iterator[Unit]:
    """What is read by itself: blocks, and whole streams."""
    for shard in shards:
        if shard.blocks is None:
            yield Unit(shard, None)
        else:
            bare = replace(shard, blocks=())  # a unit need not carry the places of all the others
            yield from (Unit(bare, block) for block in shard.blocks)


def count_groups(config: EmbedConfig, shards: list[Shard], options: Any, work: str) -> dict[str | None, float]:
    """Bytes of text by the first group column, from one more reading; none of shards that can't be read."""
    folder = io.join(work, "groups")
    read = ReadOptions(
        text_field=config.text_field,
        id_field=None,
        group_by=config.group_by[:1],
        max_line_bytes=config.max_line_bytes,
        block_bytes=config.block_bytes,
        limit=config.limit,
    )
    found: dict[str | None, float] = {}
    with stopping():
        counts = call_on_tasks(options, folder, CountGroups(read), units_of(shards))
    for counted in counts:
        for group, size in counted:
            found[group] = found.get(group, 0.0) + size
    return found


@dataclass(frozen=True)
class CountGroups:
    """Unit → a list of (group, bytes of text), by the only group column of the options."""

    options: ReadOptions

    def __call__(self, unit: Unit) -> list[tuple[str | None, int]]:
        found: Counter[str | None] = Counter()
        try:
            for block in read_unit(unit, self.options):
                for document in block.documents:
                    found[document.groups[0]] += len(content_bytes(document.content))
        except OSError:  # the same is found when it is embedded, and told then
            pass
        return sorted(found.items(), key=lambda item: (item[0] is not None, item[0]))


def _shard(entry: dict[str, Any]) -> Shard:
    blocks, companion = entry.pop("blocks"), entry.pop("companion")
    return Shard(
        **entry,
        blocks=None if blocks is None else tuple(Block(**block) for block in blocks),
        companion=companion and Companion(**companion),
    )
