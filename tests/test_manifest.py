"""A manifest is finished deterministically, opened safely, and CONSUMING.md tells the truth."""

import hashlib
import itertools
import json
import re
import subprocess
from collections import Counter

import pytest
from manifest_builder import FORMATS, build_replay, reseal

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.consuming import consuming_page
from cptsel.pipeline.artifacts.manifest import load_manifest, manifest_id, source_uri
from cptsel.pipeline.artifacts.writing import check_apart, writing
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig


def begin(out, command, config_yaml, overwrite):
    """As a command that was killed after it had begun."""
    with writing(out, command, overwrite=overwrite) as output:
        output.begin(config_yaml)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_replay(tmp_path_factory.mktemp("manifest"))


def test_header_is_what_load_gives_back(built):
    manifest = load_manifest(str(built.replay))
    assert manifest.header == built.header
    assert manifest.manifest_id == built.header["manifest_id"]
    assert sorted(manifest.sample_files()) == sorted({s["shard_id"] for s in built.samples})
    assert manifest.schedule_files() == {}
    assert manifest.shards().num_rows == built.header["totals"]["shards"]


def test_equal_inputs_give_equal_bytes_and_ids(tmp_path):
    (tmp_path / "a").mkdir()
    first = build_replay(tmp_path / "a")
    kept = {name: (first.replay / name).read_bytes() for name in outputs.list_tree(str(first.replay))}
    (first.replay).rename(tmp_path / "a" / "elsewhere")
    second = build_replay(tmp_path / "a")
    assert kept == {name: (second.replay / name).read_bytes() for name in outputs.list_tree(str(second.replay))}


def test_manifest_id_is_the_canonical_hash(built):
    """An independent canonicaliser: for ASCII keys and these numbers RFC 8785 is sorted, compact json.dumps."""
    header = {"b": [1, 2.5, None], "a": {"z": "ü", "y": True}, "manifest_id": "ignored"}
    text = '{"a":{"y":true,"z":"ü"},"b":[1,2.5,null]}'
    assert manifest_id(header) == hashlib.sha256(text.encode()).hexdigest()


def test_sha256sum_accepts_the_directory_and_every_file_is_covered(built):
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=built.replay, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    listed = {line.rsplit(": ", 1)[0] for line in done.stdout.splitlines()}
    assert listed == set(outputs.list_tree(str(built.replay))) - outputs.UNSUMMED


def test_nothing_in_the_manifest_names_its_own_place(built):
    text = (built.replay / "manifest.json").read_text()
    assert str(built.replay) not in text


def example(directory, monkeypatch):
    """The names that the example of CONSUMING.md defines when it is run in the directory."""
    (code,) = re.findall(r"```python\n(.*?)```", (directory / "CONSUMING.md").read_text(), re.DOTALL)
    monkeypatch.chdir(directory)
    names: dict = {}
    exec(compile(code, "CONSUMING.md", "exec"), names)
    return names


@pytest.mark.parametrize("curriculum", [False, True])
@pytest.mark.parametrize("phases", [1, 2])
@pytest.mark.parametrize("realisation", ["repeat", "loss", "none"])
def test_consuming_example_yields_exactly_the_plays_in_order(
    tmp_path, monkeypatch, capsys, realisation, phases, curriculum
):
    shards = len(FORMATS)
    built = build_replay(tmp_path, shards=shards, realisation=realisation, phases=phases, curriculum=curriculum)
    replay = example(built.replay, monkeypatch)["replay"]
    for phase in range(phases):
        expected = [(s["sample_id"], s["text"]) for _, s, _ in built.sequence(phase)]
        found = list(replay(phase))
        assert [(row["sample_id"], text) for text, _, row in found] == expected
        factors = {row["sample_id"]: factor for _, factor, row in found}
        for s in built.samples:
            if s["phase"] == phase and s["repeat"]:
                assert factors[s["sample_id"]] == (s["loss_weight"] if realisation == "loss" else 1.0)
    tokens = sum(s["n_tokens"] for _, s, _ in built.sequence(0))
    assert capsys.readouterr().out.startswith(f"{tokens} tokens of phase 0")


@pytest.mark.parametrize("realisation", ["repeat", "loss"])
def test_consuming_example_follows_the_schedule(tmp_path, monkeypatch, realisation):
    built = build_replay(tmp_path, realisation=realisation, phases=2)
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "ordered"), epochs=2, world_size=3))
    replay = example(tmp_path / "ordered", monkeypatch)["replay"]
    for phase, epoch in itertools.product(range(2), range(2)):
        found = [(row["sample_id"], text) for rank in range(3) for text, _, row in replay(phase, epoch, rank)]
        assert sorted(found) == sorted((s["sample_id"], s["text"]) for _, s, _ in built.sequence(phase))


def test_consuming_example_draws_in_proportion_to_weight(tmp_path, monkeypatch):
    built = build_replay(tmp_path, realisation="sampling", phases=2)
    replay = example(built.replay, monkeypatch)["replay"]
    for phase in range(2):
        samples = {s["sample_id"]: s for s in built.samples if s["phase"] == phase}
        found = [play for epoch in range(60) for play in replay(phase, epoch)]
        assert all(samples[row["sample_id"]]["text"] == text and factor == 1 for text, factor, row in found)
        requested = built.header["phases"][phase]["replay_tokens"]["requested"]
        assert 0 <= sum(row["n_tokens"] for _, _, row in replay(phase)) - requested < 8
        drawn, weight = Counter(row["sample_id"] for _, _, row in found), sum(s["weight"] for s in samples.values())
        for key, s in samples.items():
            rate = s["weight"] / weight
            assert abs(drawn[key] - rate * len(found)) < 5 * (len(found) * rate) ** 0.5 + 1


def test_consuming_says_how_to_estimate_totals_from_a_prefix(built):
    page = " ".join((built.replay / "CONSUMING.md").read_text().split())
    assert "sum value / min(1, `q` / τ) over the first k" in page  # held in test_shard_order, over many seeds


def test_consuming_page_is_one_page_and_fully_filled_in(built):
    page = (built.replay / "CONSUMING.md").read_text()
    assert "$" not in page
    assert built.header["manifest_id"] in page
    assert len(page.splitlines()) < 205


@pytest.mark.parametrize(
    ("bos", "phrase"),
    [("bos", "BOS stood before each window"), ("eos", "EOS stood before"), ("none", "its first token does not count")],
)
def test_consuming_page_says_what_stood_before_windows(built, bos, phrase):
    header = {**built.header, "provenance": {**built.header["provenance"], "model": {"bos": bos}}}
    assert phrase in consuming_page(header)


def test_consuming_page_does_not_take_a_pool_for_the_corpus(built):
    totals = built.header["totals"]
    tokens = totals["population_tokens"]
    assert f"(the corpus has {tokens:,})" in consuming_page(built.header)
    pooled = {**built.header, "totals": {**totals, "population_mass": 50.0 * tokens}}
    assert f"the embedded pool has {tokens:,}, which stand for about {50 * tokens:,} of" in consuming_page(pooled)


def test_source_uri_maps_to_a_moved_corpus():
    shard = {"uri": "gs://bucket/c/a/x.jsonl", "path": "a/x.jsonl"}
    assert source_uri(shard, None) == "gs://bucket/c/a/x.jsonl"
    assert source_uri(shard, "/mnt/c") == "/mnt/c/a/x.jsonl"


@pytest.mark.parametrize(
    ("change", "error", "phrase"),
    [
        (lambda h: h.update(format="other"), UsageError, "format is 'other'"),
        (lambda h: h.update(spec_version=2), UsageError, "spec_version 2 is newer"),
        (lambda h: h.update(required_features=["teleport"]), UsageError, "needs teleport"),
        (lambda h: h.update(phases=[]), VerificationError, "phases"),
        (lambda h: h["totals"].update(plays=1), VerificationError, "manifest_id does not match"),
    ],
)
def test_load_refuses_what_it_must_not_read(tmp_path, change, error, phrase):
    built = build_replay(tmp_path, shards=1)
    path = built.replay / "manifest.json"
    header = json.loads(path.read_text())
    change(header)
    path.write_text(json.dumps(header))
    with pytest.raises(error, match=phrase):
        load_manifest(str(built.replay))


def test_load_ignores_unknown_optional_fields(tmp_path):
    built = build_replay(tmp_path, shards=1)
    reseal(built.replay, lambda header: header.update(colour="blue"))
    assert load_manifest(str(built.replay)).header["colour"] == "blue"


def test_load_refuses_unfinished_and_foreign_directories(tmp_path):
    built = build_replay(tmp_path, shards=1)
    (built.replay / "_SUCCESS").unlink()
    with pytest.raises(UsageError, match="not finished"):
        load_manifest(str(built.replay))
    with pytest.raises(UsageError, match="not a replay manifest: it has no"):
        load_manifest(str(built.corpus))
    for maker, phrase in (("export", "cptsel export wrote it; name"), ("order", "order wrote it and has not finished")):
        outputs.write_config(str(tmp_path / maker), maker, "")
        with pytest.raises(UsageError, match=f"not a replay manifest: .*{phrase}"):
            load_manifest(str(tmp_path / maker))


def test_outputs_are_replaced_only_when_they_are_this_commands_own(tmp_path):
    out = str(tmp_path / "out")
    begin(out, "order", "seed: 1\n", overwrite=False)
    (tmp_path / "out" / "samples").mkdir()
    for half in ("samples/000000.parquet", "samples/.000001.parquet.0123456789ab.tmp"):
        (tmp_path / "out" / half).write_bytes(b"x")
    begin(out, "order", "seed: 2\n", overwrite=False)  # unfinished: begun anew
    assert outputs.list_tree(out) == ["config.yaml"]
    assert "seed: 2" in (tmp_path / "out" / "config.yaml").read_text()
    (tmp_path / "out" / "_SUCCESS").write_bytes(b"")
    with pytest.raises(UsageError, match="pass --overwrite or another --out"):
        begin(out, "order", "", overwrite=False)
    with pytest.raises(UsageError, match="written by cptsel order, not by select"):
        begin(out, "select", "", overwrite=True)
    begin(out, "order", "seed: 3\n", overwrite=True)
    assert outputs.list_tree(out) == ["config.yaml"]


def test_foreign_files_are_never_deleted(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for name in (None, "config.yaml"):
        if name:
            (tmp_path / name).write_text("# somebody's own\n")
        with pytest.raises(UsageError, match="did not write"):
            begin(str(tmp_path), "select", "", overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("name", ["mine/notes.txt", "samples/notes.txt", "data/thesis.tex", "schedule/plan.parquet"])
@pytest.mark.parametrize("command", ["select", "order", "export"])
def test_files_put_beside_an_output_are_never_deleted(tmp_path, command, name, finished):
    begin(str(tmp_path), command, "", overwrite=False)
    if finished:
        (tmp_path / "_SUCCESS").write_bytes(b"")
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("years of work")
    with pytest.raises(UsageError, match=f"holds {name}, which cptsel {command} did not write"):
        begin(str(tmp_path), command, "", overwrite=True)
    assert (tmp_path / name).read_text() == "years of work"


def test_an_output_in_or_around_the_input_is_refused(tmp_path):
    source = tmp_path / "a"
    (source / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(source)
    for out in (source, source / "b", tmp_path, tmp_path / "link", tmp_path / "link/b"):
        with pytest.raises(UsageError, match="choose another --out"):
            check_apart(str(out), str(source))
    check_apart(str(tmp_path / "ab"), str(source))
    check_apart("gs://bucket/a", "gs://bucket/ab")
    with pytest.raises(UsageError, match="lies inside"):
        check_apart("gs://bucket/a/b", "gs://bucket/a/")


_LINE = "0" * 64 + "  "


@pytest.mark.parametrize(
    "text",
    ["", "zz  a\n", "0" * 64 + " a\n", _LINE + "\n", (_LINE + "a\n") * 2, _LINE + "a", f"{_LINE}b\n{_LINE}a\n"]
    + [f"{_LINE}a\n{_LINE}b{end}" for end in ("\v", "\n\n")],
)
def test_damaged_sums_are_an_error(text):
    with pytest.raises(ValueError, match="line"):
        outputs.parse_sums(text)


def test_sums_round_trip():
    sums = {"b/c d.parquet": "1" * 64, "a": "2" * 64}
    assert outputs.parse_sums(outputs.sums_text(sums)) == sums


def test_the_size_of_a_missing_file_is_a_clear_error(monkeypatch, tmp_path):
    monkeypatch.setattr(io, "match", lambda pattern: [])
    for path in ("gs://bucket/absent", str(tmp_path / "absent")):
        with pytest.raises(FileNotFoundError, match="absent"):
            io.size(path)
