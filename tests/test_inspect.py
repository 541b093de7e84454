"""``inspect`` names each of our directories, finished or not, and nobody else's."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifest_builder import build_replay, reseal
from run_builder import HEADER as RUN
from run_builder import reseal_run

from cptsel.cli.main import main
from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.run import unit_name
from cptsel.pipeline.artifacts.writing import writing
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.export import export
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.inspect import inspect
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.schemas.arrow import REJECTS, UNITS


def begin(out, command, config_yaml, overwrite):
    """As a command that was killed after it had begun."""
    with writing(out, command, overwrite=overwrite) as output:
        output.begin(config_yaml)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    base = tmp_path_factory.mktemp("inspect")
    built = build_replay(base, shards=3)
    order(OrderConfig(replay=str(built.replay), out=str(base / "ordered"), epochs=2, world_size=3))
    export(ExportConfig(replay=str(built.replay), out=str(base / "export")))
    return base, built


@pytest.fixture
def copied(directories, tmp_path):
    """A replay manifest to be changed."""
    return shutil.copytree(directories[0] / "replay", tmp_path / "replay")


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
    assert (summary.command, summary.status, summary.warnings) == ("inspect", status, [])
    assert all(len(row) == len(table.columns) for table in summary.tables for row in table.rows)
    json.dumps(summary.as_dict())


def test_what_is_told_of_a_manifest(directories):
    base, built = directories
    totals = inspect(str(base / "ordered")).totals
    assert totals["parent"] == built.header["manifest_id"]
    assert totals["order"] == "by importance: 2 epochs, 3 ranks, seed 0"
    assert totals["plays"] == built.header["totals"]["plays"]
    assert totals["selected samples"] == len(built.samples)
    groups, shards = inspect(str(base / "replay")).tables
    assert [row[0] for row in groups.rows] == ["even", "odd"]
    assert sum(row[2] for row in shards.rows) == len(built.samples)


def test_tokens_of_a_run_and_those_that_are_predicted_are_told_apart(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "_SUCCESS").unlink()  # its checks are of other tests
    units = pq.read_table(copied / "units.parquet")
    tokens = pa.array([1000 + n for n in units["n_tokens"].to_pylist()])
    pq.write_table(units.set_column(units.schema.get_field_index("tokens"), "tokens", tokens), copied / "units.parquet")
    predicted = sum(units["n_tokens"].to_pylist())
    totals = inspect(str(copied)).totals
    assert (totals["tokens"], totals["tokens predicted"]) == (predicted + 1000 * len(units), predicted)
    assert "n tokens" not in totals


def test_bytes_that_are_lost_are_those_of_the_shards(run, tmp_path):
    """A file without a usable row is lost as a whole, of which its blocks know nothing."""
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "_SUCCESS").unlink()  # its checks are of other tests
    shards = pq.read_table(copied / "shards.parquet")
    lost = pa.array([100 + n for n in range(len(shards))])
    pq.write_table(
        shards.set_column(shards.schema.get_field_index("bytes_lost"), "bytes_lost", lost), copied / "shards.parquet"
    )
    summary = inspect(str(copied))
    assert summary.totals["bytes lost"] == sum(row["bytes lost"] for row in summary.table("Shards").records())
    assert summary.totals["bytes lost"] > 0


def reject(run, unit, rejects):
    """Give a unit of a run rejects: (row, window, reason, detail) each."""
    shard_id, block = unit
    rows = [
        {"shard_id": shard_id, "row_index": row, "window": window, "reason": reason, "detail": detail}
        for row, window, reason, detail in rejects
    ]
    pq.write_table(pa.Table.from_pylist(rows, REJECTS), run / "rejects" / unit_name(shard_id, block))
    units = pq.read_table(run / "units.parquet").to_pylist()
    mine = next(row for row in units if (row["shard_id"], row["block"]) == unit)
    whole_rows = sum(window is None for _, window, *_ in rejects)
    mine |= {"rows_rejected": whole_rows, "windows_rejected": len(rejects) - whole_rows}
    pq.write_table(pa.Table.from_pylist(units, UNITS), run / "units.parquet")
    header = json.loads((run / "run.json").read_text())
    for reason in (reason for _, _, reason, _ in rejects):
        header["totals"]["rejects"][reason] = header["totals"]["rejects"].get(reason, 0) + 1
    for name in ("rows_rejected", "windows_rejected"):
        header["totals"][name] = sum(row[name] for row in units)
    (run / "run.json").write_text(json.dumps(header))
    reseal_run(run)


def test_the_first_rejects_of_a_run_are_listed_by_file_and_row(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    reject(copied, (0, 1), [(30, None, "blank_line", None), (31, 2, "no_tokens", "none of it")])
    reject(copied, (1, 0), [(2, None, "blank_line", None)])
    reject(copied, (3, 2), [(70, None, "bad_json", "line 1 column 2")])
    summary = inspect(str(copied))
    assert summary.table("Rejected").rows == [["bad_json", 1], ["blank_line", 2], ["no_tokens", 1]]
    assert summary.table("Rejects").title == "Rejects"
    assert summary.table("Rejects").records() == [
        {"file": "000.jsonl", "row": 31, "window": 2, "reason": "no_tokens", "detail": "none of it"},
        {"file": "003.jsonl", "row": 70, "window": None, "reason": "bad_json", "detail": "line 1 column 2"},
    ]
    (copied / "_SUCCESS").unlink()  # as too much damage leaves it: run.json says nothing of what came
    header = json.loads((copied / "run.json").read_text())
    del header["totals"]
    (copied / "run.json").write_text(json.dumps(header))
    summary = inspect(str(copied))
    assert [row[1] for row in summary.table("Rejects").rows] == [31, 70]
    assert summary.table("Rejects").title == f"Rejects (first 2 of 4; all are in {copied}/rejects)"


def test_of_many_rejects_some_are_listed_and_few_files_opened(run, tmp_path, monkeypatch):
    copied = shutil.copytree(run, tmp_path / "run")
    for block in range(3):
        reject(copied, (3, block), [(40 * block + row, None, "null_text", None) for row in range(15)])
    opened = []
    read = io.read_parquet
    monkeypatch.setattr(io, "read_parquet", lambda path, *rest: opened.append(path) or read(path, *rest))
    table = inspect(str(copied)).table("Rejects")
    assert [row[1] for row in table.rows] == [*range(15), *range(40, 45)]
    assert table.title == f"Rejects (first 20 of 45; all are in {copied}/rejects)"
    assert [path for path in opened if "/rejects/" in path] == [
        str(copied / "rejects" / unit_name(3, block)) for block in (0, 1)
    ]


def test_a_run_without_rejects_has_no_table_of_them(run):
    assert [table.title for table in inspect(str(run)).tables] == ["Shards"]


def test_how_a_manifest_was_made_is_told(copied):
    def made(header):
        header["selection"] |= {"budget": {"requested": "5%", "unit": "samples", "amount": 1234}, "scope": "global"}
        header["selection"]["options"] |= {
            "group_by": None,
            "group_alpha": 0.5,
            "mass": "corpus",
            "history_mode": "cover",
        }
        header["provenance"] |= {"runs": [{"fingerprint": "a"}, {"fingerprint": "b"}]}

    reseal(copied, made)
    totals = inspect(str(copied)).totals
    said = {"method": "uniform", "budget": "5% (1,234 samples)", "scope": "global", "group by": None, "mass": "corpus"}
    said |= {"seed": 0, "phases": 1, "runs": 2}
    assert {name: totals[name] for name in said} == said
    assert not {"history", "history mode", "group alpha"} & set(totals)
    reseal(copied, lambda header: header["selection"]["options"].update(group_by="lang"))
    assert inspect(str(copied)).totals["group alpha"] == 0.5
    reseal(copied, lambda header: header["provenance"].update(history=["1" * 64, "2" * 64]))
    totals = inspect(str(copied)).totals
    assert (totals["history"], totals["history mode"]) == ("1" * 16 + ", " + "2" * 16, "cover")


def test_groups_of_several_phases_are_told_apart(tmp_path):
    replay = build_replay(tmp_path, shards=2, phases=2).replay
    summary = inspect(str(replay))
    assert summary.totals["phases"] == 2
    groups = summary.tables[0]
    assert groups.columns[:2] == ["phase", "group"]
    assert [row[:2] for row in groups.rows] == [[0, "even"], [0, "odd"], [1, "even"], [1, "odd"]]


@pytest.mark.parametrize(("name", "again"), [("replay", "select"), ("ordered", "order"), ("export", "export")])
def test_unfinished_directories(directories, tmp_path, name, again):
    copied = shutil.copytree(directories[0] / name, tmp_path / name)
    (copied / "_SUCCESS").unlink()
    summary = inspect(str(copied))
    assert summary.status.endswith(", unfinished")
    assert f"run cptsel {again} again" in summary.warnings[0]


def test_an_output_that_has_only_begun(tmp_path):
    begin(str(tmp_path / "x"), "select", "", overwrite=False)
    assert inspect(str(tmp_path / "x")).status == "begun by cptsel select, nothing finished"


def test_an_embedding_run_that_is_unfinished(tmp_path):
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "000000-00000.parquet").write_bytes(b"?")
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    outputs.write_config(str(tmp_path), "embed", "")
    summary = inspect(str(tmp_path))
    assert summary.status == "embedding run, unfinished"
    assert summary.totals["blocks written"] == 1
    assert "run cptsel embed again" in summary.warnings[0]


def damage(directory):
    """The error and the (file, row, problem) that its summary lists."""
    with pytest.raises(VerificationError, match=r"is damaged: .*; restore the directory or make it again$") as error:
        inspect(str(directory))
    json.dumps(error.value.summary.as_dict())
    assert error.value.summary.status.endswith(", damaged")
    return str(error.value), error.value.summary.tables[-1].rows


def change_header(directory, change):
    header = json.loads((directory / "manifest.json").read_text())
    change(header)
    (directory / "manifest.json").write_text(json.dumps(header))


def test_a_header_that_breaks_its_schema_is_damage(copied):
    change_header(copied, lambda header: header.pop("groups"))
    assert "'groups' is a required property" in damage(copied)[0]


def test_a_changed_header_is_damage(copied, capsys):
    change_header(copied, lambda header: header["totals"].update(plays=7))
    said, rows = damage(copied)
    assert said.startswith(f"{copied} is damaged: 1 problem: manifest.json: was changed after it was written")
    assert rows == [["manifest.json", None, "was changed after it was written: manifest_id does not match"]]
    assert main(["inspect", str(copied)]) == 4
    out, err = capsys.readouterr()
    assert "cptsel inspect: replay manifest, damaged" in out
    assert err == f"cptsel: error: {said}\n"


def test_files_that_are_lost_or_of_another_size_are_damage(copied):
    (copied / "samples/000001.parquet").unlink()
    (copied / "samples/000002.parquet").write_bytes(b"PAR1")
    size = json.loads((copied / "manifest.json").read_text())["files"]["samples/000002.parquet"]["bytes"]
    assert damage(copied)[1] == [
        ["samples/000001.parquet", None, "is missing"],
        ["samples/000002.parquet", None, f"has 4 bytes, but {size:,} were written"],
    ]


@pytest.mark.parametrize("content", [None, b"cut sh"])
def test_a_lost_or_cut_table_of_shards_is_damage_and_the_rest_is_told(copied, content):
    (copied / "shards.parquet").unlink()
    if content is not None:
        (copied / "shards.parquet").write_bytes(content)
    assert [row[0] for row in damage(copied)[1]] == ["shards.parquet"]


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (
            None,
            "none of run.json, manifest.json, export.json, lookahead.json, targets.json, fisher.json says what it is",
        ),
        ("{", "manifest.json: not valid JSON"),
    ],
)
def test_a_lost_or_cut_header_is_damage(copied, content, phrase):
    (copied / "manifest.json").unlink()
    if content is not None:
        (copied / "manifest.json").write_text(content)
    with pytest.raises(VerificationError, match=f"is damaged: .*{phrase}"):
        inspect(str(copied))


def test_other_directories_are_a_usage_error(directories, tmp_path):
    with pytest.raises(UsageError, match=r"was not written by cptsel \(3 files, the first part-00"):
        inspect(str(directories[1].corpus))
    with pytest.raises(UsageError, match=r"config\.yaml is a file, not a directory; name the output"):
        inspect(str(directories[1].replay / "config.yaml"))
    with pytest.raises(UsageError, match="no such directory"):
        inspect(str(tmp_path / "nowhere"))
    (tmp_path / "manifest.json").write_text('{"format": "webextension"}')
    with pytest.raises(UsageError, match="was not written by cptsel"):
        inspect(str(tmp_path))


def test_many_files_are_looked_at_by_name_only(copied, monkeypatch):
    assert inspect(str(copied)).totals["files"].endswith(" looked at by names and sizes")
    monkeypatch.setattr(outputs, "_SIZES", 3)
    monkeypatch.setattr(outputs, "tree_sizes", None)
    assert inspect(str(copied)).totals["files"].endswith(" looked at by names")
    (copied / "samples" / "000001.parquet").unlink()
    with pytest.raises(VerificationError, match=r"000001\.parquet: is missing"):
        inspect(str(copied))


def test_a_listing_is_what_other_listings_say(tmp_path):
    for name in ("a", "b/c", "b/d/e", "b/d/.lock", "f/000000-00000.parquet/g", ".lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * len(name))
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "h").symlink_to(tmp_path / "a")
    files = outputs.Listing(str(tmp_path))
    assert sorted(files.paths()) == outputs.list_tree(str(tmp_path)) == sorted(files.sizes())
    assert len(files) == 6
    assert "b/d/e" in files
    assert not {"b/d", "f/000000-00000.parquet", "link", "link/c", "empty", ".lock"} & set(files.paths())
    assert not len(outputs.Listing(str(tmp_path / "absent")))


def test_the_checkpoint_in_a_run_is_whole_without_a_mark_of_its_own(tmp_path):
    facts = {
        "format": "cptsel.lookahead", "spec_version": 1, "model": "m", "weights": "ab" * 32, "corpus": "cd" * 32,
        "steps": 1, "optimizer": "adamw", "lr": 0.1, "tokens": 5, "max_tokens": 8, "seed": 0, "documents": 1,
        "windows": 1, "losses": [1.0, 0.9],
    }  # fmt: skip
    (tmp_path / "lookahead.json").write_text(json.dumps(facts))
    assert (inspect(str(tmp_path)).status, inspect(str(tmp_path)).warnings) == ("lookahead checkpoint, finished", [])
    (tmp_path / "config.yaml").write_text("# cptsel lookahead: its configuration\nsteps: 1\n")
    told = inspect(str(tmp_path))
    assert told.status == "lookahead checkpoint, unfinished"
    assert "run cptsel lookahead again" in told.warnings[0]
