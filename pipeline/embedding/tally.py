"""How far an embedding run is, read from the files that it has written: on any runner, from outside."""

import json
import time
from collections.abc import Callable

from cptsel.pipeline import io
from cptsel.pipeline.embedding.units import UNIT_KEY
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.summary import counted

_AT_ONCE = 256  # new files of which footers are read in one look


class Tally:
    """Counts the units in a folder; those that were there at the first look say nothing of the speed.

    Args:
        folder: of the embeddings.
        expected: units of these shards, about.
        shards: shard_ids that count; by default all.
        clock: seconds from any fixed point.
    """

    def __init__(
        self,
        folder: str,
        expected: int,
        shards: range | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.folder, self.expected, self.shards, self.clock = folder, expected, shards, clock
        self.began = clock()
        self.earlier = set(self._names())
        self.done = len(self.earlier)
        self.seen: set[str] = set()
        self.counts = {"samples": 0, "tokens": 0, "rejects": 0}

    def look(self) -> int:
        """Units that are done."""
        names = self._names()
        self.done = len(names)
        for name in [name for name in names if name not in self.earlier and name not in self.seen][:_AT_ONCE]:
            self.seen.add(name)
            try:
                counts = json.loads(io.read_parquet_metadata(io.join(self.folder, name))[UNIT_KEY])["counts"]
            except (UsageError, KeyError):  # another attempt replaces it at this moment
                continue
            self.counts["samples"] += counts["windows_embedded"]
            self.counts["tokens"] += counts["tokens"]
            self.counts["rejects"] += counts["rows_rejected"] + counts["windows_rejected"]
        return self.done

    def _names(self) -> list[str]:
        names = io.list_names(self.folder, ".parquet")
        if self.shards is None:
            return names
        return [name for name in names if int(name.partition("-")[0]) in self.shards]

    def detail(self) -> str:
        """Samples, tokens, speed, rejects and time left, in a phrase; empty until a unit is done."""
        if not self.seen:
            return ""
        seconds = max(self.clock() - self.began, 1e-9)
        speed = self.counts["tokens"] / seconds
        samples, tokens = counted(self.counts["samples"], "sample"), counted(self.counts["tokens"], "token")
        found = f"{samples}, {tokens}, {speed:,.0f} tokens/s"
        if self.counts["rejects"]:
            found += f", {counted(self.counts['rejects'], 'reject')}"
        left = max(0, self.expected - self.done) * seconds / max(1, self.done - len(self.earlier))
        return found + (f", about {_time(left)} left" if left else "")


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
