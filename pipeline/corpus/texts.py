"""Texts of known rows, read again from their shard."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import BinaryIO

from cptsel.pipeline import io
from cptsel.pipeline.corpus.formats.jsonl import plain_lines
from cptsel.pipeline.corpus.formats.parquet import ParquetShard
from cptsel.pipeline.corpus.lines import Line, split_lines
from cptsel.pipeline.corpus.rows import parse_line, read_record
from cptsel.pipeline.corpus.streams import decompress
from cptsel.pipeline.corpus.types import Damage, Document, ReadOptions
from cptsel.pipeline.errors import BadInputError

RowLocator = tuple[int, int | None, int | None]
"""(row_index, byte_offset or None, byte_length or None)"""


def read_texts(
    uri: str, format: str, compression: str, text_field: str, rows: Sequence[RowLocator]
) -> Iterator[tuple[int, str]]:
    """Texts of some rows of a shard, as ``(row_index, text)``, one a locator and in their order.

    Plain JSONL is read at the byte offsets, a compressed stream once up to the last row, of Parquet only the row groups
    that hold a row.

    Args:
        uri: where the shard lies now.
        format: ``jsonl`` or ``parquet``.
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
    options = ReadOptions(text_field=text_field, id_field=None)
    try:
        with io.open_read(uri) as handle:
            if format == "parquet":
                yield from _parquet_texts(handle, uri, options, rows)
            elif compression == "none" and all(offset is not None and length is not None for _, offset, length in rows):
                yield from _plain_texts(handle, uri, options, rows)
            else:
                yield from _stream_texts(handle, uri, compression, options, rows)
    except OSError as error:
        raise BadInputError(f"{uri}: can't be read ({error}); restore the file") from error


def _plain_texts(
    handle: BinaryIO, uri: str, options: ReadOptions, rows: Sequence[RowLocator]
) -> Iterator[tuple[int, str]]:
    for row_index, offset, length in rows:
        assert offset is not None  # for the type checker: read_texts has looked
        assert length is not None
        handle.seek(offset)
        data = handle.read(length)
        if len(data) < length:
            raise _lost(uri, row_index, "the file ends before it")
        yield row_index, _line_text(Line(offset, length, data), row_index, uri, options)


def _stream_texts(
    handle: BinaryIO, uri: str, compression: str, options: ReadOptions, rows: Sequence[RowLocator]
) -> Iterator[tuple[int, str]]:
    lengths = [length for _, _, length in rows if length is not None]
    cap = max(lengths) if len(lengths) == len(rows) else options.max_line_bytes  # no longer line is wanted
    if compression == "none":
        lines = plain_lines(handle, 0, None, cap)
    else:
        lines = split_lines(decompress(handle, compression), cap)
    at, text = -1, ""
    for row_index, _, _ in rows:
        while at < row_index:
            line = next(lines, None)
            if line is None:
                raise _lost(uri, row_index, f"the file has only {at + 1} rows")
            at += 1
            if at == row_index:
                text = _line_text(line, row_index, uri, options)
        yield row_index, text


def _parquet_texts(
    handle: BinaryIO, uri: str, options: ReadOptions, rows: Sequence[RowLocator]
) -> Iterator[tuple[int, str]]:
    wanted = [row_index for row_index, _, _ in rows]
    position = 0
    try:
        parquet = ParquetShard(handle)
        for group, end in enumerate(accumulate(parquet.group_rows)):
            if position == len(wanted):
                return
            if wanted[position] >= end:
                continue
            records = parquet.records(group, [options.text_field])
            for row_index, record in enumerate(records, end - parquet.group_rows[group]):
                while position < len(wanted) and wanted[position] == row_index:
                    yield row_index, read_record(record, row_index, options, None, None).text
                    position += 1
    except Damage as damage:
        raise _lost(uri, wanted[position], _phrase(damage)) from damage
    if position < len(wanted):
        raise _lost(uri, wanted[position], f"the file has only {sum(parquet.group_rows)} rows")


def _line_text(line: Line, row_index: int, uri: str, options: ReadOptions) -> str:
    document = parse_line(line, row_index, options)
    if isinstance(document, Document):
        return document.text
    raise _lost(uri, row_index, _phrase(Damage(document.reason, document.detail)))


def _phrase(damage: Damage) -> str:
    return damage.reason + (f": {damage.detail}" if damage.detail else "")


def _lost(uri: str, row_index: int, why: str) -> BadInputError:
    return BadInputError(f"{uri}: row {row_index} can't be read ({why}); restore the file that was embedded")
