"""An export, read back with nothing but zstandard and json, is what the manifest plays, in its order."""

import io as stdio
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter

import pyarrow.parquet as pq
import pytest
import zstandard
from datasets import load_dataset
from manifest_builder import build_replay, change_samples, reseal

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.errors import BadInputError, UsageError, VerificationError
from cptsel.pipeline.export import export
from cptsel.pipeline.exports import pieces as export_pieces
from cptsel.pipeline.exports import plan as export_plan
from cptsel.pipeline.exports import tables as export_tables
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.hashing import content_hash
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("built")
    built = build_replay(directory, shards=5, documents=8)
    order(OrderConfig(replay=str(built.replay), out=str(directory / "ordered"), epochs=2, world_size=2))
    return built


@pytest.fixture(scope="module")
def ordered(built):
    return built.replay.parent / "ordered"


@pytest.fixture(scope="module")
def exported(ordered, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "out"
    return out, export(ExportConfig(replay=str(ordered), out=str(out)))


def read_back(directory):
    """{file: lines as dicts} of an export, files by name."""
    found = {}
    for path in sorted(directory.glob("data/**/*.parquet")):
        found[str(path.relative_to(directory))] = pq.read_table(path).to_pylist()
    for path in sorted(directory.glob("data/**/*.jsonl.zst")):
        with zstandard.ZstdDecompressor().stream_reader(path.read_bytes()) as stream:
            lines = stdio.TextIOWrapper(stream, encoding="utf-8", newline="\n").readlines()
        found[str(path.relative_to(directory))] = [json.loads(line) for line in lines]
    return found


def tree(directory):
    names = set(outputs.list_tree(str(directory))) - {"stats.json", "config.yaml"}
    return {name: (directory / name).read_bytes() for name in names}


def test_unordered_export_is_the_multiset_of_plays_pass_by_pass(built, tmp_path):
    summary = export(ExportConfig(replay=str(built.replay), out=str(tmp_path / "out")))
    files = read_back(tmp_path / "out")
    lines = [line for lines in files.values() for line in lines]
    assert sorted((line["sample_id"], line["text"], line["repeat"]) for line in lines) == built.plays()
    samples = {s["sample_id"]: s for s in built.samples}
    places = [(s["repeat"], *(samples[s["sample_id"]][key] for key in ("shard_id", "order_rank"))) for s in lines]
    expected = [(c + 1, s["shard_id"], s["order_rank"]) for s in built.samples for c in range(s["repeat"])]
    assert places == sorted(expected)
    assert summary.totals["lines"] == len(lines) == built.header["totals"]["plays"]
    assert summary.totals["tokens"] == built.header["totals"]["replay_tokens"]
    first = next(iter(files))
    assert first == "data/000000000-shard000000-pass1.jsonl.zst"


def test_every_field_of_a_line(built, exported):
    samples = {s["sample_id"]: s for s in built.samples}
    out, _ = exported
    for line in (line for lines in read_back(out).values() for line in lines):
        sample = samples[line["sample_id"]]
        path = ["part-00.jsonl", "part-01.jsonl.gz", "part-02.jsonl.zst", "part-03.parquet", "part-04.jsonl"]
        assert line == {
            "text": sample["text"],
            "id": sample["doc_id"],
            "sample_id": sample["sample_id"],
            "group": sample["group"],
            "weight": sample["weight"],
            "loss_weight": 1.0,  # the repeats are the weight
            "repeat": line["repeat"],
            "shard": path[sample["shard_id"]],
            "row": sample["row_index"],
        }


def test_ordered_export_follows_the_schedule(built, ordered, exported):
    import pyarrow.parquet as pq

    out, _ = exported
    files = read_back(out)
    for epoch in (0, 1):
        for rank in (0, 1):
            plan = pq.read_table(ordered / f"schedule/0-{epoch}.parquet", filters=[("rank", "=", rank)]).to_pylist()
            names = [
                f"data/epoch-{epoch:03d}/rank-{rank:05d}/{row['position']:09d}-shard{row['shard_id']:06d}-pass{row['pass']}.jsonl.zst"
                for row in plan
            ]
            assert [name for name in files if f"epoch-{epoch:03d}/rank-{rank:05d}/" in name] == names
            for row, name in zip(plan, names, strict=True):
                assert len(files[name]) == row["samples"]
                assert {line["repeat"] for line in files[name]} == {row["pass"]}
        mine = [line for name, lines in files.items() if f"epoch-{epoch:03d}" in name for line in lines]
        assert sorted((line["sample_id"], line["text"], line["repeat"]) for line in mine) == built.plays()


def test_phases_are_ordered_verified_and_exported_each_by_itself(tmp_path):
    built = build_replay(tmp_path, shards=3, documents=6, phases=2)
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "ordered"), world_size=2))
    for name in ("replay", "ordered"):
        assert verify(VerifyConfig(directory=str(tmp_path / name))).status == "verified"
        export(ExportConfig(replay=str(tmp_path / name), out=str(tmp_path / f"{name}-export")))
        files = read_back(tmp_path / f"{name}-export")
        for phase in (0, 1):
            lines = [line for file in files if file.startswith(f"data/phase-{phase:03d}/") for line in files[file]]
            played = {s["sample_id"]: s["repeat"] for s in built.samples if s["phase"] == phase and s["repeat"]}
            assert Counter(line["sample_id"] for line in lines) == played


def test_the_header_and_the_sums_are_right(ordered, exported):
    out, summary = exported
    header = json.loads((out / "export.json").read_text())
    assert header["parent"] == json.loads((ordered / "manifest.json").read_text())["manifest_id"]
    files = read_back(out)
    assert set(header["files"]) == set(files)
    assert {name: entry["lines"] for name, entry in header["files"].items()} == {n: len(v) for n, v in files.items()}
    assert header["totals"] == {key: summary.totals[key] for key in ("files", "lines", "tokens", "bytes")}
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=out, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    listed = {line.rsplit(": ", 1)[0] for line in done.stdout.splitlines()}
    assert listed == set(outputs.list_tree(str(out))) - outputs.UNSUMMED
    json.dumps(summary.as_dict())


def test_equal_bytes_with_two_workers_and_a_moved_corpus(built, ordered, exported, tmp_path):
    moved = shutil.copytree(built.corpus, tmp_path / "moved")
    export(ExportConfig(replay=str(ordered), out=str(tmp_path / "again"), root=str(moved), workers=2))
    assert tree(tmp_path / "again") == tree(exported[0])


def test_exclude_drops_by_every_kind_of_name_and_says_how_much(built, tmp_path):
    played = [s for s in built.samples if s["repeat"]]
    by = [played[0]["doc_id"], played[9]["doc_key"], played[20]["sample_id"].upper(), played[30]["content_hash"].hex()]
    (tmp_path / "list").write_text("# taken down\n\n" + "\n".join(by) + "\nnobody\n")
    summary = export(ExportConfig(replay=str(built.replay), out=str(tmp_path / "out"), exclude=str(tmp_path / "list")))
    names = {name.lower() for name in by}

    def out_of(sample):
        return names & {sample["doc_id"], sample["doc_key"], sample["sample_id"], sample["content_hash"].hex()}

    lines = [line for lines in read_back(tmp_path / "out").values() for line in lines]
    kept = Counter({s["sample_id"]: s["repeat"] for s in played if not out_of(s)})
    assert Counter(line["sample_id"] for line in lines) == kept
    gone = [s for s in built.samples if out_of(s)]
    excluded = json.loads((tmp_path / "out" / "export.json").read_text())["excluded"]
    assert len(excluded.pop("entries_sha256")) == 64
    assert excluded == {
        "samples": len(gone),
        "lines": sum(s["repeat"] for s in gone),
        "tokens": sum(s["repeat"] * s["n_tokens"] for s in gone),
    }
    assert summary.totals["excluded lines"] == excluded["lines"] > 3


def test_exclude_drops_whole_documents_by_the_hash_of_their_text(built, tmp_path):
    rows = (built.replay.parent / "corpus" / "part-00.jsonl").read_text().splitlines()
    played = {s["doc_id"] for s in built.samples if s["repeat"] and s["shard_id"] == 0}
    document = next(row for row in map(json.loads, filter(None, rows)) if row.get("id") in played)
    (tmp_path / "list").write_text(content_hash(document["text"].encode()).hex().upper() + "\n")
    export(ExportConfig(replay=str(built.replay), out=str(tmp_path / "out"), exclude=str(tmp_path / "list")))
    lines = [line for lines in read_back(tmp_path / "out").values() for line in lines]
    assert {line["id"] for line in lines} & played == played - {document["id"]}
    gone = [s for s in built.samples if s["doc_id"] == document["id"]]
    excluded = json.loads((tmp_path / "out" / "export.json").read_text())["excluded"]
    assert excluded["samples"] == len(gone)
    assert excluded["lines"] == sum(s["repeat"] for s in gone)


def test_a_manifest_that_plays_nothing_becomes_an_empty_export(tmp_path):
    built = build_replay(tmp_path, shards=2)
    for shard in range(2):
        change_samples(built.replay, shard, lambda rows: [row.update(repeat=0) for row in rows])
    header = json.loads((built.replay / "manifest.json").read_text())
    header["totals"] |= {"plays": 0, "replay_tokens": 0}
    (built.replay / "manifest.json").write_text(json.dumps(header))
    reseal(built.replay)
    summary = export(ExportConfig(replay=str(built.replay), out=str(tmp_path / "out")))
    assert summary.totals["lines"] == summary.totals["files"] == 0
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_a_changed_text_stops_the_export_and_leaves_no_success(built, tmp_path):
    moved = shutil.copytree(built.corpus, tmp_path / "moved")
    path = moved / "part-04.jsonl"
    path.write_bytes(path.read_bytes().replace(b"token", b"tokem"))
    phrase = r"part-04\.jsonl: row \d+ is not the text that was embedded.*verify --sources"
    with pytest.raises(VerificationError, match=phrase):
        export(ExportConfig(replay=str(built.replay), out=str(tmp_path / "out"), root=str(moved)))
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    export(ExportConfig(replay=str(built.replay), out=str(tmp_path / "out")))  # what is left is no obstacle
    assert not [name for name in outputs.list_tree(str(tmp_path / "out")) if name.startswith(".")]


def test_a_missing_shard_names_the_remedy(built, tmp_path):
    with pytest.raises(BadInputError, match=r"part-00\.jsonl is missing; restore it, or pass --root"):
        export(ExportConfig(replay=str(built.replay), out=str(tmp_path / "out"), root=str(tmp_path)))


def test_a_tampered_manifest_is_refused(tmp_path):
    built = build_replay(tmp_path, shards=2)
    change_samples(built.replay, 1, lambda rows: rows[0].update(repeat=4 - rows[0]["repeat"]))
    config = ExportConfig(replay=str(built.replay), out=str(tmp_path / "out"))
    with pytest.raises(VerificationError, match="is not the file that was written"):
        export(config)
    reseal(built.replay)
    with pytest.raises(VerificationError, match=r"plays [\d,]+ lines, but its samples and schedules give"):
        export(config)
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_dry_run_writes_nothing_and_counts_right(ordered, exported, tmp_path):
    summary = export(ExportConfig(replay=str(ordered), out=str(tmp_path / "out"), dry_run=True))
    assert [table.title for table in summary.tables] == ["Shards that are read"]
    assert not (tmp_path / "out").exists()
    for key in ("files", "lines", "tokens"):
        assert summary.totals[key] == exported[1].totals[key]


@pytest.mark.parametrize("realisation", ["loss", "sampling", "none"])
def test_other_realisations_write_each_sample_once_with_what_a_trainer_needs(tmp_path, realisation):
    built = build_replay(tmp_path, shards=3, documents=6, phases=2, realisation=realisation)
    summary = export(ExportConfig(replay=str(built.replay), out=str(tmp_path / "out")))
    header = json.loads((tmp_path / "out" / "export.json").read_text())
    assert header["realisation"] == realisation
    assert header["fidelity"] == ("expectation-only" if realisation == "sampling" else "exact")
    assert header["instructions"] == summary.totals["the trainer"]
    assert bool(summary.warnings) == (realisation != "none")
    files = read_back(tmp_path / "out")
    for phase in (0, 1):
        lines = [line for file in files if file.startswith(f"data/phase-{phase:03d}/") for line in files[file]]
        samples = [s for _, s, _ in built.sequence(phase)]
        assert [line["sample_id"] for line in lines] == [s["sample_id"] for s in samples]
        assert [line["weight"] for line in lines] == [s["weight"] for s in samples]
        factors = [s["loss_weight"] if realisation == "loss" else 1.0 for s in samples]
        assert [line["loss_weight"] for line in lines] == factors


@pytest.mark.parametrize("realisation", ["repeat", "loss"])
def test_a_curriculum_holds_over_all_shards(tmp_path, monkeypatch, realisation):
    """Without a schedule; parts are made so small here that there are many, some of them empty in later passes."""
    monkeypatch.setattr(export_plan, "PART_PLAYS", 7)
    monkeypatch.setattr(export_pieces, "PART_PLAYS", 7)
    built = build_replay(tmp_path, shards=4, documents=6, phases=2, realisation=realisation, curriculum=True)
    summary = export(ExportConfig(replay=str(built.replay), out=str(tmp_path / "out")))
    assert summary.totals["fidelity"] == "exact"
    assert summary.totals["lines"] == built.header["totals"]["plays"]
    assert summary.totals["tokens"] == built.header["totals"]["replay_tokens"]
    files = read_back(tmp_path / "out")
    assert len({name for name in files if "phase-000/pass-00001" in name}) > 5
    expected = [(s["sample_id"], s["text"], number) for _, s, number in built.sequence()]
    lines = [line for lines in files.values() for line in lines]
    assert [(line["sample_id"], line["text"], line["repeat"]) for line in lines] == expected
    assert not [name for name in outputs.list_tree(str(tmp_path / "out")) if name.startswith(".work")]
    dry = export(ExportConfig(replay=str(built.replay), out=str(tmp_path / "dry"), dry_run=True))
    assert dry.totals["lines"] == len(lines)
    assert "files" not in dry.totals  # how many parts are empty is known when they are written


def test_a_curriculum_has_equal_bytes_with_two_workers(tmp_path):
    built = build_replay(tmp_path, shards=3, documents=6, curriculum=True)
    for workers in (1, 2):
        export(ExportConfig(replay=str(built.replay), out=str(tmp_path / f"out-{workers}"), workers=workers))
    assert tree(tmp_path / "out-1") == tree(tmp_path / "out-2")


KILLED = """
import os, signal, sys
from cptsel.cli.main import main
from cptsel.pipeline import io

replace, left = os.replace, [int(sys.argv[1])]

def until_killed(*paths):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)

io.os.replace = until_killed
main(["export", *sys.argv[2:]])
"""


@pytest.mark.parametrize("moment", [0.3, 0.75, 1.0])  # while shards are read, while pieces are merged, before _SUCCESS
def test_a_killed_export_is_done_again_with_the_same_bytes(tmp_path, monkeypatch, moment):
    built = build_replay(tmp_path, shards=3, documents=4, curriculum=True)
    writes, replace = [], io.os.replace
    monkeypatch.setattr(io.os, "replace", lambda *paths: (writes.append(paths[1]), replace(*paths)))
    export(ExportConfig(replay=str(built.replay), out=str(tmp_path / "whole")))
    monkeypatch.undo()
    survived = round(moment * (len(writes) - 1))
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, str(survived), str(built.replay), "--out", str(out)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    left = outputs.list_tree(str(out))
    assert "config.yaml" in left
    assert "_SUCCESS" not in left
    assert any(outputs.temporary_of(name) for name in left)
    export(ExportConfig(replay=str(built.replay), out=str(out)))
    assert tree(out) == tree(tmp_path / "whole")


@pytest.mark.parametrize("name", ["samples/000003.parquet", "shards.parquet", "schedule/0-1.parquet", "part-04.jsonl"])
def test_damaged_or_lost_inputs_do_not_cost_an_older_export(built, ordered, exported, tmp_path, name):
    out = shutil.copytree(exported[0], tmp_path / "out")
    replay, corpus = shutil.copytree(ordered, tmp_path / "replay"), shutil.copytree(built.corpus, tmp_path / "corpus")
    if (replay / name).exists():
        (replay / name).write_bytes(b"damaged")
    else:
        (corpus / name).unlink()
    before = tree(out)
    with pytest.raises((VerificationError, BadInputError), match=f"{name} is"):
        export(ExportConfig(replay=str(replay), out=str(out), root=str(corpus), overwrite=True))
    assert tree(out) == before


def test_a_runner_that_is_refused_does_not_cost_an_older_export(built, exported, tmp_path):
    out = shutil.copytree(exported[0], tmp_path / "out")
    before = tree(out)
    with pytest.raises(UsageError, match="--runner=Nope"):
        export(ExportConfig(replay=str(built.replay), out=str(out), overwrite=True, beam_args=("--runner=Nope",)))
    assert tree(out) == before


def test_outputs_and_formats_that_are_refused(built, exported, tmp_path):
    out, _ = exported
    with pytest.raises(UsageError, match="lies inside the input"):
        export(ExportConfig(replay=str(built.replay), out=str(built.replay / "out")))
    with pytest.raises(UsageError, match="pass --overwrite"):
        export(ExportConfig(replay=str(built.replay), out=str(out)))
    with pytest.raises(UsageError, match="written by cptsel select, not by export"):
        export(ExportConfig(replay=str(built.replay.parent / "ordered"), out=str(built.replay), overwrite=True))
    with pytest.raises(UsageError, match="--to csv"):
        export(ExportConfig(replay=str(built.replay), out=str(tmp_path / "out"), to="csv"))
    with pytest.raises(UsageError, match="not a replay manifest"):
        export(ExportConfig(replay=str(out), out=str(tmp_path / "out")))


def test_parquet_holds_what_json_lines_hold(ordered, exported, tmp_path):
    summary = export(ExportConfig(replay=str(ordered), out=str(tmp_path / "out"), to="parquet"))
    lines, rows = read_back(exported[0]), read_back(tmp_path / "out")
    assert [name.replace(".jsonl.zst", ".parquet") for name in lines] == list(rows)
    assert list(lines.values()) == list(rows.values())
    assert summary.totals["lines"] == exported[1].totals["lines"]
    header = io.read_json(str(tmp_path / "out" / "export.json"))
    assert header["to"] == "parquet"
    assert "play every row once" in header["instructions"]
    export(ExportConfig(replay=str(ordered), out=str(tmp_path / "again"), to="parquet"))
    assert tree(tmp_path / "out") == tree(tmp_path / "again")


def test_datasets_reads_parquet_in_order(ordered, exported, tmp_path):
    """The files of one rank, by the library that trainers use."""
    export(ExportConfig(replay=str(ordered), out=str(tmp_path / "out"), to="parquet"))
    place = "data/epoch-001/rank-00001"
    files = sorted(map(str, (tmp_path / "out" / place).iterdir()))
    for streaming in (False, True):
        found = load_dataset(
            "parquet", data_files=files, split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
        )
        expected = [line for name, lines in read_back(exported[0]).items() if name.startswith(place) for line in lines]
        assert [row["text"] for row in found] == [line["text"] for line in expected]
        assert [row["sample_id"] for row in found] == [line["sample_id"] for line in expected]


def test_large_parts_are_several_row_groups(ordered, tmp_path, monkeypatch):
    monkeypatch.setattr(export_tables, "ROWS", 2)
    export(ExportConfig(replay=str(ordered), out=str(tmp_path / "out"), to="parquet"), make_steps=InlineSteps)
    files = [pq.ParquetFile(path) for path in (tmp_path / "out").glob("data/**/*.parquet")]
    assert max(file.num_row_groups for file in files) > 1
    for file in files:
        assert file.num_row_groups == -(-file.metadata.num_rows // 2)
