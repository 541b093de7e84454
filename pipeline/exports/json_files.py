"""JSON lines that are not compressed, one file a dataset: what trainers read that know JSONL by its suffix."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from cptsel.pipeline.exports.base import Record
from cptsel.pipeline.exports.lines import split_lines, to_line

_FACTS = ("sample_id", "group", "weight", "repeat", "shard", "row")
_CHUNK = 1 << 20

#: An object of a line.
Line = dict[str, Any]


def facts(record: Record) -> Line:
    """What a play is, beside its text and what is left to multiply its loss by."""
    return {key: record[key] for key in _FACTS} | {"doc_id": record["id"]}


def facts_read(line: Line) -> Record:
    """What ``facts`` put into a line, as the record has it."""
    return {key: line[key] for key in _FACTS} | {"id": line["doc_id"]}


def write_json_lines(path: str, lines: Iterable[Line]) -> Sequence[str]:
    """Write one file of lines. Returns its path, as ``ExportFormat.write`` does."""
    from cptsel.pipeline import io

    with io.atomic_writer(path) as handle:
        for line in lines:
            handle.write(to_line(line))
    return [path]


def read_json_lines(path: str, record: Callable[[Line], Record], line: Callable[[Record], Line]) -> Iterator[Record]:
    """The records of a file that ``write_json_lines`` wrote, in pieces.

    Args:
        path: of the file.
        record: of a line.
        line: that was written of a record.

    Raises:
        ValueError: a line is not what is written of its record, or the last one has no end.
    """
    from cptsel.pipeline import io

    with io.open_read(path) as handle:
        for number, data in enumerate(split_lines(iter(lambda: handle.read(_CHUNK), b""))):
            found = record(_object(data, number))
            if to_line(line(found)) != data + b"\n":
                raise ValueError(f"holds no line {number} as export writes it")
            yield found


def _object(data: bytes, number: int) -> Line:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError(f"holds no JSON object in line {number}")
    return found
