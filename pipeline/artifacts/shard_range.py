"""Ranges of a corpus's shards, each of which one command embeds: how they are named, and which shards they hold."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class ShardRange:
    """The ``index``-th of ``count`` ranges of a corpus's shards, from 0 on."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_range(text: str) -> ShardRange:
    """``3/8`` → the fourth of eight ranges.

    Raises:
        ValueError: it is not of this form, or there is no such range.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found is None:
        raise ValueError(f"{text!r} is not of the form I/N, such as 3/8")
    index, count = map(int, found.groups())
    if count == 0:
        raise ValueError(f"{text}: there must be a range at least, as in 0/1")
    if index >= count:
        raise ValueError(f"{text}: ranges count from 0 to {count - 1} (with Slurm, --array=0-{count - 1})")
    return ShardRange(index, count)


def range_bounds(sizes: Sequence[int], count: int) -> list[int]:
    """Where ranges of about equally many bytes begin: (count + 1,) indices of shards, from 0 to their number.

    Range i holds the shards from bounds[i] to bounds[i + 1]; a shard is where its middle lies. With more ranges than
    shards some hold none.

    Args:
        sizes: bytes of each shard.
        count: of ranges.
    """
    weights = [max(size, 1) for size in sizes]  # so that empty shards are spread as well
    total = sum(weights)
    middles = [2 * end - weight for end, weight in zip(accumulate(weights), weights, strict=True)]  # times two
    of = [middle * count // (2 * total) for middle in middles]
    return [bisect_left(of, index) for index in range(count + 1)]


def listed(numbers: Sequence[int]) -> str:
    """Numbers in ascending order as Slurm's ``--array`` takes them: ``2,6-8``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
