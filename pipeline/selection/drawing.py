"""Draws from more samples than memory takes: ``kernels.sampling.draws.priority_sample`` of every group, read by keys.

Samples are sorted on disk (see spill/sorting.py), by group and falling key. A group takes its first ones that fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cptsel.pipeline.kernels.budget import carry
from cptsel.pipeline.spill.columns import PART_ROWS, Column
from cptsel.pipeline.spill.sorting import ID, by_value, packed, records, sort_key, sorted_parts

_WHOLE = [(name, np.int64) for name in ("group", "index", "size")]
# ``first`` is the group and, behind it, what of ``falling`` has room: it orders as both of them do.
_ENTRY = np.dtype([("first", np.uint64), ("falling", np.uint64), *ID, *_WHOLE, ("key", np.float64)])


@dataclass(frozen=True, eq=False)
class Drawn:
    """What was drawn.

    Attributes:
        taken: (n,) bool, in the order in which entries were added.
        threshold: (g,) float64, the key of the first one left out of each group; 0 where nothing is.
    """

    taken: Column
    threshold: np.ndarray


class GroupDraws:
    """Entries of all groups, and a draw from each.

    What a group leaves, as its next entry is larger than that, goes to the next group (see ``kernels.budget.carry``).

    Args:
        groups: g.
    """

    def __init__(self, groups: int) -> None:
        self._bits = np.uint64(max(1, (groups - 1).bit_length()))
        self._table = Column(_ENTRY)

    def __len__(self) -> int:
        return len(self._table)

    def add(self, group: np.ndarray, names: Sequence[str], key: np.ndarray, size: np.ndarray) -> None:
        """Add entries.

        Args:
            group: (n,) int64 in [0, g).
            names: n sample_ids: of equal keys the first one is taken.
            key: (n,) float64; what is not above 0 is never drawn.
            size: (n,) int64 at least 1, in the unit of budgets.
        """
        falling = ~sort_key(key)
        first = group.astype(np.uint64) << (np.uint64(64) - self._bits) | falling >> self._bits
        index = np.arange(len(self), len(self) + len(key))
        rows = {"first": first, "falling": falling, "group": group, "index": index, "size": size, "key": key}
        self._table.append(records(_ENTRY, packed(names), **rows))

    def draw(self, budgets: Sequence[int], rows: int = PART_ROWS) -> Drawn:
        """Draw from every group with entries, one after the other.

        Args:
            budgets: g.
            rows: entries that are held at once.
        """
        taken, threshold = Column.zeros(np.bool_, len(self)), np.zeros(len(budgets))
        filled, left, current, full = 0, 0, -1, False
        for part in sorted_parts(self._table, ["first", "falling", "high", "low"], rows):
            for group, mine in by_value(part["group"]):
                if group != current:
                    if current >= 0:
                        left = carry(left, budgets[current], filled, bool(threshold[current] > 0))
                    filled, current, full = 0, group, False
                if full:
                    continue
                some = part[mine][part["key"][mine] > 0]
                running = filled + np.cumsum(some["size"])
                fits = int(np.searchsorted(running, budgets[group] + left, side="right"))
                taken.put(some["index"][:fits], np.ones(fits, np.bool_))
                filled = int(running[fits - 1]) if fits else filled
                if fits < len(some):
                    threshold[group], full = some["key"][fits], True
        return Drawn(taken, threshold)
