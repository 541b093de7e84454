"""Files of options and shares: read within bounds, in the order of the file, and refused in a sentence."""

import subprocess
import sys
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.yamlfile import read_mapping

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{last}'] * 10)}]\n" for last, name in zip("abcdefgh", "bcdefghi", strict=True)
)
LAUGHS = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{last}'] * 10)}]}}\n"
    for last, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def refused(path):
    with pytest.raises(UsageError) as error:
        read_mapping(str(path), "--group-mass", "a mapping")
    assert str(error.value).startswith(f"--group-mass {path}: ")
    return str(error.value)


@pytest.mark.parametrize(
    "text", [BOMB, LAUGHS, "[" * 100_000, "{a: " * 100_000, "- " * 5000, "a: " + "[" * 25 + "]" * 25]
)
def test_a_small_file_can_take_neither_time_nor_memory(tmp_path, text):
    path, began = tmp_path / "mix.yaml", time.monotonic()
    path.write_text(text)
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)); "
    code = limit + "from cptsel.pipeline.yamlfile import read_mapping; read_mapping(sys.argv[1], '--config', 'lines')"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "UsageError: --config" in done.stderr, done.stderr
    assert time.monotonic() - began < 20


def test_what_is_no_mapping(tmp_path):
    assert "can't be read (no such file" in refused(tmp_path / "absent.yaml")
    assert "can't be read (is a directory)" in refused(tmp_path)
    path = tmp_path / "mix.yaml"
    for data, phrase in (
        (b"[1, 2]", "must be a mapping"),
        (b"a: [", "can't be read as YAML"),
        (b"\xff\xfe", "can't be read as YAML"),
        (b"#" * (5 << 20), "has more than 4 MiB"),
    ):
        path.write_bytes(data)
        assert phrase in refused(path)


def test_merges_come_last_and_doubles_stay(tmp_path):
    path = tmp_path / "mix.yaml"
    path.write_text("a: 1\nbase: &base {b: 5, c: 6}\nb: 2\n<<: *base\na: 3\n")
    pairs = read_mapping(str(path), "--config", "a mapping")
    assert pairs == [("a", 1), ("base", {"b": 5, "c": 6}), ("b", 2), ("a", 3), ("c", 6)]
    path.write_text("")
    assert read_mapping(str(path), "--config", "a mapping") == []


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers() | st.lists(st.text(max_size=3), max_size=3)))
def test_what_yaml_writes_is_read_as_it_was(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("yaml") / "mix.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    assert read_mapping(str(path), "--config", "a mapping") == list(values.items())
