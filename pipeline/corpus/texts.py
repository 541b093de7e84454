"""Texts, or ids, of known rows, read again from their shard."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from cptsel.pipeline import io
from cptsel.pipeline.corpus.contents import Content
from cptsel.pipeline.corpus.formats.base import RowLocator
from cptsel.pipeline.corpus.formats.registry import FORMATS
from cptsel.pipeline.corpus.types import ReadOptions
from cptsel.pipeline.errors import BadInputError

__all__ = ["RowLocator", "read_texts"]


def unreadable(format: str, compression: str) -> str | None:
    """What is wrong with the format and compression that a shard is recorded with; None where they can be read."""
    if format not in FORMATS:
        return f"format is {format!r}; cptsel reads {', '.join(FORMATS)}"
    known = ("none", *FORMATS[format].compressions)
    return None if compression in known else f"compression is {compression!r}; {format} may have {', '.join(known)}"


def count_rows(uri: str, format: str) -> int:
    """Rows of a shard whose file says how many there are, from what it says alone.

    Args:
        uri: where it lies now.
        format: ``arrow`` or ``parquet``, not compressed as a whole.

    Raises:
        BadInputError: it can't be read.
    """
    try:
        with io.open_read(uri) as handle:
            blocks = FORMATS[format].finder(ReadOptions(block_bytes=1 << 30), "none", None).finish(handle) or ()
            return sum([block.rows for block in blocks])
    except OSError as error:
        raise BadInputError(f"{uri}: can't be read ({error}); restore the file") from error


def read_texts(
    uri: str, format: str, compression: str, text_field: str, rows: Sequence[RowLocator]
) -> Iterator[tuple[int, Content]]:
    """Texts, or ids, of some rows of a shard, as ``(row_index, content)``, one a locator and in their order.

    Args:
        uri: where the shard lies now.
        format: a key of FORMATS.
        compression: ``none``, ``gzip`` or ``zstd``.
        text_field: column of the text, as in ReadOptions.
        rows: sorted by row number; a row may come several times.

    Raises:
        BadInputError: the file or a row is not there or can't be read; names both.
        ValueError: ``rows`` are not sorted.
    """
    if any(later[0] < row[0] for row, later in pairwise(rows)):
        raise ValueError("rows must be sorted by row number")
    if not rows:
        return
    if problem := unreadable(format, compression):
        raise BadInputError(f"{uri}: recorded {problem}; run cptsel verify on what says so")
    options = ReadOptions(text_field=text_field, id_field=None)
    try:
        with io.open_read(uri) as handle:
            yield from FORMATS[format].read_texts(handle, uri, compression, options, rows)
    except OSError as error:
        raise BadInputError(f"{uri}: can't be read ({error}); restore the file") from error
