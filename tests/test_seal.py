"""An embedding run that is not what was written is named by select, inspect and verify."""

import io as python_io
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_builder import build_run, reseal_run
from selection_builder import choose

from cptsel.cli.main import main
from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.artifacts.seal import footer_sha256, seal_of
from cptsel.pipeline.errors import CptselError, UsageError, VerificationError
from cptsel.pipeline.inspect import inspect
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return build_run(tmp_path_factory.mktemp("seal") / "run", rows=(50, 50, 0, 30), block_rows=25)


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def edit_json(**values):
    def change(run):
        header = json.loads((run / "run.json").read_text())
        for name, value in values.items():
            header[name] = header[name] | value if isinstance(value, dict) else value
        (run / "run.json").write_text(json.dumps(header))

    return change


def edit_table(name, change_rows):
    def change(run):
        table = pq.read_table(run / name)
        pq.write_table(pa.Table.from_pylist(change_rows(table.to_pylist()), table.schema), run / name)

    return change


def swap(run):
    first, second = (run / "embeddings" / name for name in ("000000-00001.parquet", "000001-00001.parquet"))
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


def from_another_run(run):
    other = build_run(run.parent / "other", rows=(50, 50, 0, 30), block_rows=25, seed=1)
    shutil.copy(other / "embeddings" / "000000-00000.parquet", run / "embeddings" / "000000-00000.parquet")


def flip(kind, place):
    def change(run):
        path = run / kind / "000000-00001.parquet"
        data = bytearray(path.read_bytes())
        data[int(place * len(data))] ^= 4
        path.write_bytes(data)

    return change


def moved(units):
    units[1]["shard_id"], units[1]["block"] = 3, 2
    return units


TAMPERED = {
    "files swapped between shards": (swap, "000000-00001"),
    "a file of another run": (from_another_run, "000000-00000"),
    "a row of units.parquet removed": (edit_table("units.parquet", lambda rows: rows[1:]), "units.parquet"),
    "a unit moved": (edit_table("units.parquet", moved), "units.parquet"),
    "a unit emptied": (
        edit_table("units.parquet", lambda rows: [{**rows[0], "windows_embedded": 0}, *rows[1:]]),
        "units.parquet",
    ),
    "a row of shards.parquet removed": (edit_table("shards.parquet", lambda rows: rows[:-1]), "shards.parquet"),
    "another seed": (edit_json(projection={"seed": 7}), "run.json"),
    "another fingerprint": (edit_json(fingerprints={"weights": "f" * 64}), "run.json"),
    "another kind of norm": (edit_json(norm_kind="exact"), "run.json"),
    "the id taken out": (edit_json(run_id="0" * 64), "run.json"),
    "a bit of the footer": (flip("embeddings", 0.97), "000000-00001"),
}


def test_a_whole_run_passes(whole, tmp_path):
    summary = verify(VerifyConfig(directory=str(whole)))
    assert summary.status == "verified"
    assert summary.totals["run_id"] == json.loads((whole / "run.json").read_text())["run_id"]
    assert [row[2] for row in summary.tables[0].rows] == ["ok"] * 3
    assert inspect(str(whole)).status == "embedding run, finished"
    choose(whole, tmp_path / "replay", method="craig")
    (named,) = load_manifest(str(tmp_path / "replay")).header["provenance"]["runs"]
    assert named["run_id"] == summary.totals["run_id"]


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering_is_named_by_select_and_verify(run, tmp_path, what):
    change, file = TAMPERED[what]
    change(run)
    with pytest.raises(CptselError, match=file):
        choose(run, tmp_path / "replay", method="craig")
    assert not (tmp_path / "replay").exists()
    with pytest.raises(VerificationError) as caught:
        verify(VerifyConfig(directory=str(run)))
    problems = caught.value.summary.tables[1].rows
    assert any(file in row[0] for row in problems)


@pytest.mark.parametrize("what", [name for name, (_, file) in TAMPERED.items() if not file.startswith("0000")])
def test_tampering_with_small_files_is_named_by_inspect(run, what):
    change, file = TAMPERED[what]
    change(run)
    with pytest.raises(VerificationError, match=file):
        inspect(str(run))


@pytest.mark.parametrize(
    ("change", "file"),
    [
        (flip("embeddings", 0.5), "embeddings/000000-00001.parquet"),
        (flip("rejects", 0.5), "rejects/000000-00001.parquet"),
    ],
)
def test_verify_reads_every_byte(run, change, file):
    change(run)
    with pytest.raises(VerificationError, match=f"{file}: is not the file that was written.*delete it and run"):
        verify(VerifyConfig(directory=str(run)))


def test_files_that_are_missing_or_too_many(run):
    (run / "embeddings" / "000003-00001.parquet").unlink()
    (run / "embeddings" / "000009-00000.parquet").write_bytes(b"")
    for check in (lambda: verify(VerifyConfig(directory=str(run))), lambda: inspect(str(run))):
        with pytest.raises(VerificationError) as caught:
            check()
        found = {row[0]: row[2] for row in caught.value.summary.tables[-1].rows}
        assert found["embeddings/000003-00001.parquet"] == "is missing"
        assert found["embeddings/000009-00000.parquet"] == "is of no unit of this run"


def test_a_run_without_checksums_is_named_as_one(run):
    header = json.loads((run / "run.json").read_text())
    old = {key: value for key, value in header.items() if key not in ("run_id", "files", "totals")} | {
        "spec_version": 1
    }
    (run / "run.json").write_text(json.dumps(old))
    for check in (lambda: verify(VerifyConfig(directory=str(run))), lambda: inspect(str(run))):
        with pytest.raises(VerificationError, match=r"run\.json: has no checksums, as those of an older cptsel"):
            check()


def test_counts_that_do_not_add_up(run):
    """Even in a run whose checksums are right."""
    edit_table("shards.parquet", lambda rows: [{**rows[0], "rows": 49}, *rows[1:]])(run)
    edit_table("units.parquet", lambda rows: [{**rows[0], "windows_embedded": 24}, *rows[1:]])(run)
    reseal_run(run)
    with pytest.raises(VerificationError) as caught:
        verify(VerifyConfig(directory=str(run)))
    found = " ".join(row[2] for row in caught.value.summary.tables[1].rows)
    assert "rows is 49, but its units add up to 50" in found
    assert "has 25 rows, but units.parquet says 24" in found


def test_the_command(run, capsys):
    assert main(["verify", str(run), "--workers", "2"]) == 0
    assert "run_id" in capsys.readouterr().out
    assert main(["verify", str(run), "--sources"]) == 2
    assert "--sources checks a replay manifest" in capsys.readouterr().err
    (run / "_SUCCESS").unlink()
    with pytest.raises(UsageError, match="is not finished"):
        verify(VerifyConfig(directory=str(run)))


@given(st.lists(st.integers(0, 100), max_size=20), st.text(max_size=10))
def test_a_footer_read_from_a_file_is_that_of_its_bytes(values, text):
    data = io.parquet_bytes(pa.table({"x": values}), {"text": text})
    assert footer_sha256(python_io.BytesIO(data)) == seal_of(data, b"")["footer_sha256"]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"\xff" * 8, b"\xff\xff\xff\x7fPAR1", b"x" * 100])
def test_what_is_no_parquet_has_some_footer_too(data):
    assert footer_sha256(python_io.BytesIO(data)) == seal_of(data, b"")["footer_sha256"]
