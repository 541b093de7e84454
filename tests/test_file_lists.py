"""Headers as bytes: what the general encoders make of them, whatever the list of files."""

import json

import pytest
import rfc8785
from manifest_builder import build_replay

from cptsel.pipeline.artifacts.file_lists import canonical, pretty
from cptsel.schemas.validation import validate

ENTRY = {"sha256": "a" * 64, "bytes": 5, "rows": 0}
HEADER = {
    "\U0001d518": 1,
    "\uffee": 2,
    "é": [1, {"files": {}}],
    "a": '\n  "files": {}',
    "z": 0.5,
    "g": {},
    "files": None,
}


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"shards.parquet": ENTRY},
        {"samples/1.parquet": ENTRY, "samples/0.parquet": ENTRY, "samples/10.parquet": ENTRY | {"rows": 7}},
        {"ö": ENTRY, "\U0001d518": ENTRY, "\uffee": ENTRY},  # order by UTF-16 is another one than by code points
        {'a"\\\n\x7f': ENTRY | {"sha256": '"\\'}},
        {"a": ENTRY | {"bytes": 5.0}},
        {"a": ENTRY | {"bytes": -1, "rows": 2**53 - 1}},
        {"a": {**ENTRY, "more": {"x": 1e21}}},
        {"a": {"sha256": "x", "bytes": 1}},
        [],
        None,
    ],
)
def test_bytes_are_those_of_the_general_encoders(files):
    header = HEADER | {"files": files}
    assert b"".join(canonical(header)) == rfc8785.dumps(header)
    assert b"".join(pretty(header)) == json.dumps(header, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def test_a_header_without_files_is_one_too():
    header = {key: value for key, value in HEADER.items() if key != "files"}
    assert b"".join(canonical(header)) == rfc8785.dumps(header)
    assert b"".join(pretty(header)) == json.dumps(header, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda files: files.pop("shards.parquet"), "'shards.parquet' is a required property"),
        (lambda files: files.update({"samples/1.parquet": ENTRY}), "'samples/1.parquet' does not match"),
        (lambda files: files["samples/000000.parquet"].update(sha256="A" * 64), "'A+' does not match"),
        (lambda files: files["samples/000000.parquet"].update(bytes=-1), "-1 is less than the minimum of 0"),
        (lambda files: files["samples/000000.parquet"].update(rows="1"), "'1' is not of type 'integer'"),
        (lambda files: files["samples/000000.parquet"].update(rows=True), "True is not of type 'integer'"),
        (lambda files: files["samples/000000.parquet"].pop("bytes"), "'bytes' is a required property"),
        (lambda files: files.update({"samples/000009.parquet": None}), "None is not of type 'object'"),
    ],
)
def test_a_list_that_breaks_the_schema_is_told_as_by_the_schema(tmp_path, change, phrase):
    header = json.loads((build_replay(tmp_path, shards=2).replay / "manifest.json").read_text())
    assert validate(header, "manifest") is header
    change(header["files"])
    with pytest.raises(ValueError, match=phrase):
        validate(header, "manifest")
