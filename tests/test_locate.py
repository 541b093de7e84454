"""The order of play both ways: ``locate`` finds every play by its place, and ``explain`` all places of a sample."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from manifest_builder import build_replay, change_samples, reseal

from cptsel.cli.main import main
from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.explain import explain
from cptsel.pipeline.locate import locate
from cptsel.pipeline.lookup.config import ExplainConfig, LocateConfig
from cptsel.pipeline.lookup.order import Place, places, play_at
from cptsel.pipeline.lookup.reading import Reader
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig

CASES = {
    "repeats": {},
    "losses": {"realisation": "loss"},
    "weights ignored": {"realisation": "none"},
    "a curriculum": {"curriculum": True},
    "a curriculum without repeats": {"curriculum": True, "realisation": "none"},
    "phases": {"phases": 3, "curriculum": True},
    "phases without repeats": {"phases": 3, "realisation": "none"},
}


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "-"))
def built(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("locate")
    built = build_replay(folder, shards=5, documents=5, **CASES[request.param])
    order(OrderConfig(replay=str(built.replay), out=str(folder / "ordered"), epochs=2, world_size=3))
    return built


@pytest.fixture(scope="module")
def simple(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simple")
    built = build_replay(folder, shards=3)
    order(OrderConfig(replay=str(built.replay), out=str(folder / "ordered"), epochs=2, world_size=3))
    return built


def unscheduled_plays(built):
    """Place and sample_id of every play, as CONSUMING.md has it without a schedule."""
    count = {}
    for phase, sample, number in built.sequence():
        position = count[phase] = count.get(phase, -1) + 1
        yield Place(phase, 0, 0, position, number), sample["sample_id"]


def scheduled_plays(built, ordered):
    """Place and sample_id of every play, as CONSUMING.md has it with a schedule."""
    for phase, epoch in load_manifest(str(ordered)).schedule_files():
        visits = pq.read_table(ordered / f"schedule/{phase}-{epoch}.parquet").to_pylist()
        for rank in range(3):
            position = 0
            for visit in sorted((v for v in visits if v["rank"] == rank), key=lambda v: v["position"]):
                mine = [s for s in built.samples if (s["shard_id"], s["phase"]) == (visit["shard_id"], phase)]
                for sample in sorted(mine, key=lambda s: s["order_rank"]):
                    if sample["repeat"] >= visit["pass"]:
                        yield Place(phase, epoch, rank, position, visit["pass"]), sample["sample_id"]
                        position += 1


@pytest.mark.parametrize("scheduled", [False, True])
def test_every_play_is_found_both_ways(built, scheduled):
    directory = built.replay.parent / "ordered" if scheduled else built.replay
    expected = dict(scheduled_plays(built, directory) if scheduled else unscheduled_plays(built))
    epochs = 2 if scheduled else 1
    assert len(expected) == epochs * sum(s["repeat"] for s in built.samples)
    reader = Reader(load_manifest(str(directory)))
    for place, name in expected.items():
        row, found = play_at(reader, place.phase, place.epoch, place.rank, place.position)
        assert (row["sample_id"], row["phase"], found) == (name, place.phase, place)
    told = places(reader, built.samples)
    for sample, mine in zip(built.samples, told, strict=True):
        theirs = sorted(p for p, name in expected.items() if (name, p.phase) == (sample["sample_id"], sample["phase"]))
        assert mine == sorted(mine, key=lambda place: (place.epoch, place.number))
        assert sorted(mine) == theirs


@pytest.mark.parametrize("name", ["replay", "ordered"])
def test_the_commands_agree(simple, name):
    directory = simple.replay.parent / name
    played = next(s for s in simple.samples if s["repeat"] > 1)
    told = explain(ExplainConfig(replay=str(directory), sample=played["sample_id"]))
    (table,) = (table for table in told.tables if table.title == "Places in the order")
    assert len(table.rows) == played["repeat"] * (2 if name == "ordered" else 1)
    for sample, *place in table.rows:
        where = dict(zip(("phase", "epoch", "rank", "position"), place, strict=False))
        found = locate(LocateConfig(replay=str(directory), **where))
        assert {key: found.totals[key] for key in where} == where
        assert found.totals["pass"] == place[-1]
        assert found.totals["sample_id"] == sample == played["sample_id"]
        assert found.totals["text"] == played["text"]
        json.dumps(found.as_dict())


def test_a_schedule_and_one_samples_file_are_enough(simple, tmp_path):
    copied = shutil.copytree(simple.replay.parent / "ordered", tmp_path / "ordered")
    where = {"phase": 0, "epoch": 1, "rank": 2, "position": 1}
    found = locate(LocateConfig(replay=str(copied), **where)).totals
    shard = found["shard"]
    for path in copied.rglob("*.parquet"):
        kept = {"shards.parquet", f"00000{int(shard.split('.')[0][-2:])}.parquet"}
        if path.name not in kept and path != copied / "schedule/0-1.parquet":
            path.unlink()
    assert locate(LocateConfig(replay=str(copied), **where)).totals["sample_id"] == found["sample_id"]


def test_a_text_is_told_where_the_corpus_lies(simple, tmp_path):
    first = simple.sequence()[0][1]
    moved = shutil.copytree(simple.corpus, tmp_path / "moved")
    directory = build_replay(tmp_path / "gone", shards=3).replay
    shutil.rmtree(tmp_path / "gone" / "corpus")
    found = locate(LocateConfig(replay=str(directory), position=0))
    assert found.totals["text"] is None
    assert found.warnings == [
        f"{tmp_path}/gone/corpus/part-00.jsonl is missing, so its texts are left out; pass --root with where the "
        "corpus lies now"
    ]
    found = locate(LocateConfig(replay=str(directory), position=0, root=str(moved)))
    assert (found.totals["text"], found.warnings) == (first["text"], [])
    assert found.totals["file"] == f"{moved}/part-00.jsonl"
    with pytest.raises(UsageError, match=r"--root .*: .*part-00.jsonl is missing; name the directory in which"):
        locate(LocateConfig(replay=str(directory), position=0, root=str(tmp_path)))


def test_a_changed_text_is_never_told(tmp_path):
    built = build_replay(tmp_path, shards=1)
    data = (built.corpus / "part-00.jsonl").read_bytes()
    (built.corpus / "part-00.jsonl").write_bytes(data.replace(b"replay", b"REPLAY"))
    changed = next(s for s in built.samples if "replay" in s["text"] and s["repeat"])
    found = explain(ExplainConfig(replay=str(built.replay), sample=changed["sample_id"]))
    assert dict(found.tables[0].rows)["text"] is None
    assert "is not the text that was embedded (content_hash differs); restore the file" in found.warnings[0]


@pytest.mark.parametrize(
    ("name", "argv", "sentence"),
    [
        ("replay", "--position 100000", "--position 100000: rank 0 plays 62 samples in epoch 0 of phase 0; give 0 to"),
        ("replay", "--position 99999999999999999999999", "plays 62 samples in epoch 0"),
        ("replay", "--position -1", "--position -1: must be at least 0"),
        ("replay", "--position x", "'x' is not a valid integer"),
        ("replay", "", "missing: --position"),
        ("replay", "--position 0 --phase 1", "--phase 1: REPLAY has the phases 0"),
        ("replay", "--position 0 --rank 1", "--rank 1: REPLAY has no schedule, so that one rank plays it in one epoch"),
        ("replay", "--position 0 --epoch 1", "leave --epoch out, or name the output of cptsel order"),
        ("ordered", "--position 0 --epoch 2", "--epoch 2: REPLAY is scheduled for 2 epochs; give 0 to 1"),
        ("ordered", "--position 0 --rank 3", "--rank 3: REPLAY is scheduled for 3 ranks; give 0 to 2"),
        ("ordered", "--position 1000 --rank 1 --epoch 1", "--position 1000: rank 1 plays "),
        ("corpus", "--position 0", "REPLAY is not a replay manifest: it has no manifest.json; name the output of"),
    ],
)
def test_what_there_is_not_is_one_sentence(simple, capsys, name, argv, sentence):
    directory = str(simple.replay.parent / name)
    plays = sum(s["repeat"] for s in simple.samples)
    assert main(["locate", directory, *argv.split()]) == 2
    out, err = capsys.readouterr()
    (error,) = [line for line in err.splitlines() if " INFO " not in line]  # of progress
    assert error.startswith("cptsel: error: ")
    assert sentence.replace("REPLAY", directory).replace("62", str(plays)) in error
    assert out == ""


def test_a_rank_without_plays_says_so(tmp_path):
    built = build_replay(tmp_path, shards=1, max_repeats=1)
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "ordered"), world_size=2))
    with pytest.raises(UsageError, match="--position 0: rank 1 plays 0 samples in epoch 0 of phase 0; name another"):
        locate(LocateConfig(replay=str(tmp_path / "ordered"), rank=1, position=0))


def test_what_a_trainer_draws_has_no_place(tmp_path, capsys):
    built = build_replay(tmp_path, shards=2, realisation="sampling")
    assert main(["locate", str(built.replay), "--position", "0"]) == 2
    assert (
        "the trainer draws every sample itself, so no play has a fixed place; cptsel explain" in capsys.readouterr().err
    )
    told = explain(ExplainConfig(replay=str(built.replay), sample=built.samples[0]["sample_id"]))
    assert [table.title for table in told.tables] == [f"Sample {built.samples[0]['sample_id']}"]
    assert told.warnings == [
        f"{built.replay}: its weights are realised by sampling: the trainer draws every sample itself, so no play has "
        "a fixed place"
    ]


@pytest.mark.parametrize("scheduled", [False, True])
def test_files_that_contradict_each_other_are_named(tmp_path, scheduled):
    built = build_replay(tmp_path, shards=2)
    directory = built.replay
    if scheduled:
        directory = tmp_path / "ordered"
        order(OrderConfig(replay=str(built.replay), out=str(directory)))

    def spoil(rows):
        for row in rows:
            row.update(repeat=0) if scheduled else row.update(order_rank=row["order_rank"] + 1000)

    for shard in (0, 1):
        change_samples(directory, shard, spoil)
    reseal(directory)
    with pytest.raises(VerificationError, match="run cptsel verify"):
        locate(LocateConfig(replay=str(directory), position=0))


def test_a_changed_file_is_named(tmp_path):
    replay = build_replay(tmp_path, shards=1).replay
    change_samples(replay, 0, lambda rows: rows[0].update(score=1.0))
    with pytest.raises(VerificationError, match=r"000000.parquet is not the file that was written"):
        locate(LocateConfig(replay=str(replay), position=0))
    io.write_bytes(str(replay / "samples/000000.parquet"), b"PAR1")
    with pytest.raises(UsageError, match=r"000000.parquet: can't be read as Parquet"):
        locate(LocateConfig(replay=str(replay), position=0))
    (replay / "samples/000000.parquet").unlink()
    with pytest.raises(UsageError, match=r"000000.parquet is missing"):
        locate(LocateConfig(replay=str(replay), position=0))
