"""What ``verify`` says of an export: sound ones pass, in every format, and what can't be checked is refused."""

import json
import shutil

import pytest
import zstandard
from export_checks import FORMATS, check, make, problems
from export_tampering import header_of, plays_files, reseal_export
from manifest_builder import build_replay

from cptsel.cli.main import main
from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.artifacts.visits import read_visits
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.exports import pieces, plan
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.model.vocabulary import Vocabulary
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig

pytestmark = pytest.mark.usefixtures("checks_without_beam")


# Sound exports


@FORMATS
def test_a_sound_export_passes(exports, embedded, name):
    for replay, checks in ((None, 4), (embedded.replay, 5)):
        summary = check(exports[name], replay, expect=load_manifest(str(embedded.replay)).manifest_id)
        assert summary.status == "verified"
        assert [row[2] for row in summary.tables[0].rows] == ["ok"] * checks
        assert summary.totals["lines"] == len(embedded.plays)


@FORMATS
def test_a_format_reads_what_it_wrote(embedded, exports, tmp_path, name):
    """``read`` gives ``kept`` of every record; ids of plays may be missing, and texts hold anything."""
    format = EXPORTS[name.removesuffix("-ids")]
    texts = ["", "plain", 'two\nlines\r\n"quoted", \\ and \u2028', "🙂 naïve \x00 \x1f", "𝔘" * 3000]
    ids = name.endswith("-ids") or not format.writes_text
    named = "{:032X}" if format.joins else "d,{}\n"
    records = [
        {
            "text": text, "id": None if number % 2 and not format.joins else named.format(number // 2),
            "sample_id": f"{number:032x}", "group": "ünï", "weight": 0.1 * number, "loss_weight": 1e-300,
            "repeat": 1 + number, "shard": 'a "b", c.jsonl', "row": number * 2**33,
            **({"input_ids": [number, 5]} if ids else {}),
        }
        for number, text in enumerate(texts)
    ]  # fmt: skip
    for count in (0, 1, len(records)):
        path = str(tmp_path / f"{count}{format.suffix}")
        format.write(path, records[:count], Vocabulary(300, 2) if ids else None)
        assert list(format.read(path)) == [format.kept(record) for record in format.held(records[:count])]


@pytest.mark.parametrize(
    ("to", "file", "change"),
    [
        ("jsonl", "replay.jsonl.zst", lambda data: data + data),
        ("jsonl", "replay.jsonl.zst", lambda data: data + zstandard.compress(b"")),
        ("jsonl", "replay.jsonl.zst", lambda data: data + b"more"),
        ("jsonl", "replay.jsonl.zst", lambda data: data[:-1]),
        ("llamafactory", "replay.jsonl", lambda data: data.replace(b'", "', b'","', 1)),
        ("llamafactory", "replay.jsonl", lambda data: data.replace(b'{"text"', b'{"text": "", "text"', 1)),
        ("llamafactory", "replay.jsonl", lambda data: b"[" + data.replace(b"\n", b"]\n", 1)),
        ("ms-swift", "replay.jsonl", lambda data: data[:-1]),
        ("ms-swift", "replay.jsonl", lambda data: data + b"\n"),
        ("ms-swift", "replay.jsonl", lambda data: data.replace(b'"assistant"', b'"user"', 1)),
        ("ms-swift", "replay.jsonl", lambda data: data.replace(b'"row"', b'"more": 1, "row"', 1)),
        ("llamafactory-v1", "replay.jsonl", lambda data: data.replace(b'"type": "text"', b'"type": "image"', 1)),
        ("nanotron", "replay.ds", lambda data: data + data[-2:]),
        ("nanotron", "replay.ds.index", lambda data: data[:-4]),
        ("nanotron", "replay.ds.index", lambda data: data + b"\xff" * 8),
        ("nanotron", "replay.ds.index", lambda data: bytes(8) + data),
        ("nanotron", "replay.ds.index", lambda data: data[8:16] + data[:8] + data[16:]),
        ("uids", "replay.npy", lambda data: data[:128] + data[144:160] + data[128:144] + data[160:]),
        ("uids", "replay.npy", lambda data: data[:144] + data[128:144] + data[160:]),
        ("uids", "replay.npy", lambda data: data.replace(b"<u8", b"<i8")),
        ("uids", "replay.npy", lambda data: data[:-16]),
        ("uids", "replay.npy", lambda data: data[:100]),
    ],
)
def test_what_no_writer_writes_is_refused(tmp_path, to, file, change):
    ids = None if EXPORTS[to].writes_text else Vocabulary(300, 2)
    path = tmp_path / f"replay{EXPORTS[to].suffix}"
    records = [
        {
            "text": "a text", "id": f"{number:032x}", "sample_id": f"{number:032x}", "group": "g", "weight": 1.0,
            "loss_weight": 1.0, "repeat": 1, "shard": "s", "row": number, "input_ids": [7] * (number + 1),
        }
        for number in range(3)
    ]  # fmt: skip
    if ids is None:
        records = [{name: value for name, value in record.items() if name != "input_ids"} for record in records]
    EXPORTS[to].write(str(path), records, ids)
    assert len(list(EXPORTS[to].read(str(path)))) == 3
    data = (tmp_path / file).read_bytes()
    assert change(data) != data
    (tmp_path / file).write_bytes(change(data))
    with pytest.raises((ValueError, LookupError)):
        list(EXPORTS[to].read(str(path)))


@pytest.mark.parametrize("to", [to for to, format in EXPORTS.items() if format.writes_text and not format.refers])
@pytest.mark.parametrize("realisation", ["repeat", "loss", "sampling", "none"])
@pytest.mark.parametrize("curriculum", [False, True])
def test_phases_curricula_and_realisations_pass(tmp_path, monkeypatch, to, realisation, curriculum):
    """In several parts."""
    if realisation not in ("repeat", "none", *EXPORTS[to].weighs):
        pytest.skip("the format refuses it")
    for module in (plan, pieces):
        monkeypatch.setattr(module, "PART_PLAYS", 9)
    built = build_replay(
        tmp_path, shards=3, documents=4, phases=2, realisation=realisation, curriculum=curriculum, keep=0.9,
        uids=EXPORTS[to].joins,
    )  # fmt: skip
    make(built.replay, tmp_path / "out", to)
    assert check(tmp_path / "out", built.replay).status == "verified"
    assert len(plays_files(tmp_path / "out")) > 4 or EXPORTS[to].layout == "whole"


@pytest.mark.parametrize("to", ["jsonl", "hf"])
def test_schedules_pass_and_another_order_does_not(tmp_path, to):
    built = build_replay(tmp_path, shards=4, documents=6)
    for seed in (1, 2):
        options = {"epochs": 2, "world_size": 2, "seed": seed}
        order(OrderConfig(replay=str(built.replay), out=str(tmp_path / f"ordered-{seed}"), **options))
    make(tmp_path / "ordered-1", tmp_path / "out", to)
    assert check(tmp_path / "out", tmp_path / "ordered-1").status == "verified"
    ids = [load_manifest(str(tmp_path / f"ordered-{seed}")).manifest_id for seed in (1, 2)]
    (found,) = problems(tmp_path / "out", tmp_path / "ordered-2")
    assert found[0] == "export.json"
    assert found[2].startswith(f"parent is {ids[0]}, but ")
    reseal_export(tmp_path / "out", lambda header: header.update(parent=ids[1]))
    assert check(tmp_path / "out").status == "verified"
    assert any("is expected here" in what or "holds plays that" in what for _, _, what in problems(
        tmp_path / "out", tmp_path / "ordered-2"
    ))  # fmt: skip
    assert "this is another one than was expected" in problems(tmp_path / "out", expect=ids[0])[0][2]


def test_beam_checks_as_well(exports, embedded, monkeypatch):
    monkeypatch.undo()
    assert check(exports["jsonl"], embedded.replay, workers=2).status == "verified"


def test_verifying_leaves_no_trace(exports, embedded):
    for replay in (None, embedded.replay):
        before = {name: (exports["mds"] / name).read_bytes() for name in outputs.list_tree(str(exports["mds"]))}
        check(exports["mds"], replay)
        after = {name: (exports["mds"] / name).read_bytes() for name in outputs.list_tree(str(exports["mds"]))}
        assert after == before


# What is refused


def test_what_is_refused(exports, embedded, run, tmp_path):
    out, replay = exports["jsonl"], embedded.replay
    with pytest.raises(UsageError, match=r"--sources checks a replay manifest, and .* is an export; leave it out"):
        check(out, sources=True)
    with pytest.raises(UsageError, match="--run checks a replay manifest"):
        check(out, run=(str(run),))
    with pytest.raises(UsageError, match=r"--replay checks an export, and .* is none"):
        check(replay, replay)
    with pytest.raises(UsageError, match=r"--replay checks an export, and .* is an embedding run"):
        check(run, replay)
    with pytest.raises(UsageError, match="--exclude is read with --replay; leave it out"):
        check(out, exclude=str(tmp_path / "list"))
    with pytest.raises(UsageError, match="is not a replay manifest"):
        check(out, out)
    newer = shutil.copytree(out, tmp_path / "newer")
    io.write_json(str(newer / "export.json"), header_of(newer) | {"spec_version": 99})
    with pytest.raises(UsageError, match="spec_version 99 is newer"):
        check(newer)


def test_a_damaged_manifest_is_told_as_such(exports, embedded, tmp_path):
    replay = shutil.copytree(embedded.replay, tmp_path / "replay")
    next((replay / "samples").iterdir()).write_bytes(b"damaged")
    assert any("is not the file that was written" in what for _, _, what in problems(exports["jsonl"], replay))


def test_the_command(exports, embedded, capsys):
    assert main(["verify", str(exports["olmo"]), "--replay", str(embedded.replay), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["totals"]["format"] == "olmo"
    assert summary["tables"][0]["rows"][-1][0] == "plays of the manifest"
    assert (
        sum(visits.samples.sum() for visits in read_visits(load_manifest(str(embedded.replay))).values())
        == summary["totals"]["lines"]
    )
