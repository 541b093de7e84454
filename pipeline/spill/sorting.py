"""Columns of records in order, a part at a time, whatever their number; and what such an order takes."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from cptsel.pipeline.spill.columns import PART_ROWS, Column

#: A sample_id as two halves, which sort as the names do.
ID = [("high", np.uint64), ("low", np.uint64)]

# Of so many keys for each part, evenly spaced, those that part them are taken.
_SAMPLED = 64


def sorted_parts(table: Column, by: Sequence[str], rows: int = PART_ROWS) -> Iterator[np.ndarray]:
    """All records of a column in ascending order, in parts of about ``rows``; equal ones keep their order.

    Records are first put into another file by ranges of their first field, and then each range is sorted by itself. So
    those that agree in the first field are held at once, however many they are.

    Args:
        table: of records.
        by: fields that it is sorted by, the most important first; the first is uint64.
        rows: records that are held at once.
    """
    ends = [len(table)]
    if len(table) > rows:
        table, ends = _by_range(table, by[0], rows)
    for start, end in pairwise([0, *ends]):
        if start < end:
            part = table.read(start, end)
            yield part[np.lexsort([part[name] for name in reversed(by)])]


def _by_range(table: Column, field: str, rows: int) -> tuple[Column, list[int]]:
    """Records by ranges of a field, about ``rows`` in each and in their order inside, and where each range ends."""
    count = -(-len(table) // rows)
    step = max(1, len(table) // (_SAMPLED * count))
    keys = np.sort(np.concatenate([part[field][::step].copy() for part in table.parts(rows)]))  # views would hold all
    bounds = np.unique(keys[np.arange(1, count) * len(keys) // count])

    def ranges() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Records of each part, and the range (m,) of each."""
        return ((part, np.searchsorted(bounds, part[field], side="right")) for part in table.parts(rows))

    sizes = np.zeros(len(bounds) + 1, np.int64)
    for _, number in ranges():
        sizes += np.bincount(number, minlength=len(sizes))
    ends = np.cumsum(sizes)
    found, place = Column(table.dtype), (ends - sizes).tolist()
    for part, number in ranges():
        for of_range, mine in by_value(number):
            found.write(place[of_range], part[mine])
            place[of_range] += len(mine)
    return found, ends.tolist()


def sort_key(values: np.ndarray) -> np.ndarray:
    """(m,) uint64 in the order of (m,) float64, none of them NaN; both zeros are one."""
    bits = (np.asarray(values, np.float64) + 0.0).view(np.uint64)
    return np.where(bits >> np.uint64(63) == 1, ~bits, bits | np.uint64(1 << 63))


def by_value(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each value of (m,) integers, ascending, and where it stands, ascending."""
    order = np.argsort(values, kind="stable")
    if len(order):
        for mine in np.split(order, np.flatnonzero(np.diff(values[order])) + 1):
            yield int(values[mine[0]]), mine


def records(dtype: np.dtype[Any], rows: np.ndarray, **columns: Any) -> np.ndarray:
    """Records (m,) of other ones, with more columns."""
    found = np.empty(len(rows), dtype)
    for name in rows.dtype.names or ():
        found[name] = rows[name]
    for name, values in columns.items():
        found[name] = values
    return found


def packed(sample_ids: Sequence[str]) -> np.ndarray:
    """(m,) records of ID."""
    return np.frombuffer(bytes.fromhex("".join(sample_ids)), dtype=">u8").astype(np.uint64).view(ID)
