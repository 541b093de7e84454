"""Every export format holds the plays of the manifest, in their order; those with token ids hold what was embedded."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_from_disk
from export_readers import read_datatrove, read_mds, read_megatron, read_olmo, read_webdataset
from manifest_builder import build_replay, recommending
from transformers import AutoTokenizer

from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.errors import BadInputError, UsageError, VerificationError
from cptsel.pipeline.export import export
from cptsel.pipeline.exports import mds
from cptsel.pipeline.exports import plan as export_plan
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.exports.lines import read_lines
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig

TEXT = {"hf": lambda folder: load_from_disk(str(folder)).to_list(), "mds": read_mds, "webdataset": read_webdataset}
FIELDS = ("sample_id", "text", "repeat", "group", "weight", "loss_weight")


def exported(replay, out, to, **options):
    """Its directory, once it is written."""
    export(ExportConfig(replay=str(replay), out=str(out), to=to, **options), make_steps=InlineSteps)
    return Path(out)


def expected(built, phase=None):
    """Plays without a schedule, as FIELDS."""
    return [
        (s["sample_id"], s["text"], number, s["group"], s["weight"], s["loss_weight"] if weighs(built) else 1.0)
        for _, s, number in built.sequence(phase)
    ]


def weighs(built):
    return built.header["weighting"]["realisation"] == "loss"


def fields(plays):
    return [tuple(play[name] for name in FIELDS) for play in plays]


def scheduled(replay, epoch):
    """(shard, pass) of an epoch's visits in the common order of all ranks."""
    rows = pq.read_table(replay / f"schedule/0-{epoch}.parquet").sort_by("order").to_pylist()
    return [(row["shard_id"], row["pass"]) for row in rows]


@pytest.mark.parametrize("realisation", ["repeat", "loss"])
@pytest.mark.parametrize("curriculum", [False, True])
@pytest.mark.parametrize("to", TEXT)
def test_plays_by_phase_in_order(tmp_path, monkeypatch, to, curriculum, realisation):
    """In files that are made so small here that there are several."""
    monkeypatch.setattr(export_plan, "PART_PLAYS", 30)
    monkeypatch.setattr("cptsel.pipeline.exports.pieces.PART_PLAYS", 30)
    built = build_replay(
        tmp_path, shards=4, documents=8, phases=2, realisation=realisation, curriculum=curriculum, keep=0.9
    )
    out = exported(built.replay, tmp_path / "out", to)
    for phase in (0, 1):
        folder = out / f"data/phase-{phase:03d}"
        assert fields(TEXT[to](folder)) == expected(built, phase)
        assert len(list(folder.glob(f"*{EXPORTS[to].suffix}"))) > 1
    header = json.loads((out / "export.json").read_text())
    assert set(header["files"]) == {name for name in outputs.list_tree(str(out)) if name.startswith("data/")}
    assert header["fidelity"] == "exact"


@pytest.mark.parametrize("to", TEXT)
def test_ranks_are_joined_in_their_common_order(tmp_path, to):
    built = build_replay(tmp_path, shards=5, documents=8)
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "ordered"), epochs=2, world_size=2))
    out = exported(tmp_path / "ordered", tmp_path / "out", to)
    of_visit = {}
    for _, sample, number in built.sequence():
        of_visit.setdefault((sample["shard_id"], number), []).append((sample["sample_id"], number))
    for epoch in (0, 1):
        plays = [(play["sample_id"], play["repeat"]) for play in TEXT[to](out / f"data/epoch-{epoch:03d}")]
        assert plays == [play for visit in scheduled(tmp_path / "ordered", epoch) for play in of_visit[visit]]
    assert "common order" in (out / "TRAINING.md").read_text()


LINES = {
    "ms-swift": ("messages", lambda text, weight: [{"role": "assistant", "content": text, "loss_scale": weight}]),
    "llamafactory-v1": (
        "messages",
        lambda text, weight: [
            {"role": "assistant", "content": [{"type": "text", "value": text}], "loss_weight": weight}
        ],
    ),
    "llamafactory": ("text", lambda text, weight: text),
}


@pytest.mark.parametrize("realisation", ["repeat", "loss"])
@pytest.mark.parametrize("to", LINES)
def test_lines_of_trainers_that_take_messages(tmp_path, to, realisation):
    built = build_replay(tmp_path, shards=4, phases=2, realisation=realisation, curriculum=True, keep=0.9)
    if realisation not in ("repeat", *EXPORTS[to].weighs):
        with pytest.raises(UsageError, match="take no weight a sample"):
            exported(built.replay, tmp_path / "out", to)
        return
    out, (field, content) = exported(built.replay, tmp_path / "out", to), LINES[to]
    for phase in (0, 1):
        lines = (out / f"data/phase-{phase:03d}/replay.jsonl").read_text().splitlines()
        found = [(line["sample_id"], line["repeat"], line[field]) for line in map(json.loads, lines)]
        assert found == [
            (name, number, content(text, loss_weight))
            for name, text, number, _, _, loss_weight in expected(built, phase)
        ]


def test_draws_are_refused_where_a_trainer_only_weighs(tmp_path):
    built = build_replay(tmp_path, realisation="sampling")
    with pytest.raises(UsageError, match="a loss weight a sample, and do not draw by weights"):
        exported(built.replay, tmp_path / "out", "ms-swift")


@pytest.mark.parametrize("to", ["hf", "megatron"])
def test_equal_bytes_with_two_workers(embedded, tmp_path, to):
    config = ExportConfig(replay=str(embedded.replay), out=str(tmp_path / "2"), to=to, workers=2)
    export(config)
    found = [exported(embedded.replay, tmp_path / "1", to), tmp_path / "2"]
    trees = [
        {
            name: (out / name).read_bytes()
            for name in outputs.list_tree(str(out))
            if name not in ("stats.json", "config.yaml")
        }
        for out in found
    ]
    assert trees[0] == trees[1]
    assert any(name.startswith("data/") for name in trees[0])


def test_token_ids_are_those_of_the_whole_document(embedded, tiny_lm, tmp_path):
    eos = AutoTokenizer.from_pretrained(tiny_lm).eos_token_id
    ended = [[*ids, eos] for _, ids in embedded.plays]
    assert read_megatron(exported(embedded.replay, tmp_path / "megatron", "megatron") / "data") == ended
    assert read_datatrove(exported(embedded.replay, tmp_path / "nanotron", "nanotron") / "data") == ended
    names = [name for name, _ in embedded.plays]
    assert read_olmo(exported(embedded.replay, tmp_path / "olmo", "olmo") / "data") == list(
        zip(names, ended, strict=True)
    )


@pytest.mark.parametrize("to", ["parquet", "hf", "jsonl"])
def test_token_ids_stand_beside_the_text(embedded, tmp_path, to):
    data = exported(embedded.replay, tmp_path / "out", to, ids=True) / "data"
    if to == "hf":
        rows = load_from_disk(str(data)).to_list()
    elif to == "parquet":
        rows = [row for path in sorted(data.glob("*")) for row in pq.read_table(path).to_pylist()]
    else:
        rows = [json.loads(line) for path in sorted(data.glob("*")) for line in read_lines(path.read_bytes())]
    assert [(row["sample_id"], row["input_ids"]) for row in rows] == embedded.plays
    assert all(row["text"] for row in rows)


def test_another_tokenizer_is_refused(embedded, tiny_lm, tmp_path):
    other = tmp_path / "other"
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    tokenizer.add_tokens(["replay"])
    tokenizer.save_pretrained(other)
    with pytest.raises(UsageError, match="not the tokenizer that the corpus was embedded with"):
        exported(embedded.replay, tmp_path / "out", "megatron", tokenizer=str(other))
    with pytest.raises(UsageError, match=r"--tokenizer .*nowhere is not there; name a folder"):
        exported(embedded.replay, tmp_path / "out", "olmo", tokenizer=str(tmp_path / "nowhere"))


def test_what_a_format_cannot_hold_is_refused(embedded, tmp_path):
    with pytest.raises(UsageError, match="--to mds holds no token ids; leave out --ids, or use one of jsonl"):
        exported(embedded.replay, tmp_path / "out", "mds", ids=True)
    with pytest.raises(UsageError, match="writes text; leave out --tokenizer, or add --ids"):
        exported(embedded.replay, tmp_path / "out", "hf", tokenizer="x")
    built = build_replay(tmp_path, realisation="loss")
    with pytest.raises(UsageError, match=r"take no weight a sample, and .* realises weights by 'loss'"):
        exported(built.replay, tmp_path / "out", "megatron")
    assert not (tmp_path / "out").exists()


def test_a_changed_document_stops_token_ids(embedded, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in embedded.corpus.iterdir():
        (moved / path.name).write_text(path.read_text().replace("words of a document", "words of a documenT"))
    with pytest.raises(VerificationError, match=r"is not the text that was embedded|becomes other tokens"):
        exported(embedded.replay, tmp_path / "out", "megatron", root=str(moved))


def test_uids_are_sorted_pairs_of_64_bits(tmp_path):
    """As DataComp makes them: np.array([(int(uid[:16], 16), int(uid[16:32], 16)) ...], "u8,u8"), sorted."""
    path, names = tmp_path / "replay.npy", ["ff" * 16, "0" * 15 + "a" + "f" * 16, "0A" * 16, "ff" * 16]
    records = [{"id": name, "shard": "a.jsonl", "row": row} for row, name in enumerate(names)]
    assert EXPORTS["uids"].write(str(path), records, None) == [str(path)]
    found = np.load(path)
    made = np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in set(names)], np.dtype("u8,u8"))
    made.sort()
    assert found.dtype == made.dtype
    assert (found == made).all()
    assert len(found) == 3


def test_uids_that_are_none_are_refused(tmp_path):
    built = build_replay(tmp_path)
    with pytest.raises(
        BadInputError, match=r"part-00\.jsonl: row 0 has the doc_id 'part-00/0', and --to uids takes 32 hex"
    ):
        exported(built.replay, tmp_path / "out", "uids")


@pytest.mark.parametrize("to", [to for to, format in EXPORTS.items() if not format.refers])
def test_the_page_tells_what_to_do_and_what_is_lost(embedded, tmp_path, to):
    out = exported(embedded.replay, tmp_path / "out", to)
    page, header = (out / "TRAINING.md").read_text(), json.loads((out / "export.json").read_text())
    assert header["parent"] in page
    assert header["instructions"] in page
    assert all(sentence in page for sentence in header["loses"])
    assert ("each once and whole" in page) == EXPORTS[to].joins
    assert not any("{" + field + "}" in page for field in ("folder", "new", "share", "rest", "file"))
    trainers = EXPORTS[to].trainers  # it was written without --ids
    assert [one.name for one in trainers if f"\n## {one.name}\n" in page] == [
        one.name for one in trainers if one.needs != "input_ids"
    ]
    assert f"{len(embedded.plays):,}" in page


@pytest.mark.parametrize("to", ["hf", "megatron"])
def test_another_format_replaces_an_export_whole(embedded, tmp_path, to):
    out = exported(embedded.replay, tmp_path / "out", "mds")
    exported(embedded.replay, out, to, overwrite=True)
    assert not list(out.rglob("*.mds"))
    assert not (out / "data/index.json").exists()


def test_a_shard_that_mds_can_not_hold_is_refused(embedded, tmp_path, monkeypatch):
    monkeypatch.setattr(mds, "_LIMIT", 1000)
    with pytest.raises(UsageError, match=r"part-000000\.mds: would have .* bytes, and an MDS shard holds less than"):
        exported(embedded.replay, tmp_path / "out", "mds")


@pytest.fixture(scope="module")
def phased(tmp_path_factory):
    """Two phases, with repeats."""
    return build_replay(tmp_path_factory.mktemp("phased"), shards=3, documents=4, phases=2)


def test_a_blend_is_a_file_that_the_trainer_reads(phased, tmp_path):
    """In each phase's folder, by the phase's own share, with the paths of the two."""
    replay = recommending(phased, tmp_path / "replay", 0.1, 0.25)
    out = exported(replay, tmp_path / "out", "mds", new_corpus="/EXPORT/new")
    for phase, share in ((0, 0.1), (1, 0.25)):
        folder = out / f"data/phase-{phase:03d}"
        assert yaml.safe_load((folder / "streams.yaml").read_text())["streams"] == {
            "new": {"local": "/EXPORT/new", "proportion": 1 - share},
            "replay": {"local": str(folder), "proportion": share},
        }
    header = json.loads((out / "export.json").read_text())
    assert header["mix"]["data/phase-001"] == {"new_corpus": "/EXPORT/new", "fraction": 0.25}
    assert header["files"]["data/phase-000/streams.yaml"]["lines"] == 0
    page = (out / "TRAINING.md").read_text()
    assert "| mix for `data/phase-001` | 0.25 replay, the rest from `/EXPORT/new` |" in page
    assert "`EXPORT/data/phase-000/streams.yaml`" in page
    exported(phased.replay, out, "hf", overwrite=True)
    assert not list(out.rglob("streams.yaml"))


@pytest.mark.parametrize("to", ["megatron", "olmo", "nanotron"])
def test_a_blend_of_token_ids(embedded, tmp_path, to):
    out = exported(embedded.replay, tmp_path / "out", to, new_corpus="/data/new", mix_fraction=0.125)
    data = f"{out}/data"
    if to == "megatron":
        assert (out / "data/blend.txt").read_text() == f"0.875 /data/new 0.125 {data}/replay\n"
    elif to == "olmo":
        new, replay = yaml.safe_load((out / "data/mixture.yaml").read_text())["sources"]
        assert new == {"source_name": "new", "target_ratio": 0.875, "paths": ["/data/new"]}
        assert replay == {"source_name": "replay", "target_ratio": 0.125, "paths": [f"{data}/replay.npy"]}
    else:
        (stage,) = yaml.safe_load((out / "data/data_stages.yaml").read_text())["data_stages"]
        assert stage["data"]["dataset"] == {"dataset_folder": ["/data/new", data], "dataset_weights": [0.875, 0.125]}


def test_a_mix_without_a_share_or_a_place_is_refused(phased, tmp_path):
    refused = [
        ({"to": "mds", "new_corpus": "/new"}, "says no share of replay for phase 0; give it by --mix-fraction"),
        ({"to": "mds", "mix_fraction": 0.1}, "--mix-fraction is read with --new-corpus; leave it out"),
        ({"to": "mds", "new_corpus": "/new", "mix_fraction": 1.0}, "leaves nothing to mix; give one below 1"),
        ({"to": "mds", "new_corpus": "/a b", "mix_fraction": 0.1}, "--new-corpus '/a b': is empty or has a blank"),
        ({"to": "uids", "new_corpus": "/new", "mix_fraction": 0.1}, "--to uids is not mixed with another corpus"),
    ]
    for options, words in refused:
        with pytest.raises(UsageError, match=words):
            exported(phased.replay, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_shares_reach_the_recipes_of_trainers_without_a_file(phased, tmp_path):
    page = (
        exported(phased.replay, tmp_path / "out", "ms-swift", new_corpus="/new.jsonl", mix_fraction=0.2)
    ) / "TRAINING.md"
    assert "--dataset /new.jsonl EXPORT/data/phase-000/replay.jsonl --interleave_prob 0.8 0.2" in page.read_text()
