"""What ``verify`` says of an export that was told to leave something out."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from embedded_builder import build_embedded
from export_checks import FORMATS, check, make, problems
from export_tampering import header_of, plays_files, reseal_export, rewrite
from manifest_builder import change_samples, reseal

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.hashing import content_hash
from cptsel.schemas.arrow import REPLAY_SHARDS, VISITS

pytestmark = pytest.mark.usefixtures("checks_without_beam")
TALLIED = {"plays": "samples", "replay_tokens": "tokens"}  # totals, and what they add up of visits


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
