"""Runs and manifests as Python sees them are the files that the commands wrote."""

import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifest_builder import build_replay
from run_builder import ROWS, build_run
from selection_builder import choose

import cptsel
from cptsel.pipeline.artifacts.embeddings import read_directions
from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.errors import BadInputError, UsageError, VerificationError
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_replay(tmp_path_factory.mktemp("built"), phases=2)


def test_the_code_of_the_page_runs(repository, embedded, tmp_path, monkeypatch, capsys):
    """In the order of the page, with what one example made at hand of the next."""
    for name in ("run", "replay"):
        shutil.copytree(embedded.replay.parent / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    page = (repository / "docs" / "python.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    assert len(examples) >= 6
    names = {}
    for example in examples:
        exec(compile(example, "docs/python.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "Replay manifest\n" in printed
    assert "Embedding run\n" in printed
    assert np.isfinite(names["total"]).all()


def test_samples_are_those_of_the_files(built):
    replay = cptsel.open_replay(str(built.replay))
    columns = ["sample_id", "phase", "weight", "group", "content_hash"]
    expected = sorted(tuple(s[name] for name in columns) for s in built.samples)
    assert sorted(tuple(row.values()) for row in replay.samples(columns).to_pylist()) == expected
    assert replay.samples().schema.field("group").type == pa.string()
    for phase in (0, 1):
        mine = replay.samples(["sample_id"], phase=phase)["sample_id"].to_pylist()
        assert sorted(mine) == sorted(s["sample_id"] for s in built.samples if s["phase"] == phase)
    shard = replay.samples(["sample_id"], shard_id=2)["sample_id"].to_pylist()
    assert sorted(shard) == sorted(s["sample_id"] for s in built.samples if s["shard_id"] == 2)
    assert replay.shards.equals(pq.read_table(built.replay / "shards.parquet"))
    assert replay.groups["replay_tokens"].to_pylist() == [entry["replay_tokens"] for entry in built.header["groups"]]
    assert (replay.manifest_id, replay.phases, replay.path) == (built.header["manifest_id"], [0, 1], str(built.replay))


def test_a_shard_of_which_nothing_was_chosen_has_no_rows(run, tmp_path):
    choose(run, tmp_path / "replay", method="uniform")
    replay = cptsel.open_replay(str(tmp_path / "replay"))
    empty = replay.samples(shard_id=2)
    assert empty.num_rows == 0
    assert empty.schema == replay.samples().schema


def test_texts_are_those_of_the_samples(built, tmp_path):
    replay = cptsel.open_replay(str(built.replay))
    texts = {s["sample_id"]: s["text"] for s in built.samples}
    found = [(row["sample_id"], text) for row, text in replay.texts()]
    assert len(found) == len(built.samples)
    assert all(texts[name] == text for name, text in found)
    some = replay.samples().slice(3, 9)
    moved = shutil.copytree(built.corpus, tmp_path / "moved")
    read = {row["sample_id"]: text for row, text in replay.texts(some, root=str(moved))}
    assert read == {name: texts[name] for name in some["sample_id"].to_pylist()}
    assert list(replay.texts(some.slice(0, 0))) == []
    with pytest.raises(UsageError, match="there is no column 'byte_offset'"):
        next(replay.texts(some.select(["sample_id", "shard_id", "row_index"])))
    with pytest.raises(BadInputError, match="is missing; restore it, or give root"):
        next(replay.texts(some, root=str(tmp_path / "nowhere")))
    path = next(path for path in sorted(moved.iterdir()) if path.suffix == ".jsonl")
    path.write_text(path.read_text().replace("token", "tokem"))
    with pytest.raises(VerificationError, match="is not the text that was embedded"):
        list(replay.texts(root=str(moved)))


def test_schedules(built, tmp_path):
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "ordered"), epochs=2, world_size=2))
    ordered = cptsel.open_replay(str(tmp_path / "ordered"))
    assert ordered.schedule(1, 1).equals(pq.read_table(tmp_path / "ordered" / "schedule" / "1-1.parquet"))
    assert repr(ordered).startswith("Ordered replay manifest\n")
    with pytest.raises(UsageError, match=r"has no schedule of phase 0 and epoch 2; name a phase and epoch of 0 and 0"):
        ordered.schedule(0, 2)
    with pytest.raises(UsageError, match="run cptsel order, which writes one"):
        cptsel.open_replay(str(built.replay)).schedule()


def test_vectors_are_those_of_the_run(run):
    opened, runs = cptsel.open_run(str(run)), open_runs([str(run)])
    ids, vectors = [], []
    for rows, directions in opened.batches(["sample_id"], "validation"):
        assert rows.num_rows == len(directions)
        ids += rows["sample_id"].to_pylist()
        vectors.append(directions)
    assert len(vectors) > len(runs.shards)  # several blocks a shard
    assert ids == opened.samples(["sample_id"])["sample_id"].to_pylist()
    expected = [part for shard in runs.shards for part in read_directions(shard, runs.schema, "validation")]
    assert np.array_equal(np.concatenate(vectors), np.concatenate(expected))
    by_shard = [opened.vectors(number, "validation") for number in range(len(runs.shards))]
    assert np.array_equal(np.concatenate(by_shard), np.concatenate(expected))
    assert by_shard[2].shape == (0, expected[0].shape[1])  # a shard without samples


def test_the_tables_of_a_run(run):
    opened = cptsel.open_run(str(run))
    assert opened.shards["shard_id"].to_pylist() == [0, 1, 2, 3]
    rows = opened.samples(["language", "n_tokens"]).to_pylist()
    languages = {row["language"] for row in rows}
    assert {row["language"]: (row["samples"], row["tokens"]) for row in opened.groups.to_pylist()} == {
        language: (
            sum(row["language"] == language for row in rows),
            sum(row["n_tokens"] for row in rows if row["language"] == language),
        )
        for language in languages
    }
    assert "direction" not in opened.columns
    assert [opened.samples(shard_id=number).num_rows for number in range(4)] == list(ROWS)
    assert opened.samples().column_names == opened.columns


def test_what_is_refused(run, built, tmp_path):
    opened, replay = cptsel.open_run(str(run)), cptsel.open_replay(str(built.replay))
    for call, phrase in (
        (lambda: opened.samples(["direction"]), "there is no column 'direction'"),
        (lambda: opened.vectors(0, "loss_sum"), "there is no column 'loss_sum'; there are direction, validation"),
        (lambda: opened.vectors(4), "has no shard 4; name one of 0 to 3"),
        (lambda: opened.vectors(-1), "has no shard -1"),
        (lambda: replay.samples(["nothing"]), "there is no column 'nothing'"),
        (lambda: replay.samples(phase=7), "has no phase 7; name one of 0, 1"),
        (lambda: replay.samples(shard_id=99), "has no shard 99"),
        (lambda: cptsel.open_run(str(built.replay)), "is not an embedding run"),
        (lambda: cptsel.open_replay(str(run)), "is not a replay manifest"),
    ):
        with pytest.raises(UsageError, match=phrase):
            call()
    changed = build_run(tmp_path / "changed", rows=(20,))
    next((changed / "embeddings").iterdir()).write_bytes(b"damaged")
    with pytest.raises(BadInputError, match="is not the file that was embedded"):
        cptsel.open_run(str(changed)).samples(["sample_id"])
    copy = shutil.copytree(built.replay, tmp_path / "copy")
    next((copy / "samples").iterdir()).write_bytes(b"damaged")
    with pytest.raises(VerificationError, match="is not the file that was written"):
        cptsel.open_replay(str(copy)).samples()


def test_names_are_escaped_where_they_are_shown(tmp_path):
    folder = tmp_path / "<b>bold</b>\x1b[31m & co"
    built = build_replay(folder, shards=2, documents=3)
    replay = cptsel.open_replay(str(built.replay))
    page = replay._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;\\x1b[31m &amp; co" in page
    assert "\x1b" not in page + repr(replay)
    assert page.count("<table>") == page.count("</table>") == 2
    assert "<td>even</td>" in page
    run = cptsel.open_run(str(build_run(folder / "run", rows=(20,))))
    assert "<b>" not in run._repr_html_()
    assert "\x1b" not in run._repr_html_() + repr(run)
    assert "samples: 20" in repr(run)
