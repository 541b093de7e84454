"""``inspect`` names each of our directories, finished or not, and nobody else's."""

import json
import shutil

import pytest
from manifest_builder import build_replay
from test_schemas import RUN

from cptsel.pipeline import outputs
from cptsel.pipeline.config import ExportConfig, OrderConfig
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.export import export
from cptsel.pipeline.inspect import inspect
from cptsel.pipeline.order import order


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    base = tmp_path_factory.mktemp("inspect")
    built = build_replay(base, shards=3)
    order(OrderConfig(replay=str(built.replay), out=str(base / "ordered"), epochs=2, world_size=3))
    export(ExportConfig(replay=str(built.replay), out=str(base / "export")))
    return base, built


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("replay", "replay manifest, finished"),
        ("ordered", "ordered replay manifest, finished"),
        ("export", "export, finished"),
    ],
)
def test_finished_directories(directories, name, status):
    base, _ = directories
    summary = inspect(str(base / name))
    assert (summary["command"], summary["status"], summary["warnings"]) == ("inspect", status, [])
    assert all(len(row) == len(table["columns"]) for table in summary["tables"] for row in table["rows"])
    json.dumps(summary)


def test_what_is_told_of_a_manifest(directories):
    base, built = directories
    totals = inspect(str(base / "ordered"))["totals"]
    assert totals["parent"] == built.header["manifest_id"]
    assert totals["order"] == "by importance: 2 epochs, 3 ranks, seed 0"
    assert totals["plays"] == built.header["totals"]["plays"]
    assert totals["selected samples"] == len(built.samples)
    groups, shards = inspect(str(base / "replay"))["tables"]
    assert [row[0] for row in groups["rows"]] == ["even", "odd"]
    assert sum(row[2] for row in shards["rows"]) == len(built.samples)


@pytest.mark.parametrize(("name", "again"), [("replay", "select"), ("ordered", "order"), ("export", "export")])
def test_unfinished_directories(directories, tmp_path, name, again):
    copied = shutil.copytree(directories[0] / name, tmp_path / name)
    (copied / "_SUCCESS").unlink()
    summary = inspect(str(copied))
    assert summary["status"].endswith(", unfinished")
    assert f"run cptsel {again} again" in summary["warnings"][0]


def test_an_output_that_has_only_begun(tmp_path):
    outputs.prepare_output(str(tmp_path / "x"), "select", "", overwrite=False)
    assert inspect(str(tmp_path / "x"))["status"] == "begun by cptsel select, nothing finished"


def test_an_embedding_run_that_is_unfinished(tmp_path):
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "000000-00000.parquet").write_bytes(b"?")
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    outputs.write_config(str(tmp_path), "embed", "")
    summary = inspect(str(tmp_path))
    assert summary["status"] == "embedding run, unfinished"
    assert summary["totals"]["blocks written"] == 1
    assert "run cptsel embed again" in summary["warnings"][0]


def test_a_damaged_header_is_a_warning(directories, tmp_path):
    copied = shutil.copytree(directories[0] / "replay", tmp_path / "replay")
    header = json.loads((copied / "manifest.json").read_text())
    del header["groups"]
    (copied / "manifest.json").write_text(json.dumps(header))
    assert "'groups' is a required property" in inspect(str(copied))["warnings"][0]


def test_other_directories_are_a_usage_error(directories, tmp_path):
    with pytest.raises(UsageError, match=r"was not written by cptsel \(3 files, the first part-00"):
        inspect(str(directories[1].corpus))
    with pytest.raises(UsageError, match="no such directory"):
        inspect(str(tmp_path / "nowhere"))
    (tmp_path / "manifest.json").write_text('{"format": "webextension"}')
    with pytest.raises(UsageError, match="was not written by cptsel"):
        inspect(str(tmp_path))
