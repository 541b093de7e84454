"""Exports that point into the .bin of the corpus: no token is copied, and what plays is what was chosen."""

import json
import os
import struct

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpus_builders import write_megatron
from selection_builder import choose
from token_builder import EOD, embed, exported, plays_of

from cptsel.cli.main import main
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.errors import VerificationError
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify

TO = "megatron-zero-copy"


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    """Beam is not the point here."""
    monkeypatch.setattr("cptsel.pipeline.verification.scratch.Steps", InlineSteps)


@pytest.fixture
def out(token_replay, tmp_path):
    return exported(token_replay, tmp_path / "out", TO)


def expected(corpus, replay):
    """Plays with the id that ends a document where their window ends with it."""
    rows = [row for path in replay.glob("samples/*") for row in pq.read_table(path).to_pylist()]
    paths = [shard["path"].removesuffix(".bin") for shard in pq.read_table(replay / "shards.parquet").to_pylist()]
    found = []
    for row in rows:
        ids = corpus.documents[paths[row["shard_id"]]][row["row_index"]]
        end = row["token_start"] + row["token_count"]
        play = ids[row["token_start"] : end] + ([EOD] if end == len(ids) else [])
        found += [(row["shard_id"], play)] * row["repeat"]
    return sorted(found)


def test_every_play_points_into_the_corpus(token_corpus, token_replay, out):
    format, found = EXPORTS[TO], []
    for path in sorted(out.glob("data/*.idx")):
        link = path.with_suffix(".bin")
        shard = int(path.stem.removeprefix("shard-"))
        assert os.readlink(link) == str(token_corpus.ids / ["de/0.bin", "en/0.bin", "en/1.bin"][shard])
        found += [(shard, play["input_ids"]) for play in format.read(str(path))]
    assert sorted(found) == expected(token_corpus, token_replay)
    assert len(found) == len(plays_of(token_corpus, token_replay))
    assert any(play[-1] != EOD for _, play in found)
    blend = json.loads((out / "data/blend.json").read_text())["train"]
    tokens = {blend[place + 1]: int(blend[place]) for place in range(0, len(blend), 2)}
    assert list(tokens) == [f"data/{path.stem}" for path in sorted(out.glob("data/*.idx"))]
    assert sum(tokens.values()) == sum(len(ids) for _, ids in plays_of(token_corpus, token_replay))
    page = " ".join((out / "TRAINING.md").read_text().split())
    assert "**Never merge these files**" in page
    assert "other plays end without one" in page


def test_no_token_is_added_where_a_document_has_no_end(tmp_path, tiny_lm):
    """The last window is of one token: the one before it ends where that of a document with an end would."""
    write_megatron(tmp_path / "0.bin", [[list(range(5, 22))], [[*range(5, 21), EOD]]])
    embed(str(tmp_path / "*.bin"), tmp_path / "run", tiny_lm)
    choose(tmp_path / "run", tmp_path / "replay", method="uniform", budget="100%", group_by=None)
    (path,) = exported(tmp_path / "replay", tmp_path / "out", TO).glob("data/*.idx")
    plays = [play["input_ids"] for play in EXPORTS[TO].read(str(path))]
    assert sorted(plays) == [list(range(5, 21)), [*range(5, 21), EOD], [21]]
    data = path.read_bytes()
    place = 34 + 4 * plays.index(list(range(5, 21)))
    path.write_bytes(data[:place] + struct.pack("<i", 17) + data[place + 4 :])
    with pytest.raises(VerificationError) as error:
        verify(VerifyConfig(directory=str(tmp_path / "out"), replay=str(tmp_path / "replay")))
    assert any("has 17 token ids, not 16" in row[2] for row in error.value.summary.tables[-1].rows)


def test_it_is_written_again_over_itself(token_replay, out):
    """The links go, and what they lead to stays."""
    before = {path.name: path.read_bytes() for path in out.glob("data/*")}
    assert main(["export", str(token_replay), "--to", TO, "--overwrite", "--out", str(out)]) == 0
    assert {path.name: path.read_bytes() for path in out.glob("data/*")} == before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data[:-8], "can't be read"),
        (lambda data: data[:34] + struct.pack("<i", 3) + data[38:], "token ids"),
        (lambda data: data[:9] + b"\2" + data[10:], "can't be read"),
    ],
)
def test_a_changed_index_is_named(token_replay, out, change, problem):
    path = out / "data/shard-000000.idx"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(VerificationError) as error:
        verify(VerifyConfig(directory=str(out), replay=str(token_replay)))
    told = [row[2] for row in error.value.summary.tables[-1].rows]
    assert any("was changed after it was written" in what for what in told)
    assert any(problem in what for what in told)


def test_a_corpus_that_changed_is_named(token_corpus, out, tmp_path):
    link = out / "data/shard-000001.bin"
    data = np.frombuffer(link.read_bytes(), "<u2")
    other = tmp_path / "other.bin"
    other.write_bytes(data[::-1].tobytes())
    link.unlink()
    link.symlink_to(other)
    with pytest.raises(VerificationError, match=r"shard-000001\.bin: was changed after it was written"):
        verify(VerifyConfig(directory=str(out)))


def test_texts_have_no_bin(embedded, tmp_path, capsys):
    assert main(["export", str(embedded.replay), "--to", TO, "--out", str(tmp_path / "out")]) == 2
    assert "points into .bin files of Megatron's, and the corpus of" in " ".join(capsys.readouterr().err.split())
