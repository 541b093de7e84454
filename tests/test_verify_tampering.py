"""What ``verify`` says of an export that was tampered with: the file and the play are named."""

import json
import random

import pytest
from export_checks import FORMATS, check, make, problems
from export_tampering import header_of, plays_files, reseal_export, rewrite
from manifest_builder import build_replay

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.errors import VerificationError
from cptsel.pipeline.exports import page, pieces, plan
from cptsel.pipeline.exports.registry import EXPORTS

pytestmark = pytest.mark.usefixtures("checks_without_beam")
UNWATCHED = {"config.yaml", "stats.json", "_SUCCESS"}  # which may say anything, or hold anything


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
