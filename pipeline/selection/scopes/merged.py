"""What the merges of a global selection chose, as every shard reads it.

A worker reads the choice from a group for the first of its shards and keeps it for the next ones. It would read shards
times picks otherwise.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io

#: So many bytes of choices are kept in a worker, and the last that was read, however large.
KEPT_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Merged:
    """What was chosen from a group.

    Attributes:
        names: (m,) sample_id, ascending.
        rows: the file's columns, of one chunk each.
    """

    names: np.ndarray
    rows: pa.Table

    @property
    def bytes(self) -> int:
        """How much memory it takes."""
        return int(self.names.nbytes + self.rows.nbytes)


@dataclass(frozen=True)
class MergedGroups:
    """Files of rows by sample_id; pickled without what was read of them."""

    _kept: dict[str, Merged] = field(default_factory=dict, init=False, repr=False, compare=False)

    def read(self, path: str) -> Merged | None:
        """What was chosen from a group; None where nothing was."""
        if path in self._kept:
            self._kept[path] = found = self._kept.pop(path)  # the last one is the last to go
            return found
        rows = io.read_parquet(path).combine_chunks() if io.exists(path) else None
        if rows is None or not rows.num_rows:
            return None
        found = Merged(np.asarray(rows["sample_id"].to_pylist()), rows)
        left = KEPT_BYTES - found.bytes
        for other, kept in reversed(list(self._kept.items())):
            left -= kept.bytes
            if left < 0:
                del self._kept[other]
        self._kept[path] = found
        return found

    def __reduce__(self) -> tuple[type["MergedGroups"], tuple[()]]:
        return MergedGroups, ()
