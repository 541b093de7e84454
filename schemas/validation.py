"""Hold a JSON value against ``schemas/json/<name>.schema.json`` (JSON Schema 2020-12)."""

import json
from functools import cache
from importlib.resources import files
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
    error = best_match(_validator(name).iter_errors(value))
    if error is None:
        return value
    place = error.json_path.removeprefix("$").removeprefix(".")
    message = error.message if len(error.message) <= 200 else error.message[:200] + "..."
    raise ValueError(f"{name}.json: {place + ': ' if place else ''}{message}")
