"""Hold a JSON value against ``schemas/json/<name>.schema.json`` (JSON Schema 2020-12)."""

import json
import re
from functools import cache
from importlib.resources import files
from operator import itemgetter
from typing import Any, Literal, overload

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from cptsel.schemas.headers import (
    ExportHeader,
    FisherHeader,
    LookaheadHeader,
    ManifestHeader,
    RunHeader,
    TargetsHeader,
)

_ENTRY = {"sha256": str, "bytes": int, "rows": int}  # of a file in manifest.json, as this release writes it

NAMES = ("export", "fisher", "lookahead", "manifest", "run", "stats", "targets")


def load_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of ``<name>.json``; ``name`` is one of NAMES."""
    text = (files("cptsel.schemas") / "json" / f"{name}.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(load_schema(name))


@overload
def validate(value: Any, name: Literal["export"]) -> ExportHeader: ...


@overload
def validate(value: Any, name: Literal["fisher"]) -> FisherHeader: ...


@overload
def validate(value: Any, name: Literal["targets"]) -> TargetsHeader: ...


@overload
def validate(value: Any, name: Literal["lookahead"]) -> LookaheadHeader: ...


@overload
def validate(value: Any, name: Literal["manifest"]) -> ManifestHeader: ...


@overload
def validate(value: Any, name: Literal["run"]) -> RunHeader: ...


@overload
def validate(value: Any, name: str) -> dict[str, Any]: ...


def validate(value: Any, name: str) -> Any:
    """Check a parsed JSON file against its schema. Unknown fields are no error.

    Returns:
        The value, typed.

    Raises:
        ValueError: ``manifest.json: groups[2].budget: -1 is less than the minimum of 0``, the most telling problem.
    """
    checked = value
    if name == "manifest" and isinstance(value, dict) and _are_listed_rightly(value.get("files")):
        checked = value | {"files": {key: value["files"][key] for key in value["files"].keys() & _needed_files()}}
    error = best_match(_validator(name).iter_errors(checked))
    if error is None:
        return value
    place = error.json_path.removeprefix("$").removeprefix(".")
    message = error.message if len(error.message) <= 200 else error.message[:200] + "..."
    raise ValueError(f"{name}.json: {place + ': ' if place else ''}{message}")


@cache
def _needed_files() -> frozenset[str]:
    return frozenset(load_schema("manifest")["properties"]["files"]["required"])


def _are_listed_rightly(files: Any) -> bool:
    """Whether all files of a manifest are such as its schema asks for, at a glance: it may list a million.

    Where this is False the schema itself says what is wrong, if anything is.
    """
    if not isinstance(files, dict) or set(map(type, files.values())) - {dict}:
        return False
    if set(map(len, files.values())) - {len(_ENTRY)}:
        return False
    schema = load_schema("manifest")
    is_name = re.compile(schema["properties"]["files"]["propertyNames"]["pattern"]).search
    is_sha256 = re.compile(schema["$defs"]["sha256"]["pattern"]).search
    least = schema["$defs"]["count"]["minimum"]
    try:
        columns = {field: list(map(itemgetter(field), files.values())) for field in _ENTRY}
    except KeyError:
        return False
    if any(set(map(type, column)) - {_ENTRY[field]} for field, column in columns.items()):
        return False
    if not (all(map(is_name, files)) and all(map(is_sha256, columns["sha256"]))):
        return False
    return all(min(columns[field], default=least) >= least for field in ("bytes", "rows"))
