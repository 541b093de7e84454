"""The JSON Schemas are sound, accept what is written, and say in a phrase what is wrong."""

import copy

import pyarrow as pa
import pytest
from jsonschema import Draft202012Validator
from run_builder import HEADER as RUN

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
