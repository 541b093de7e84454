"""Columns on this machine's disk, for rows that are too many to hold: appended, and read a part at a time.

Files are in the system's folder for temporary ones (``TMPDIR``). They have no name, so a killed command leaves nothing.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from cptsel.pipeline import io

#: Rows that are held at once.
PART_ROWS = 1 << 18


class Column:
    """Values of one dtype, on disk. Several threads may read at once.

    Attributes:
        dtype: of a value, which may be a record.

    Raises:
        NoRoomError: the disk is full; so does whatever writes.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        with _room():
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it is open as long as this is
        self._count = 0

    @classmethod
    def zeros(cls, dtype: Any, count: int) -> "Column":
        """A column of ``count`` zeros. They are written: to overwrite what has no room would kill the process."""
        column = cls(dtype)
        while len(column) < count:
            column.append(np.zeros(min(PART_ROWS, count - len(column)), column.dtype))
        return column

    def __len__(self) -> int:
        return self._count

    def append(self, values: np.ndarray) -> None:
        """Add values (m,) at the end."""
        self.write(len(self), values)

    def write(self, start: int, values: np.ndarray) -> None:
        """Write values (m,) from ``start`` on, also beyond the end; what was left out before ``start`` is zeros."""
        data, at = np.ascontiguousarray(values, self.dtype).view(np.uint8).data, start * self.dtype.itemsize
        with _room():
            while len(data):
                written = os.pwrite(self._file.fileno(), data, at)
                data, at = data[written:], at + written
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
            np.memmap(self._file, self.dtype, "r+", shape=(len(self),))[index] = values

    def take(self, index: np.ndarray) -> np.ndarray:
        """The values at ``index`` (m,)."""
        if not len(index):
            return np.empty(0, self.dtype)
        return np.array(np.memmap(self._file, self.dtype, "r", shape=(len(self),))[index])

    def parts(self, rows: int = PART_ROWS) -> Iterator[np.ndarray]:
        """All values, in order, at most ``rows`` at once."""
        for start in range(0, len(self), rows):
            yield self.read(start, min(start + rows, len(self)))


@contextmanager
def _room() -> Iterator[None]:
    """Say of a full disk which folder it is, and how to name another."""
    try:
        yield
    except OSError as error:
        if io.is_full(error):
            raise io.no_room(f"{tempfile.gettempdir()} (set TMPDIR to use another folder)", error) from error
        raise
