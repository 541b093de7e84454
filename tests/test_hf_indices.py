"""Row numbers of a corpus that is a Hugging Face data set: what ``select`` of the real library makes of them."""

import json

import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset, load_from_disk
from export_tampering import header_of, reseal_export, rewrite
from manifest_builder import build_replay

from cptsel.cli.main import main
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.errors import BadInputError, UsageError, VerificationError
from cptsel.pipeline.export import export
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify

DOCUMENTS = [{"id": f"d{i}", "text": f"Übung {i}: " + "many words " * (i % 4)} for i in range(40)]


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    """Beam is not the point here."""
    monkeypatch.setattr("cptsel.pipeline.verification.scratch.Steps", InlineSteps)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory, tiny_lm):
    """A data set in three files, and a manifest of it with repeats."""
    folder = tmp_path_factory.mktemp("chosen")
    Dataset.from_list(DOCUMENTS).save_to_disk(str(folder / "corpus"), num_shards=3)
    options = ["--model", str(tiny_lm), "--sketch-dim", "64", "--max-tokens", "64"]
    assert main(["embed", str(folder / "corpus/*.arrow"), *options, "--out", str(folder / "run")]) == 0
    options = ["--method", "uniform", "--budget", "50%", "--realisation", "repeat", "--replay-tokens", "900 tokens"]
    assert main(["select", str(folder / "run"), *options, "--out", str(folder / "replay")]) == 0
    return folder


def make(replay, out, to="hf-indices", **options):
    export(ExportConfig(replay=str(replay), out=str(out), to=to, **options), make_steps=InlineSteps)
    return out


def test_select_gives_the_plays_of_the_manifest_in_order(chosen, tmp_path):
    plays = pq.read_table(make(chosen / "replay", tmp_path / "out") / "data/replay.parquet")
    picked = load_from_disk(str(chosen / "corpus")).select(plays["index"].to_numpy())
    make(chosen / "replay", tmp_path / "hf", "hf")
    expected = load_from_disk(str(tmp_path / "hf/data"))
    assert picked["text"] == expected["text"]
    assert picked["id"] == expected["id"] == plays["id"].to_pylist()
    assert len(picked) > len(set(picked["id"])), "some are played twice"
    for name in ("sample_id", "weight", "loss_weight", "repeat", "group"):
        assert plays[name].to_pylist() == expected[name]
    assert not list((chosen / "corpus").glob("cache-*")), "the corpus is as it was"


def test_epochs_are_files_of_their_own(chosen, tmp_path):
    order(OrderConfig(replay=str(chosen / "replay"), out=str(tmp_path / "ordered"), epochs=2, world_size=2))
    out, hf = make(tmp_path / "ordered", tmp_path / "out"), make(tmp_path / "ordered", tmp_path / "hf", "hf")
    corpus = load_from_disk(str(chosen / "corpus"))
    for epoch in ("epoch-000", "epoch-001"):
        plays = pq.read_table(out / "data" / epoch / "replay.parquet")
        assert corpus.select(plays["index"].to_numpy())["text"] == load_from_disk(str(hf / "data" / epoch))["text"]
    verify(VerifyConfig(directory=str(out), replay=str(tmp_path / "ordered")))


def test_a_parquet_corpus_and_one_that_has_moved(tmp_path, tiny_lm):
    (tmp_path / "corpus/b").mkdir(parents=True)
    for number, name in enumerate(("b/1.parquet", "a.parquet", "b/0.parquet")):
        Dataset.from_list(DOCUMENTS[number::3]).to_parquet(str(tmp_path / "corpus" / name))
    options = ["--model", str(tiny_lm), "--sketch-dim", "64", "--max-tokens", "64"]
    assert main(["embed", str(tmp_path / "corpus/**/*.parquet"), *options, "--out", str(tmp_path / "run")]) == 0
    assert (
        main(["select", str(tmp_path / "run"), "--method", "uniform", "--budget", "9", "--out", str(tmp_path / "r")])
        == 0
    )
    (tmp_path / "corpus").rename(tmp_path / "moved")
    out = make(tmp_path / "r", tmp_path / "out", root=str(tmp_path / "moved"))
    plays = pq.read_table(out / "data/replay.parquet")
    files = sorted(str(path) for path in (tmp_path / "moved").glob("**/*.parquet"))
    corpus = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert corpus.select(plays["index"].to_numpy())["id"] == plays["id"].to_pylist()
    assert len(set(plays["shard"].to_pylist())) > 1


def test_windows_and_other_corpora_are_refused(chosen, embedded, tmp_path, tiny_lm):
    with pytest.raises(UsageError, match=r"takes a corpus of Arrow or Parquet files, and 0\.jsonl is none"):
        make(embedded.replay, tmp_path / "out")
    options = ["--model", str(tiny_lm), "--sketch-dim", "64"]
    for name, more in (("windows", ["--max-tokens", "8"]), ("first", ["--limit", "5"])):
        run = str(tmp_path / name)
        assert main(["embed", str(chosen / "corpus/*.arrow"), *options, *more, "--out", run]) == 0
        assert main(["select", run, "--method", "full", "--out", str(tmp_path / f"{name}-replay")]) == 0
    with pytest.raises(BadInputError, match="a window was chosen, and --to hf-indices takes whole documents alone"):
        make(tmp_path / "windows-replay", tmp_path / "out")
    with pytest.raises(UsageError, match=r"has 14 rows, and 5 were read .* embed without --limit"):
        make(tmp_path / "first-replay", tmp_path / "out")
    assert not (tmp_path / "out/export.json").exists()


def test_another_place_is_named(chosen, tmp_path):
    out = make(chosen / "replay", tmp_path / "out")
    config = VerifyConfig(directory=str(out), replay=str(chosen / "replay"))
    verify(config)
    file = "data/replay.parquet"
    right = pq.read_table(out / file)["index"][3].as_py()
    rewrite(out, file, lambda plays: plays[3].update(index=right + 1))
    reseal_export(out)
    verify(VerifyConfig(directory=str(out)))
    with pytest.raises(VerificationError, match=f"{file} row 3: index is '{right + 1}', not '{right}'"):
        verify(config)
    rewrite(out, file, lambda plays: plays[3].update(index=-1))
    reseal_export(out)
    with pytest.raises(VerificationError, match="index is '-1', not a number from 0 on"):
        verify(VerifyConfig(directory=str(out)))


@pytest.mark.parametrize("realisation", ["repeat", "loss", "sampling", "none"])
def test_every_realisation_is_held(tmp_path, monkeypatch, realisation):
    monkeypatch.setattr("manifest_builder.FORMATS", ("parquet", "arrow"))
    monkeypatch.setattr("manifest_builder.MAX_TOKENS", 64)
    built = build_replay(
        tmp_path, shards=3, documents=4, phases=2, realisation=realisation, curriculum=realisation != "sampling"
    )
    out = make(built.replay, tmp_path / "out")
    verify(VerifyConfig(directory=str(out), replay=str(built.replay)))
    header = header_of(out)
    assert header["fidelity"] == ("expectation-only" if realisation == "sampling" else "exact")
    assert any("The export has no texts" in sentence for sentence in header["loses"])
    rows = [row for name in sorted(header["files"]) for row in pq.read_table(out / name).to_pylist()]
    first, total = {}, 0
    for shard in load_manifest(str(built.replay)).shards().to_pylist():
        first[shard["path"]], total = total, total + shard["rows"]
    assert [row["index"] - row["row"] for row in rows] == [first[row["shard"]] for row in rows]
    assert [(row["sample_id"], row["repeat"]) for row in rows] == [
        (s["sample_id"], number) for _, s, number in built.sequence()
    ]


def test_the_page_says_what_to_paste(chosen, tmp_path):
    out = make(chosen / "replay", tmp_path / "out")
    page = (out / "TRAINING.md").read_text()
    assert 'pq.read_table("EXPORT/data/replay.parquet")' in page
    assert json.loads((out / "export.json").read_text())["instructions"] in page
