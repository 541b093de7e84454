"""The JSON Schemas are sound, accept what is written, and say in a phrase what is wrong."""

import copy
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import pyarrow as pa
import pytest
from jsonschema import Draft202012Validator
from run_builder import HEADER as RUN
from selection_builder import choose

from cptsel.pipeline import io
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.schemas import headers
from cptsel.schemas.arrow import REPLAY_SHARDS, SAMPLES, SCHEDULE, check_schema
from cptsel.schemas.validation import NAMES, load_schema, validate


@pytest.mark.parametrize("name", NAMES)
def test_schema_is_valid_2020_12(name):
    schema = load_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")


def test_unknown_optional_fields_are_ignored():
    validate({**RUN, "from_the_future": {"x": 1}}, "run")


@pytest.mark.parametrize(
    ("path", "value", "phrase"),
    [
        (["norm_kind"], "guessed", "run.json: norm_kind: 'guessed' is not one of ['sketch', 'exact']"),
        (["model", "head", "tied"], "yes", "run.json: model.head.tied: 'yes' is not of type 'boolean'"),
        (["projection", "k"], 0, "run.json: projection.k: 0 is less than the minimum of 1"),
        (["fingerprints", "corpus"], "?", "run.json: fingerprints.corpus: '?' does not match '^[0-9a-f]{16,128}$'"),
    ],
)
def test_the_problem_is_named(path, value, phrase):
    run = copy.deepcopy(RUN)
    holder = run
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    with pytest.raises(ValueError) as error:  # noqa: PT011
        validate(run, "run")
    assert str(error.value) == phrase


@pytest.mark.parametrize("field", load_schema("run")["required"])
def test_a_missing_field_is_named(field):
    with pytest.raises(ValueError, match=f"run.json: '{field}' is a required property"):
        validate({key: value for key, value in RUN.items() if key != field}, "run")


@pytest.mark.parametrize("schema", [SAMPLES, REPLAY_SHARDS, SCHEDULE], ids=["samples", "shards", "schedule"])
def test_check_schema_names_missing_and_mistyped_columns(schema):
    assert check_schema(schema.append(pa.field("extra", pa.string())), schema) is None
    assert check_schema(schema.remove(0), schema) == f"column {schema.field(0).name!r} is missing"
    wrong = schema.set(0, pa.field(schema.field(0).name, pa.float16()))
    assert check_schema(wrong, schema) == f"column {schema.field(0).name!r} is halffloat, not {schema.field(0).type}"


def _resolve(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    return whole["$defs"][schema["$ref"].split("/")[-1]] if "$ref" in schema else schema


def _objects(schema: dict[str, Any], whole: dict[str, Any]) -> list[dict[str, Any]]:
    """The object schemas that a field may be: itself, what a list or a mapping holds, or each of several."""
    schema = _resolve(schema, whole)
    if "oneOf" in schema:
        return [found for one in schema["oneOf"] for found in _objects(one, whole)]
    inner = schema.get("items") or (not schema.get("properties") and schema.get("additionalProperties"))
    if isinstance(inner, dict):
        return _objects(inner, whole)
    return [schema] if schema.get("properties") else []


def _typed_dicts(hint: Any) -> list[Any]:
    """The TypedDict that a field is, or that its list or mapping holds."""
    if is_typeddict(hint):
        return [hint]
    return [found for argument in get_args(hint) for found in _typed_dicts(argument)] if get_origin(hint) else []


def _compare(kind: Any, schemas: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    hints = get_type_hints(kind)
    assert {name for one in schemas for name in one["properties"]} == set(hints), kind.__name__
    assert set.intersection(*(set(one.get("required", ())) for one in schemas)) == kind.__required_keys__, kind.__name__
    for name, hint in hints.items():
        fields = [one["properties"][name] for one in schemas if name in one["properties"]]
        objects = [found for field in fields for found in _objects(field, whole)]
        kinds = _typed_dicts(hint)
        assert bool(kinds) == bool(objects), f"{kind.__name__}.{name}"
        if kinds:
            _compare(kinds[0], objects, whole)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("run", headers.RunHeader),
        ("manifest", headers.ManifestHeader),
        ("export", headers.ExportHeader),
        ("targets", headers.TargetsHeader),
        ("fisher", headers.FisherHeader),
    ],
)
def test_types_of_headers_say_what_the_json_schemas_say(name, kind):
    whole = load_schema(name)
    _compare(kind, [whole], whole)


def _unknown(value: Any, kind: Any, place: str) -> list[str]:
    """Fields of a JSON value that its type does not have."""
    if is_typeddict(kind):
        hints = get_type_hints(kind)
        unknown = [f"{place}.{name}" for name in set(value) - set(hints)]
        return unknown + [one for name in set(value) & set(hints) for one in _unknown(value[name], hints[name], name)]
    kinds = _typed_dicts(kind)
    inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else []
    return [one for item in inner for one in _unknown(item, kinds[0], place)] if kinds else []


def test_what_is_written_has_no_field_that_the_types_lack(run, later, tmp_path):
    assert _unknown(io.read_json(str(run / "run.json")), headers.RunHeader, "run.json") == []
    choose(run, tmp_path / "replay", method="craig", phase_run=(str(later),), curriculum="norm")
    order(OrderConfig(replay=str(tmp_path / "replay"), out=str(tmp_path / "ordered")))
    for directory in ("replay", "ordered"):
        header = io.read_json(str(tmp_path / directory / "manifest.json"))
        assert _unknown(header, headers.ManifestHeader, "manifest.json") == []
