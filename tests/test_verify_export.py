"""What ``verify`` says of an export: sound ones pass, and tampering of any kind is named by file and play."""

import json
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from embedded_builder import build_embedded
from export_tampering import header_of, plays_files, reseal_export, rewrite
from manifest_builder import build_replay, change_samples, recommending, reseal

from cptsel.cli.main import main
from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.artifacts.visits import read_visits
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.export import export
from cptsel.pipeline.exports import page, pieces, plan
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.exports.mixing import mixes_of, write_blends
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.hashing import content_hash
from cptsel.pipeline.model.vocabulary import Vocabulary
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify
from cptsel.schemas.arrow import REPLAY_SHARDS, VISITS

ALL = [(to, ids) for to, format in EXPORTS.items() for ids in ([False, True] if format.writes_ids else [False])]
ALL = [(to, ids) for to, ids in ALL if not EXPORTS[to].refers]  # these want another corpus and have tests of their own
ALL = [(to, ids) for to, ids in ALL if ids == (not EXPORTS[to].writes_text) or EXPORTS[to].writes_text]
NAMES = [f"{to}{'-ids' if ids and EXPORTS[to].writes_text else ''}" for to, ids in ALL]
FORMATS = pytest.mark.parametrize("name", NAMES)
TALLIED = {"plays": "samples", "replay_tokens": "tokens"}  # totals, and what they add up of visits
UNWATCHED = {"config.yaml", "stats.json", "_SUCCESS"}  # which may say anything, or hold anything


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    """Beam is not the point here."""
    monkeypatch.setattr("cptsel.pipeline.verification.scratch.Steps", InlineSteps)


def make(replay, out, to, **options):
    export(ExportConfig(replay=str(replay), out=str(out), to=to, **options), make_steps=InlineSteps)
    return out


@pytest.fixture(scope="module")
def exports(embedded, tmp_path_factory):
    """An export in every format, with token ids and without; no test changes them."""
    folder = tmp_path_factory.mktemp("exports")
    return {name: make(embedded.replay, folder / name, to, ids=ids) for name, (to, ids) in zip(NAMES, ALL, strict=True)}


@pytest.fixture
def copied(exports, tmp_path):
    return lambda name: shutil.copytree(exports[name], tmp_path / name)


def check(directory, replay=None, **options):
    return verify(VerifyConfig(directory=str(directory), replay=None if replay is None else str(replay), **options))


def problems(directory, replay=None, **options):
    """(file, row, problem) of every problem that is listed; the error's sentence has the first."""
    with pytest.raises(VerificationError) as error:
        check(directory, replay, **options)
    summary = error.value.summary
    json.dumps(summary.as_dict())
    rows = summary.tables[-1].rows
    assert rows[0][2] in str(error.value)
    assert "\n" not in str(error.value)
    return rows


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


# Tampering that leaves checksums behind


@FORMATS
def test_a_changed_missing_or_added_file_is_named(copied, embedded, name):
    out, rng = copied(name), random.Random(name)
    for file in sorted(set(outputs.list_tree(str(out)))):
        path = out / file
        data = path.read_bytes()
        if file not in UNWATCHED:
            changed = bytearray(data)
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(changed)
            for replay in (None, embedded.replay):
                found = problems(out, replay)
                assert any(file in (where, what.split()[-1]) for where, _, what in found)  # sums name what they are of
        path.unlink()
        assert [file, None, "is missing"] in [list(found) for found in problems(out, embedded.replay)]
        path.write_bytes(data)
    assert check(out, embedded.replay).status == "verified"
    for file in ("data/notes.txt", "notes.txt", f"data/zzz{EXPORTS[header_of(out)['to']].suffix}"):
        (out / file).write_bytes(b"?")
        assert [file, None, "does not belong to the export"] in [list(found) for found in problems(out)]
        (out / file).unlink()


def test_the_play_is_named_though_the_checksum_tells_as_well(copied, embedded):
    out = copied("jsonl")
    rewrite(out, plays_files(out)[0], lambda records: records.pop(1))
    found = problems(out, embedded.replay)
    assert [row for _, row, _ in found] == [None, 1]
    assert "was changed after it was written" in found[0][2]
    assert "a play is missing before it" in found[1][2]


# A forger who makes all checksums, counts and indexes anew


def remove(at):
    return lambda records: records.pop(at)


def swap(records):
    other = next(i for i in range(1, len(records)) if length(records[i]) != length(records[0]))
    records[0], records[other] = records[other], records[0]


def length(record):
    return len(record["input_ids"]) if "input_ids" in record else record["sample_id"]


def double(records):
    records.insert(3, dict(records[2]))


def set_field(name, value):
    def change(records):
        assert records[2][name] != value
        records[2][name] = value

    return change


def drop_token(records):
    records[2]["input_ids"] = records[2]["input_ids"][:-1] or [7, 7]


#: Kind of tampering: the change, the play at which it shows, and the field that a format must keep for that.
KINDS = {
    "the first removed": (remove(0), 0, None),
    "one removed": (remove(2), 2, None),
    "the last removed": (remove(-1), None, None),
    "two swapped": (swap, 0, None),
    "one doubled": (double, 3, None),
    "all removed but one": (lambda records: records.__delitem__(slice(1, None)), 1, None),
    "weight": (set_field("weight", 0.25), 2, "weight"),
    "loss_weight": (set_field("loss_weight", 3.0), 2, "loss_weight"),
    "repeat": (set_field("repeat", 9), 2, "repeat"),
    "group": (set_field("group", "another"), 2, "group"),
    "shard": (set_field("shard", "another"), 2, "shard"),
    "row": (set_field("row", 77), 2, "row"),
    "id": (set_field("id", "f" * 32), 2, "id"),
    "sample_id": (set_field("sample_id", "0" * 32), 2, "sample_id"),
    "text": (set_field("text", "other words"), 2, "text"),
    "a token": (drop_token, 2, "input_ids"),
}


@pytest.mark.parametrize("kind", KINDS)
@FORMATS
def test_a_forger_is_found_by_the_manifest(copied, embedded, name, kind):
    change, play, field = KINDS[kind]
    out = copied(name)
    file = plays_files(out)[0]
    records = list(EXPORTS[header_of(out)["to"]].read(str(out / file)))
    if field is not None and field not in records[0]:
        pytest.skip("the format does not keep it")
    if EXPORTS[header_of(out)["to"]].joins and kind in ("two swapped", "one doubled"):
        pytest.skip("its writer sorts documents, each once")
    rewrite(out, file, change)
    reseal_export(out)
    if kind == "one doubled" and "repeat" in records[0]:
        assert problems(out)[0][:2] == [file, 3]
    else:
        assert check(out).status == "verified"  # nothing but the manifest can tell
    found = [[where, row] for where, row, _ in problems(out, embedded.replay)]
    place = len(records) - 1 if play is None else play
    if "sample_id" in records[0]:
        assert [file, place] in found
    else:  # ids alone: plays of equal length are told apart by what follows
        assert any(where == file and row is not None and row >= place for where, row in found)


@FORMATS
def test_a_file_that_a_forger_took_out_is_named(copied, embedded, name):
    out = copied(name)
    file = plays_files(out)[-1]
    (out / file).unlink()
    for end in (".idx", ".csv.gz", ".ds.index"):
        (out / file).with_suffix("").with_suffix(end).unlink(missing_ok=True)
    for index in ("index.json", "shards.json", "state.json", "dataset_info.json"):
        (out / "data" / index).unlink(missing_ok=True)
    reseal_export(out)
    assert check(out).status == "verified"
    assert any(where == "export.json" and f"does not list {file}" in what for where, _, what in problems(
        out, embedded.replay
    ))  # fmt: skip


def test_files_that_were_exchanged_are_named(tmp_path):
    """Each is whole; the order of play is in their names."""
    built = build_replay(tmp_path, shards=3, documents=6)
    out = make(built.replay, tmp_path / "out", "parquet")
    first, second = (out / name for name in plays_files(out)[:2])
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    reseal_export(out)
    assert check(out).status == "verified"
    assert {(str(first.relative_to(out)), 0), (str(second.relative_to(out)), 0)} <= {
        (file, row) for file, row, _ in problems(out, built.replay)
    }


@pytest.mark.parametrize(("to", "index"), [("mds", "index.json"), ("webdataset", "shards.json"), ("hf", "state.json")])
def test_an_index_with_another_order_is_named(tmp_path, monkeypatch, to, index):
    """It is what the trainer goes by."""
    for module in (plan, pieces):
        monkeypatch.setattr(module, "PART_PLAYS", 9)
    built = build_replay(tmp_path, shards=3, documents=6)
    out = make(built.replay, tmp_path / "out", to)
    path = out / "data" / index
    value = json.loads(path.read_text())
    value[{"mds": "shards", "webdataset": "shardlist", "hf": "_data_files"}[to]].reverse()
    io.write_json(str(path), value)
    header = header_of(out)
    digest, size = outputs.hash_file(str(path))
    header["totals"]["bytes"] += size - header["files"][f"data/{index}"]["bytes"]
    header["files"][f"data/{index}"] |= {"sha256": digest, "bytes": size}
    io.write_json(str(out / "export.json"), header)
    sums, made = outputs.parse_sums((out / "SHA256SUMS").read_text()), page.pages(EXPORTS[to], header)
    for name, data in made.items():
        (out / name).write_bytes(data)
    for name in (f"data/{index}", "export.json", *made):
        sums[name] = outputs.hash_file(str(out / name))[0]
    (out / "SHA256SUMS").write_text(outputs.sums_text(sums))
    assert [list(found) for found in problems(out)] == [
        [f"data/{index}", None, "is not the index of the files beside it"]
    ]


@pytest.mark.parametrize(
    ("field", "value", "phrase"),
    [
        ("fidelity", "unordered", "fidelity is 'unordered', but the manifest gives 'exact'"),
        ("realisation", "none", "realisation is 'none', but the manifest gives 'repeat'"),
        ("instructions", "play what you like", "instructions is 'play what you like'"),
        ("loses", [], "loses is []"),
    ],
)
def test_what_the_header_says_of_the_training_is_the_manifests(copied, embedded, field, value, phrase):
    out = copied("jsonl")
    reseal_export(out, lambda header: header.update({field: value}))
    assert check(out).status == "verified"
    assert any(phrase in what for _, _, what in problems(out, embedded.replay))


def test_sentences_of_another_release_are_its_own(copied, embedded):
    out = copied("jsonl")
    other = {"tool": {"name": "cptsel", "version": "0.0.1"}, "instructions": "play them as we said then"}
    reseal_export(out, lambda header: header.update(other))
    (out / "TRAINING.md").write_text("another page")
    sums = outputs.parse_sums((out / "SHA256SUMS").read_text())
    sums["TRAINING.md"] = outputs.hash_file(str(out / "TRAINING.md"))[0]
    (out / "SHA256SUMS").write_text(outputs.sums_text(sums))
    assert check(out, embedded.replay).status == "verified"


def test_another_page_is_named(copied):
    out = copied("jsonl")
    (out / "TRAINING.md").write_text("shuffle all of it")
    sums = outputs.parse_sums((out / "SHA256SUMS").read_text())
    sums["TRAINING.md"] = outputs.hash_file(str(out / "TRAINING.md"))[0]
    (out / "SHA256SUMS").write_text(outputs.sums_text(sums))
    assert ["TRAINING.md", None, "is not the page that belongs to export.json"] in map(list, problems(out))


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda header: header["totals"].update(lines=1), r"totals\.lines is 1, but its files add up to"),
        (lambda header: header.pop("parent"), "'parent' is a required property"),
        (lambda header: header.update(to="csv"), "to is 'csv', which is none of jsonl, parquet"),
        (lambda header: next(iter(header["files"].values())).update(lines=1), "totals.lines is"),
        (
            lambda header: header["files"].update({"../x.jsonl.zst": {**header["totals"], "sha256": "0" * 64}}),
            "no file",
        ),
    ],
)
def test_a_damaged_header_is_told(copied, change, phrase):
    out = copied("jsonl")
    header = header_of(out)
    change(header)
    io.write_json(str(out / "export.json"), header)
    with pytest.raises(VerificationError) as error:
        check(out)
    listed = error.value.summary.tables[-1].rows
    assert any(phrase.replace("\\", "") in what for _, _, what in listed)
    (out / "export.json").write_text("{")
    assert ["export.json", None, "is not valid JSON"] in map(list, problems(out))
    (out / "export.json").unlink()
    assert ["export.json", None, "is missing"] in map(list, problems(out))


def test_counts_that_a_forger_forgot_are_told(copied):
    out = copied("jsonl-ids")
    file = plays_files(out)[0]
    reseal_export(out, lambda header: header["files"][file].update(lines=1))
    assert any("plays, but export.json says 1" in what for _, _, what in problems(out))
    reseal_export(out, lambda header: header["files"][file].update(tokens=1))
    assert any("token ids, but export.json says 1" in what for _, _, what in problems(out))


# Files that can't be read


@pytest.mark.parametrize("seed", range(8))
@FORMATS
def test_what_is_left_of_a_file_is_read_or_refused(copied, embedded, name, seed):
    """Whatever bytes a forger leaves: the plays are those of the manifest, or something is named."""
    rng, out = random.Random(f"{name} {seed}"), copied(name)
    format = EXPORTS[header_of(out)["to"]]
    whole = list(format.read(str(out / plays_files(out)[0])))
    file = rng.choice([path for path in header_of(out)["files"] if path.startswith(plays_files(out)[0].split(".")[0])])
    data = bytearray((out / file).read_bytes())
    at = rng.randrange(len(data))
    kind = seed % 4
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data += data[: rng.randrange(1, len(data))]
    else:
        data[at : at + 9] = rng.randbytes(9)
    (out / file).write_bytes(data)
    reseal_export(out)
    try:
        check(out, embedded.replay)
    except VerificationError:
        return
    assert told(list(format.read(str(out / plays_files(out)[0])))) == told(whole)


def told(records):
    """What the manifest can tell of plays: of token ids their number."""
    return [{key: len(value) if key == "input_ids" else value for key, value in record.items()} for record in records]


# What was left out


@pytest.fixture(scope="module")
def shortened(embedded, tmp_path_factory):
    """Two samples to leave out, and the list that names them."""
    names = list(dict.fromkeys(name for name, _ in embedded.plays))
    path = tmp_path_factory.mktemp("lists") / "list"
    path.write_text("\n".join(names[1:3]) + "\nnobody\n")
    return names[1:3], str(path)


@FORMATS
def test_what_was_left_out_is_allowed(embedded, shortened, tmp_path, name):
    to, ids = name.removesuffix("-ids"), name.endswith("-ids")
    out = make(embedded.replay, tmp_path / "out", to, ids=ids, exclude=shortened[1])
    assert check(out, embedded.replay).status == "verified"
    assert check(out, embedded.replay, exclude=shortened[1]).status == "verified"
    (tmp_path / "other").write_text("somebody\n")
    (found,) = problems(out, embedded.replay, exclude=str(tmp_path / "other"))
    assert found[2] == "excluded.entries_sha256 is not that of the list"
    with pytest.raises(UsageError, match=r"--exclude .*nowhere: can't be read"):
        check(out, embedded.replay, exclude=str(tmp_path / "nowhere"))


def test_plays_without_names_are_checked_by_the_list_and_it_is_said_where_they_are_not(embedded, shortened, tmp_path):
    out = make(embedded.replay, tmp_path / "out", "megatron", exclude=shortened[1])
    told = check(out, embedded.replay)
    assert told.table("Checks").rows[-1][1:] == ["not checked: what was left out is not known", "-"]
    (warning,) = told.warnings
    assert warning.endswith("export was given --exclude; give verify the same list by --exclude")
    sure = check(out, embedded.replay, exclude=shortened[1])
    assert (sure.table("Checks").rows[-1][2], sure.warnings) == ("ok", [])


def test_documents_that_a_list_names_by_their_text_are_not_known_where_plays_have_no_names(tmp_path, tiny_lm):
    tmp_path.joinpath("embedded").mkdir()
    built = build_embedded(tmp_path / "embedded", tiny_lm)
    text = json.loads((built.corpus / "1.jsonl").read_text().splitlines()[-1])["text"]
    (tmp_path / "list").write_text(content_hash(text.encode()).hex() + "\n")
    out = make(built.replay, tmp_path / "out", "megatron", exclude=str(tmp_path / "list"))
    assert header_of(out)["excluded"]["lines"] > 1
    told = check(out, built.replay, exclude=str(tmp_path / "list"))
    assert told.status == "verified"
    assert "with hashes of documents, which no manifest has" in told.warnings[0]


def test_what_a_list_names_of_shards_that_nothing_plays_stands_for_nothing_that_is_played(tmp_path, tiny_lm):
    tmp_path.joinpath("embedded").mkdir()
    built = build_embedded(tmp_path / "embedded", tiny_lm)
    unplayed = silence(built.replay, 0)
    text = json.loads((built.corpus / "1.jsonl").read_text().splitlines()[-1])["text"]
    (tmp_path / "list").write_text("\n".join([content_hash(text.encode()).hex(), *unplayed]) + "\n")
    out = make(built.replay, tmp_path / "out", "megatron", exclude=str(tmp_path / "list"))
    assert 0 < header_of(out)["excluded"]["samples"] <= len(unplayed)
    told = check(out, built.replay, exclude=str(tmp_path / "list"))
    assert told.status == "verified"
    assert "with hashes of documents, which no manifest has" in told.warnings[0]


def silence(replay, shard_id):
    """Let nothing of a shard be played; returns the names of its samples."""
    names = []

    def change(rows):
        for row in rows:
            names.append(row["sample_id"])
            row["repeat"] = 0

    change_samples(replay, shard_id, change)
    shards = pq.read_table(replay / "shards.parquet").to_pylist()
    shards[shard_id] |= {"replay_tokens": 0, "visits": []}
    io.write_parquet(str(replay / "shards.parquet"), pa.Table.from_pylist(shards, REPLAY_SHARDS.append(VISITS)))
    visits = [visit for shard in shards for visit in shard["visits"]]

    def totals(header):
        header["totals"] |= {key: sum(sum(visit[of]) for visit in visits) for key, of in TALLIED.items()}

    reseal(replay, totals)
    return names


def test_whole_documents_may_be_left_out_by_their_text(tmp_path, tiny_lm, monkeypatch):
    tmp_path.joinpath("embedded").mkdir()
    monkeypatch.undo()
    built = build_embedded(tmp_path / "embedded", tiny_lm)
    monkeypatch.setattr("cptsel.pipeline.verification.scratch.Steps", InlineSteps)
    lines = (built.corpus / "1.jsonl").read_text().splitlines()
    text = json.loads(lines[-1])["text"]
    (tmp_path / "list").write_text(content_hash(text.encode()).hex() + "\n")
    out = make(built.replay, tmp_path / "out", "jsonl", exclude=str(tmp_path / "list"))
    assert header_of(out)["excluded"]["lines"] > 1
    assert check(out, built.replay, exclude=str(tmp_path / "list")).status == "verified"


def test_more_than_was_left_out_is_named(embedded, shortened, tmp_path):
    out = make(embedded.replay, tmp_path / "out", "jsonl", exclude=shortened[1])
    played = {}
    for file in plays_files(out):
        for record in EXPORTS["jsonl"].read(str(out / file)):
            played.setdefault(record["sample_id"], []).append(file)
    by_document = {}
    for file in plays_files(out):
        for record in EXPORTS["jsonl"].read(str(out / file)):
            by_document.setdefault((record["shard"], record["row"]), set()).add(record["sample_id"])
    often = next(name for name, files in played.items() if len(files) > 1)
    partly = shutil.copytree(out, tmp_path / "partly")
    rewrite(partly, played[often][0], lambda records: drop(records, often))
    reseal_export(partly)
    assert any("a play is missing" in what or "is expected here" in what for _, _, what in problems(
        partly, embedded.replay
    ))  # fmt: skip
    victim = next(iter(next(names for names in by_document.values() if len(names) > 1)))
    for file in set(played[victim]):
        rewrite(out, file, lambda records: drop(records, victim))
    reseal_export(out)
    assert any("excluded.lines is" in what for _, _, what in problems(out, embedded.replay))
    tokens = {row["sample_id"]: row["n_tokens"] for row in rows_of(embedded.replay)}[victim]

    def cover_up(header):
        gone = len(played[victim])
        header["excluded"]["lines"] += gone
        header["excluded"]["tokens"] += gone * tokens
        header["excluded"]["samples"] += 1
        for file in played[victim]:
            header["files"][file]["tokens"] -= tokens

    reseal_export(out, cover_up)
    assert check(out, embedded.replay).status == "verified"  # as far as the counts allow
    assert any(f"sample {victim} is not played, and the list does not" in what for _, _, what in problems(
        out, embedded.replay, exclude=shortened[1]
    ))  # fmt: skip


def drop(records, name):
    records[:] = [record for record in records if record["sample_id"] != name]


def rows_of(replay):
    manifest = load_manifest(str(replay))
    return [row for name in manifest.sample_files().values() for row in manifest.table(name).to_pylist()]


# Mixes with a new corpus


@pytest.fixture(scope="module")
def phased(tmp_path_factory):
    """Two phases, with a share of replay each."""
    folder = tmp_path_factory.mktemp("phased")
    return recommending(build_replay(folder, shards=3, documents=4, phases=2), folder / "recommending", 0.1, 0.25)


MIXED = [to for to, format in EXPORTS.items() if format.mixes and format.writes_text and not format.refers]
BLENDED = [to for to, format in EXPORTS.items() if format.blends()]


def mixed(replay, out, to, **options):
    return make(replay, out, to, new_corpus="/EXPORT/new", **options)


def blends_of(out):
    return [out / name for name in header_of(out)["files"] if Path(name).name in EXPORTS[header_of(out)["to"]].blends()]


@pytest.mark.parametrize("to", MIXED)
@pytest.mark.parametrize("options", [{}, {"mix_fraction": 0.2}])
def test_mixes_pass(phased, tmp_path, to, options):
    out = mixed(phased, tmp_path / "out", to, **options)
    for replay in (None, phased):
        assert check(out, replay).status == "verified"


@pytest.mark.parametrize("to", BLENDED)
def test_a_blend_that_a_forger_changed_is_named(embedded, tmp_path, to):
    """It is held to the header, wherever the export lies now; the path in it is that of --out."""
    out = mixed(embedded.replay, tmp_path / "out", to, mix_fraction=0.125)
    out = out.rename(tmp_path / "moved")
    assert check(out, embedded.replay).status == "verified"
    (blend,) = blends_of(out)
    whole = blend.read_text()
    changes = [("0.875", "0.5"), ("/EXPORT/new", "/other"), (f"{tmp_path}/out", "out"), ("\n", "\n\n"), ("/data", "/x")]
    for old, new in changes:
        assert old in whole
        blend.write_text(whole.replace(old, new, 1))
        reseal_export(out)
        name = str(blend.relative_to(out))
        assert [list(found) for found in problems(out)] == [[name, None, "does not mix as export.json says"]]
    blend.write_bytes(whole.encode().replace(b"/out", b"/\xff", 1))
    reseal_export(out)
    assert "does not mix as" in problems(out)[0][2]
    blend.unlink()
    reseal_export(out)
    assert f"does not list {blend.relative_to(out)}" in [what for _, _, what in problems(out)]


def test_what_the_header_says_of_mixing_is_held_to_its_files(phased, embedded, copied, tmp_path):
    out = copied("mds")
    (out / "data/streams.yaml").write_text("streams: {}\n")
    reseal_export(out)
    assert "lists data/streams.yaml, though nothing is mixed there" in problems(out)[0][2]
    out = mixed(phased, tmp_path / "out", "mds")
    whole = header_of(out)["mix"]
    first, second = sorted(whole)
    for mix, words in [
        ({first: whole[first]}, f"mixes {first}, but the datasets are {first}, {second}"),
        ({first: whole[first], second: {**whole[second], "new_corpus": "/b"}}, "mixes with several new corpora"),
        ({key: {**value, "new_corpus": "a b"} for key, value in whole.items()}, "mixes with a corpus that files of"),
    ]:
        io.write_json(str(out / "export.json"), header_of(out) | {"mix": mix})
        for replay in (None, phased):
            assert any(words in what for _, _, what in problems(out, replay))
    io.write_json(str(out / "export.json"), header_of(out) | {"mix": {first: {"new_corpus": "/a", "fraction": 1.5}}})
    assert problems(out)[0][0] == "export.json"
    none = copied("uids")
    mix = {"data": {"new_corpus": "/a", "fraction": 0.5}}
    io.write_json(str(none / "export.json"), header_of(none) | {"mix": mix})
    assert any("mixes data, but" in what for _, _, what in problems(none, embedded.replay))


def test_shares_of_phases_are_the_manifests(phased, tmp_path):
    out = mixed(phased, tmp_path / "out", "mds")

    def change(header):
        header["mix"]["data/phase-001"]["fraction"] = 0.5
        write_blends(EXPORTS["mds"], str(out), mixes_of(header))

    reseal_export(out, change)
    reseal_export(out)
    assert check(out).status == "verified"
    assert [list(found) for found in problems(out, phased)] == [
        ["export.json", None, "mixes data/phase-001 by 0.5, but the manifest gives 0.25"]
    ]


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
