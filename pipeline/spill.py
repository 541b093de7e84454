"""Columns on this machine's disk, for rows that are too many to hold: appended, read in parts, sorted in parts.

Files are in the system's folder for temporary ones (``TMPDIR``). They have no name, so a killed command leaves nothing.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cptsel.pipeline import io

#: Rows that are held at once.
PART_ROWS = 1 << 18

# Of so many keys for each part, evenly spaced, those that part them are taken.
_SAMPLED = 64

_MOST_FILES = 256  # that one sort opens


class Column:
    """Values of one dtype, on disk. Several threads may read at once.

    Attributes:
        dtype: of a value, which may be a record.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it is open as long as this is
        self._count = 0

    @classmethod
    def zeros(cls, dtype: Any, count: int) -> "Column":
        """A column of ``count`` zeros, which take no room until they are overwritten."""
        column = cls(dtype)
        os.ftruncate(column._file.fileno(), count * column.dtype.itemsize)
        column._count = count
        return column

    def __len__(self) -> int:
        return self._count

    def append(self, values: np.ndarray) -> None:
        """Add values (m,) at the end."""
        self.write(self._count, values)

    def write(self, start: int, values: np.ndarray) -> None:
        """Put values (m,) at ``start`` and behind; what is between the end and there is 0.

        Raises:
            PartialError: the disk is full.
        """
        data = np.ascontiguousarray(values, self.dtype).view(np.uint8).data
        at = start * self.dtype.itemsize
        try:
            while len(data):
                written = os.pwrite(self._file.fileno(), data, at)
                data, at = data[written:], at + written
        except OSError as error:
            if io.is_full(error):
                raise io.no_room(f"{tempfile.gettempdir()} (set TMPDIR to use another folder)", error) from error
            raise
        self._count = max(self._count, start + len(values))

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Values from ``start`` until before ``stop``."""
        stop = len(self) if stop is None else stop
        values = np.empty(stop - start, self.dtype)
        data, at = values.view(np.uint8).data, start * self.dtype.itemsize
        while len(data):
            read = os.preadv(self._file.fileno(), [data], at)
            if not read:
                raise EOFError(f"a column of {len(self)} values ends before {stop}")
            data, at = data[read:], at + read
        return values

    def put(self, index: np.ndarray, values: np.ndarray) -> None:
        """Overwrite the values at ``index`` (m,), which are there already."""
        if len(index):
            mapped = np.memmap(self._file, self.dtype, "r+", shape=(len(self),))
            mapped[index] = values
            mapped.flush()

    def parts(self, rows: int = PART_ROWS) -> Iterator[np.ndarray]:
        """All values, in order, at most ``rows`` at once."""
        for start in range(0, len(self), rows):
            yield self.read(start, min(start + rows, len(self)))


def sorted_parts(table: Column, by: Sequence[str], rows: int = PART_ROWS) -> Iterator[np.ndarray]:
    """All records of a column in ascending order, in parts of about ``rows``, 256 at most; equal ones keep their order.

    Records are put into files by their first field, and each file is sorted by itself. So those that agree in the first
    field are held at once, however many they are.

    Args:
        table: of records.
        by: fields that it is sorted by, the most important first; the first is uint64.
        rows: records that are held at once.
    """
    count = min(-(-len(table) // rows), _MOST_FILES)
    if count <= 1:
        files = [table]
    else:
        step = max(1, len(table) // (_SAMPLED * count))
        keys = np.sort(np.concatenate([part[by[0]][::step] for part in table.parts(rows)]))
        bounds = np.unique(keys[np.arange(1, count) * len(keys) // count])
        files = [Column(table.dtype) for _ in range(len(bounds) + 1)]
        for part in table.parts(rows):
            number = np.searchsorted(bounds, part[by[0]], side="right")
            part = part[np.argsort(number, kind="stable")]
            ends = np.cumsum(np.bincount(number, minlength=len(files))).tolist()
            for file, start, end in zip(files, [0, *ends], ends, strict=False):
                file.append(part[start:end])
    for file in filter(len, files):
        part = file.read()
        yield part[np.lexsort([part[name] for name in reversed(by)])]


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
