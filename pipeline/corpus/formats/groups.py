"""Shards of row groups, such as Parquet's: how they are cut into blocks and read, whatever the format."""

import bisect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, BinaryIO

import numpy as np

from cptsel.pipeline.corpus.contents import Content, content_bytes
from cptsel.pipeline.corpus.formats.base import RowLocator, lost, phrase
from cptsel.pipeline.corpus.formats.columns import first_bytes
from cptsel.pipeline.corpus.rows import read_record
from cptsel.pipeline.corpus.types import (
    BLOCK_DECODED,
    Block,
    BlockBuilder,
    Damage,
    Document,
    DocumentBlock,
    ReadOptions,
    Reject,
    Shard,
)
from cptsel.pipeline.summary import counted

PARTS = 32  # into which a row group is cut at most, as each part decodes all of it
MOST_ROWS = 1 << 24  # of a row group; more is taken for damage
UNREADABLE = Block(0, 0, 0, 0, 1)
"""The one block of a file that can't be opened: one row, which is a reject."""


class GroupedShard(ABC):
    """An open file of row groups.

    Attributes:
        group_rows, group_bytes: rows and uncompressed bytes of each group.
        broken: what is wrong with the last group, if it stands for all that is lost of the file: one row.
    """

    group_rows: list[int]
    group_bytes: list[int]
    broken: Damage | None = None

    @abstractmethod
    def records(
        self, group: int, fields: Sequence[str], cap: int, wanted: np.ndarray | None = None
    ) -> Iterator[dict[str, Any]]:
        """Rows of a group with the top-level columns that ``fields`` need; a value may be a Damage.

        Args:
            group: number of the group.
            fields: columns, or dotted places in them.
            cap: longer strings, in bytes, are a Damage, and are not made.
            wanted: rows of the group, sorted; all by default. The others may be decompressed too, as damage anywhere is
                damage of the whole group, however it is cut; values are made of those that are wanted alone.

        Raises:
            Damage: unreadable_row_group; some rows may have come before.
            OSError: the filesystem failed.
        """


Opener = Callable[[BinaryIO], GroupedShard]
"""Opens a file, which must stay open. Raises Damage where it can't be read at all."""


class GroupFinder:
    """Blocks by what an open file says of its groups."""

    def __init__(self, options: ReadOptions, open_shard: Opener) -> None:
        self._options, self._open = options, open_shard

    def feed(self, chunk: bytes) -> None:
        pass

    def finish(self, handle: BinaryIO) -> tuple[Block, ...]:
        return group_blocks(handle, self._options, self._open)


def group_blocks(handle: BinaryIO, options: ReadOptions, open_shard: Opener) -> tuple[Block, ...]:
    """Blocks of a file, at least one: row groups joined, or cut, to ``block_bytes`` uncompressed bytes.

    Where a group is cut, a block is some of its rows, and its ``start`` and ``end`` are those of the group. The last of
    them may have whole groups after it.
    """
    try:
        shard = open_shard(handle)
    except Damage:
        return (UNREADABLE,)
    return blocks_of(shard, options)


def blocks_of(shard: GroupedShard, options: ReadOptions) -> tuple[Block, ...]:
    """Blocks of an open file, as ``group_blocks`` has them."""
    block_bytes, block_rows = options.block_bytes, options.block_rows
    blocks: list[Block] = []
    start = first_row = rows = size = 0
    for group, (more_rows, more_bytes) in enumerate(zip(shard.group_rows, shard.group_bytes, strict=True)):
        if group > start and (size + more_bytes > block_bytes or rows + more_rows > block_rows):
            blocks.append(Block(len(blocks), start, group, first_row, rows))
            start, first_row, rows, size = group, first_row + rows, 0, 0
        most = min(block_rows, max(1, more_rows * block_bytes // max(1, more_bytes)))
        most = max(most, -(-more_rows // PARTS))
        while more_rows > most and rows == 0:  # a large row group is several blocks
            blocks.append(Block(len(blocks), group, group + 1, first_row, most))
            first_row, more_rows, more_bytes = first_row + most, more_rows - most, 0
        rows += more_rows
        size += more_bytes
    blocks.append(Block(len(blocks), start, len(shard.group_rows), first_row, rows))
    return tuple(blocks)


def read_group_block(
    handle: BinaryIO, shard: Shard, block: Block, options: ReadOptions, open_shard: Opener
) -> DocumentBlock:
    """Read one block of a file. A damaged row group makes each of its rows a reject.

    Raises:
        OSError: the filesystem failed, or the file is not the one of which the inventory was made.
    """
    builder = BlockBuilder(shard, block.block, options)
    last = shard.blocks is None or block.block == len(shard.blocks) - 1
    try:
        groups = open_shard(handle)
    except Damage as damage:
        if block != UNREADABLE:
            raise OSError(f"{shard.uri}: has changed since it was listed") from damage
        if options.limit is None or options.limit > 0:
            builder.add(replace(_reject(0, damage, damage.first_bytes), bytes_lost=shard.bytes))
        return builder.build(last)
    ends = list(accumulate(groups.group_rows, initial=0))
    end = block.first_row + block.rows
    if block.end >= len(ends) or not ends[block.start] <= block.first_row <= end <= ends[block.end]:
        raise OSError(f"{shard.uri}: has changed since it was listed")
    end = end if options.limit is None else min(end, options.limit)
    room = max(BLOCK_DECODED, options.block_bytes)
    for group in range(block.start, block.end):
        first, stop = max(block.first_row, ends[group]), min(end, ends[group + 1])
        if first >= stop:
            continue
        if groups.broken and group == len(groups.group_rows) - 1:  # tells of more than one row
            builder.add(_reject(first, groups.broken, groups.broken.first_bytes))
            continue
        wanted = [row_index for row_index in range(first, stop) if builder.wants(row_index)]
        builder.skip(stop - first - len(wanted))
        for row in _read_rows(groups, group, ends[group], wanted, room, options) if wanted else []:
            room -= _size(row)
            builder.add(row)
    return builder.build(last)


def _size(row: Document | Reject) -> int:
    return len(content_bytes(row.content)) if isinstance(row, Document) else 0


def _read_rows(
    groups: GroupedShard, group: int, group_row: int, wanted: Sequence[int], room: int, options: ReadOptions
) -> list[Document | Reject]:
    """Some rows of a row group that begins at ``group_row``, all counted in the shard and in order.

    Documents beyond ``room`` bytes of text are rejects, and their texts are not kept.
    """
    rows: list[Document | Reject] = []
    columns = [name for name in options.group_by if name not in options.shard_groups]
    fields = [options.text_field, *([options.id_field] if options.id_field is not None else []), *columns]
    try:
        records = groups.records(group, fields, options.max_line_bytes, np.asarray(wanted) - group_row)
        for row_index, record in zip(wanted, records, strict=True):
            try:
                document = read_record(record, row_index, options, None, None)
                room -= _size(document)
                if room < 0:
                    what = "the block has no room for it; a larger --block-bytes would hold more"
                    raise Damage("decoded_too_large", what)
                rows.append(document)
            except Damage as damage:
                rows.append(_reject(row_index, damage, first_bytes(record.get(options.text_field))))
    except Damage as damage:  # what Arrow read of the group before it noticed is not to be trusted either
        return [_reject(row_index, damage, b"") for row_index in wanted]
    return rows


def group_texts(
    handle: BinaryIO, uri: str, options: ReadOptions, rows: Sequence[RowLocator], open_shard: Opener
) -> Iterator[tuple[int, Content]]:
    """Texts of some rows; only the groups that hold one are read."""
    wanted = [row_index for row_index, _, _ in rows]
    position = 0
    try:
        groups = open_shard(handle)
        for group, end in enumerate(accumulate(groups.group_rows)):
            if position == len(wanted):
                return
            mine = sorted(set(wanted[position : bisect.bisect_left(wanted, end)]))
            start = end - groups.group_rows[group]
            records = groups.records(group, [options.text_field], options.max_line_bytes, np.array(mine, int) - start)
            for row_index, record in zip(mine, records if mine else (), strict=True):
                while position < len(wanted) and wanted[position] == row_index:
                    yield row_index, read_record(record, row_index, options, None, None).content
                    position += 1
    except Damage as damage:
        raise lost(uri, wanted[position], phrase(damage)) from damage
    if position < len(wanted):
        raise lost(uri, wanted[position], f"the file has only {counted(sum(groups.group_rows), 'row')}")


def _reject(row_index: int, damage: Damage, first: bytes) -> Reject:
    return Reject(row_index, None, None, damage.reason, damage.detail, damage.first_bytes or first, damage.bytes_lost)
