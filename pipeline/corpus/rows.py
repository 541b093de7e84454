"""One row, from JSON or Parquet, made into a Document or a Reject; no schema is inferred, each row stands alone."""

import codecs
import json
from typing import Any

from cptsel.pipeline.corpus.lines import Line
from cptsel.pipeline.corpus.types import FIRST_BYTES, Damage, Document, ReadOptions, Reject

_MISSING = object()
_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "UTF-8", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


def parse_line(line: Line, row_index: int, options: ReadOptions) -> Document | Reject:
    """A JSONL line as a Document, or as a Reject that says why not."""
    try:
        if line.damage is not None:
            raise line.damage
        record = _parse_json(line.data, row_index)
        return read_record(record, row_index, options, line.offset, line.length)
    except Damage as damage:
        first = line.data[:FIRST_BYTES]
        return Reject(row_index, None, line.offset, damage.reason, damage.detail, first, damage.bytes_lost)


def read_record(
    record: dict[str, Any], row_index: int, options: ReadOptions, byte_offset: int | None, byte_length: int | None
) -> Document:
    """The text, id and groups of a record; a value may be a Damage, which is then raised.

    Raises:
        Damage: the text, id or a group can't be used.
    """
    text = _text(_lookup(record, options.text_field))
    doc_id = None
    if options.id_field is not None:
        doc_id = _scalar(_lookup(record, options.id_field), options.id_field, "bad_id")
    known = options.shard_groups
    groups = tuple(
        known[name] if name in known else _scalar(_lookup(record, name), name, "nested_group")
        for name in options.group_by
    )
    return Document(row_index, doc_id, text, groups, byte_offset, byte_length)


def _parse_json(data: bytes, row_index: int) -> dict[str, Any]:
    if not data.strip():
        raise Damage("blank_line")
    if row_index == 0:
        for mark, name in _BYTE_ORDER_MARKS.items():
            if data.startswith(mark):
                raise Damage("byte_order_mark", f"of {name}; write the file as UTF-8 without one")
    if b"\0" in data:
        raise Damage("nul_character", f"NUL byte at {data.index(0)} of the line")
    try:
        line = data.decode()  # json.loads would guess an encoding
    except UnicodeDecodeError as error:
        raise Damage("bad_utf8", f"{error.reason} at byte {error.start} of the line") from error
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise Damage("bad_json", f"{error.msg.removesuffix(' at')} at character {error.pos} of the line") from error
    except ValueError as error:
        raise Damage("bad_json", "a number with too many digits") from error
    except RecursionError as error:
        raise Damage("bad_json", "nested too deeply") from error
    if not isinstance(record, dict):
        raise Damage("not_an_object", _json_type(record))
    return record


def _lookup(record: dict[str, Any], field: str) -> Any:
    """The value of a column of that very name, else of the nested one that its dots lead to, else _MISSING."""
    if field in record:
        return record[field]
    value: Any = record
    for part in field.split("."):
        if isinstance(value, Damage):
            return value
        if not isinstance(value, dict) or part not in value:
            return _MISSING
        value = value[part]
    return value


def _text(value: Any) -> str:
    if isinstance(value, Damage):
        raise value
    if value is _MISSING:
        raise Damage("missing_text")
    if value is None:
        raise Damage("null_text")
    if isinstance(value, dict | list | tuple):
        raise Damage("nested_text", _json_type(value))
    if isinstance(value, bytes):
        value = _decoded(value, "the text")
    if not isinstance(value, str):
        raise Damage("non_string_text", _json_type(value))
    if not value or value.isspace():
        raise Damage("empty_text")
    if "\0" in value:
        raise Damage("nul_character", f"U+0000 at character {value.index(chr(0))} of the text")
    return _encodable(value, "the text")


def _scalar(value: Any, field: str, nested: str) -> str | None:
    """An id or group as text: strings as they are, numbers and booleans as in JSON; None if missing or null."""
    if isinstance(value, Damage):
        raise value
    if value is _MISSING or value is None:
        return None
    if isinstance(value, dict | list | tuple):
        raise Damage(nested, f"{field} is {_json_type(value)}")
    if isinstance(value, str):
        return _encodable(value, field)
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, bytes):
        return _decoded(value, field)
    return str(value)  # Parquet only: decimals, UUIDs


def _decoded(value: bytes, name: str) -> str:
    """Text of a Parquet column that is not marked as such: Spark and Impala may write strings as plain bytes."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Damage("bad_utf8", f"{name}: {error.reason} at byte {error.start}") from error


def _encodable(value: str, name: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Damage("lone_surrogate", f"{name}: {value[error.start]!a} at character {error.start}") from error
    return value


def _json_type(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        tuple: "a list",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), f"of type {type(value).__name__}")
