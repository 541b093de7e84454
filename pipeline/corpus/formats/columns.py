"""Values of Arrow columns as Python has them, so that damage in one costs no other, and the file behind them."""

import io
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline.corpus.types import FIRST_BYTES, Damage

#: What comes out of damaged files.
ARROW_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError)
_VALUE_ERRORS = (pa.ArrowException, ValueError, OverflowError, KeyError)  # bad UTF-8, dates far away, no such time zone


def longest(column: pa.Array) -> int:
    """Bytes of the longest string in the dictionaries of a column."""
    if pa.types.is_struct(column.type):
        return max(map(longest, column.flatten()), default=0)
    if pa.types.is_dictionary(column.type):
        return pc.max(pc.binary_length(column.dictionary)).as_py() or 0
    return 0


def column_values(column: pa.Array, cap: int) -> list[Any]:
    """Python values of a column, one by one where Arrow can't convert all of them at once."""
    if _is_text(column.type):
        lengths = pc.binary_length(column).to_pylist()
        if any(length is not None and length > cap for length in lengths):
            return [
                Damage("document_too_long", f"{length} bytes; the cap is {cap}")
                if length is not None and length > cap
                else _value(column[row])
                for row, length in enumerate(lengths)
            ]
    try:
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.string())  # Python's dates hold less than Arrow's
        return column.to_pylist()
    except _VALUE_ERRORS:
        return [_value(scalar) for scalar in column]


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return Damage("bad_utf8", f"{error.reason} at byte {error.start} of the value", bytes(error.object))
    except _VALUE_ERRORS as error:
        return Damage("unreadable_value", first_line(error))


def first_bytes(value: Any) -> bytes:
    """The first bytes of a text."""
    if isinstance(value, str):
        return value[:FIRST_BYTES].encode(errors="surrogatepass")[:FIRST_BYTES]
    return value[:FIRST_BYTES] if isinstance(value, bytes) else b""


def first_line(error: Exception) -> str:
    """What a foreign error says, in short."""
    return str(error).partition("\n")[0][:200]


class Source(io.RawIOBase):
    """A file that remembers whether the filesystem failed, which Arrow reports like damage in the file."""

    def __init__(self, handle: BinaryIO) -> None:
        super().__init__()
        self._handle = handle
        self._failure: Exception | None = None

    def check(self) -> None:
        """Raise the failure of the filesystem, if there was one."""
        if self._failure is not None:
            raise OSError(f"can't be read: {self._failure}") from self._failure

    def read(self, size: int | None = -1) -> bytes:
        try:
            return self._handle.read(-1 if size is None else size)
        except Exception as error:
            self._failure = error
            raise

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._handle.seek(offset, whence)

    def tell(self) -> int:
        return self._handle.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
