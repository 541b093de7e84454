"""Corpora of token ids from embed to export: the same as those of their texts, and what every pass makes of them."""

import gzip
import hashlib
import itertools
import json
import re

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from corpus_builders import read_corpus, write_megatron, write_nanotron
from selection_builder import choose, read_samples
from token_builder import EOD, embed, exported, plays_of

import cptsel
from cptsel.cli.main import main
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.chosen.config import DistillConfig, FisherConfig
from cptsel.pipeline.corpus.types import TokenRule
from cptsel.pipeline.distill import distill
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.fisher import fisher
from cptsel.pipeline.hashing import doc_key, sample_id
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify
from cptsel.replay_dataset import ReplayDataset

#: Trainers that read token ids without texts.
APPLY = {
    "parquet": [
        "PyTorch, with replay_dataset.py",
        "Hugging Face Trainer, from Parquet",
        "Hugging Face datasets, from Parquet",
    ],
    "jsonl": ["A reader of your own"],
    "hf": ["Hugging Face datasets"],
}


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    """Beam is not the point of verify here."""
    monkeypatch.setattr("cptsel.pipeline.verification.scratch.Steps", InlineSteps)


@pytest.fixture
def corpus(token_corpus):
    return token_corpus


@pytest.fixture
def run(token_run):
    return token_run


@pytest.fixture
def replay(token_replay):
    return token_replay


def test_a_text_and_its_ids_give_the_same_vectors(corpus, run, tmp_path, tiny_lm):
    of_ids = pq.read_table(run / "embeddings").sort_by([("shard_id", "ascending"), ("row_index", "ascending")])
    of_text = embed(str(corpus.texts / "*/*"), tmp_path / "texts", tiny_lm, "--group-by", "path[0]")
    assert len(of_ids) == len(of_text) > 40
    for name in ("shard_id", "row_index", "window", "token_start", "token_count", "n_tokens", "path[0]"):
        assert of_ids[name].to_pylist() == of_text[name].to_pylist()
    for name in ("loss_sum", "grad_norm", "sketch_norm", "validation_norm"):
        assert of_ids[name].to_numpy() == pytest.approx(of_text[name].to_numpy(), rel=1e-4)
    for name in ("direction", "validation"):
        mine, its = (np.array(table[name].to_pylist(), np.float64) for table in (of_ids, of_text))
        assert np.abs(mine - its).max() < 2e-3


def test_rows_name_runs_of_ids(corpus, run):
    shards = pq.read_table(run / "shards.parquet").to_pylist()
    assert [shard["path"] for shard in shards] == ["de/0.bin", "en/0.bin", "en/1.bin"]
    for shard in shards:
        index = (corpus.ids / shard["path"]).with_suffix(".idx").read_bytes()
        assert (shard["companion_bytes"], shard["companion_sha256"]) == (len(index), hashlib.sha256(index).hexdigest())
    header = json.loads((run / "run.json").read_text())
    assert header["spec_version"] == 3
    assert header["options"]["tokens"] == {"eod": EOD, "vocabulary": 4096}
    for row in pq.read_table(run / "embeddings").to_pylist():
        path = shards[row["shard_id"]]["path"]
        start, end = row["token_start"], row["token_start"] + row["token_count"]
        ids = np.array(corpus.documents[path.removesuffix(".bin")][row["row_index"]][start:end], "<i4")
        assert (row["char_start"], row["char_end"]) == (None, None)
        assert row["content_hash"] == hashlib.blake2b(ids.tobytes(), digest_size=16).digest()
        assert row["doc_key"] == doc_key(path, row["row_index"])
        assert row["sample_id"] == sample_id(row["doc_key"], start, end)


def test_the_manifest_is_verified_against_the_corpus(corpus, run, replay, tmp_path, capsys):
    header = json.loads((replay / "manifest.json").read_text())
    assert header["required_features"] == ["token_ids"]
    assert header["corpus"]["tokens"] == {"eod": EOD, "vocabulary": 4096}
    assert main(["verify", str(replay), "--sources", "--run", str(run)]) == 0
    moved = tmp_path / "moved"
    for path in corpus.ids.glob("*/*"):
        (moved / path.parent.name).mkdir(parents=True, exist_ok=True)
        (moved / path.relative_to(corpus.ids)).write_bytes(path.read_bytes())
    assert main(["verify", str(replay), "--sources", "--root", str(moved)]) == 0
    index = moved / "en/0.idx"
    index.write_bytes(index.read_bytes() + bytes(len(corpus.documents["en/0"])))  # with modes, which say nothing
    capsys.readouterr()
    assert main(["verify", str(replay), "--sources", "--root", str(moved)]) == 4
    assert "en/0.idx: is not the file that was embedded" in " ".join(capsys.readouterr().err.split())
    data = bytearray((moved / "de/0.bin").read_bytes())
    data[2::10] = bytes(len(data[2::10]))
    (moved / "de/0.bin").write_bytes(data)
    assert main(["verify", str(replay), "--sources", "--root", str(moved)]) == 4
    assert "the ids of row" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_a_pool_leaves_the_rest_alone(corpus, run, tmp_path, tiny_lm):
    """Rows of a pool, which grows; the bytes of its documents alone are read."""
    pooled = embed(str(corpus.ids / "*/*"), tmp_path / "small", tiny_lm, "--pool", "40%")
    grown = embed(
        str(corpus.ids / "*/*"), tmp_path / "grown", tiny_lm, "--pool", "70%", "--grow", str(tmp_path / "small")
    )
    every = set(pq.read_table(run / "embeddings", columns=["sample_id"])["sample_id"].to_pylist())
    small, large = (set(table["sample_id"].to_pylist()) for table in (pooled, grown))
    assert small < large < every
    assert set(grown["pool_prob"].to_pylist()) == {0.7}
    totals = json.loads((tmp_path / "small/run.json").read_text())["totals"]
    assert totals["rows_not_drawn"] == 27 - len(set(pooled["doc_key"].to_pylist()))


@pytest.mark.slow
@pytest.mark.parametrize("new", ["texts", "ids"])
def test_a_lookahead_takes_either(corpus, tmp_path, tiny_lm, new):
    """The new corpus may be texts or ids, whatever the old one is."""
    files = str(getattr(corpus, new) / "en/0.[jb]*")
    steps = ["--lookahead", files, "--lookahead-steps", "1", "--lookahead-tokens", "60"]
    rows = embed(str(corpus.ids / "de/*"), tmp_path / "ahead", tiny_lm, *steps)
    assert (rows["loss_sum"].to_numpy() != rows["base_loss_sum"].to_numpy()).all()
    facts = json.loads((tmp_path / "ahead/lookahead/lookahead.json").read_text())
    assert facts["losses"][1] < facts["losses"][0]


def test_a_model_without_a_tokenizer(corpus, tmp_path, tiny_lm, capsys):
    """Its configuration says BOS and EOS; texts it refuses."""
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_bytes((tiny_lm / name).read_bytes())
    rows = embed(str(corpus.ids / "de/*"), tmp_path / "run", model)
    assert sum(rows["token_count"].to_pylist()) == sum(map(len, corpus.documents["de/0"]))
    assert rows["n_tokens"] == rows["token_count"]
    assert json.loads((tmp_path / "run/run.json").read_text())["options"]["tokens"]["eod"] == EOD
    assert main(["embed", str(corpus.texts / "de/*"), "--model", str(model), "--out", str(tmp_path / "other")]) == 2
    assert "its tokenizer can't be loaded" in capsys.readouterr().err


def test_the_end_of_documents_is_an_option(corpus, run, tmp_path, tiny_lm, capsys):
    """Where it is another id, that which stands there is one of the document; a rerun must not change it."""
    inputs, out = str(corpus.ids / "de/*"), tmp_path / "run"
    rows = embed(inputs, out, tiny_lm, "--eod-token-id", "5")
    documents = corpus.documents["de/0"]
    assert sum(rows["token_count"].to_pylist()) == sum(map(len, documents)) + len(documents)
    options = ["--model", str(tiny_lm), "--max-tokens", "16", "--sketch-dim", "64", "--out", str(out)]
    assert main(["embed", inputs, *options]) == 2
    assert "was begun with --eod-token-id 5 (of 4096 ids), now 0" in " ".join(capsys.readouterr().err.split())


def test_a_rerun_notices_another_index(corpus, tmp_path, tiny_lm, capsys):
    folder, out = tmp_path / "corpus", tmp_path / "run"
    folder.mkdir()
    for path in corpus.ids.glob("de/*"):
        (folder / path.name).write_bytes(path.read_bytes())
    embed(str(folder / "*"), out, tiny_lm)
    content, index = ((folder / name).read_bytes() for name in ("0.bin", "0.idx"))
    write_megatron(folder / "0.bin", [[[*ids, EOD] for ids in corpus.documents["de/0"]]])  # all is one document
    options = ["--model", str(tiny_lm), "--max-tokens", "16", "--sketch-dim", "64", "--out", str(out)]
    assert main(["embed", str(folder / "*"), *options]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "the corpus (0.bin) changed since this run was begun; use another --out" in error
    for name, data in (("0.bin", content), ("0.idx", index), ("1.bin", content), ("1.idx", index)):
        (folder / name).write_bytes(data)
    assert main(["embed", str(folder / "*"), *options]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"(1.bin) changed since this run was begun; embed the new files alone, with --root {folder}, into" in error


def test_ids_and_texts_are_corpora_of_their_own(corpus, tmp_path, tiny_lm, capsys):
    both = [str(corpus.ids / "de/*"), str(corpus.texts / "de/*")]
    assert main(["embed", *both, "--model", str(tiny_lm), "--out", str(tmp_path / "run")]) == 2
    assert "holds token ids and" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("to", ["parquet", "jsonl", "hf"])
def test_an_export_of_ids_does_not_speak_of_its_text(replay, to):
    (lost, *_) = EXPORTS[to].loses(load_manifest(str(replay)))
    assert "there is no text" in lost


@pytest.mark.parametrize("to", ["parquet", "jsonl", "hf"])
def test_plays_are_the_ids_in_order(corpus, replay, tmp_path, to):
    """Of all ranks, one after the other; hf has them in the order of the shards."""
    out, format = exported(replay, tmp_path / "out", to, ids=True), EXPORTS[to]
    rows = [row for path in sorted(out.glob(f"data/**/*{format.suffix}")) for row in format.read(str(path))]
    found, plays = [(row["sample_id"], row["input_ids"]) for row in rows], plays_of(corpus, replay)
    assert (sorted(found) if to == "hf" else found) == (sorted(plays) if to == "hf" else plays)
    assert not any("text" in row for row in rows)
    assert re.findall(r"^## (.*)", (out / "TRAINING.md").read_text(), re.MULTILINE) == APPLY[to]
    if to == "parquet":
        assert "Texts" not in (out / "README.md").read_text()
        facts = json.loads((out / "croissant.json").read_text())
        assert "of windows of token ids. cptsel chose" in facts["description"]
        assert {field["name"] for field in facts["recordSet"][0]["field"]} == set(rows[0])
        datasets = [ReplayDataset(out, rank=rank) for rank in (0, 1)]
        read = [dataset[number] for dataset in datasets for number in range(len(dataset))]
        assert [(play["sample_id"], play["input_ids"]) for play in read] == plays


@pytest.mark.parametrize("to", ["megatron", "nanotron", "olmo"])
def test_token_exports_hold_the_ids_and_the_end_of_each(corpus, replay, tmp_path, to):
    out, format = exported(replay, tmp_path / "out", to), EXPORTS[to]
    (path,) = out.glob(f"data/*{format.suffix}")
    plays = [ids for _, ids in plays_of(corpus, replay)]
    assert sorted(play["input_ids"] for play in format.read(str(path))) == sorted(plays)
    assert np.frombuffer(path.read_bytes(), "<u2").tolist().count(EOD) == len(plays)
    named = "npy-uint16" if to == "olmo" else None  # what was exported is a corpus of token ids itself
    documents, rejects, _ = read_corpus(path, named, tokens=TokenRule(EOD), block_bytes=100)
    assert (sorted(d.content.tolist() for d in documents), rejects) == (sorted(plays), [])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--to", "jsonl"], "--to jsonl writes text, and the corpus of"),
        (["--to", "mds"], "or --ids with jsonl, parquet, hf"),
        (["--to", "uids"], "--to uids writes text, and the corpus of"),
        (["--to", "megatron", "--tokenizer", "x"], "is of token ids; leave it out"),
    ],
)
def test_what_writes_text_refuses(replay, tmp_path, capsys, options, sentence):
    assert main(["export", str(replay), *options, "--out", str(tmp_path / "out")]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_a_list_leaves_out_documents_and_windows(corpus, replay, tmp_path):
    """By the hash of a document's ids, and of a window's."""
    shards = pq.read_table(replay / "shards.parquet").to_pylist()
    rows = [row for path in replay.glob("samples/*") for row in pq.read_table(path).to_pylist() if row["repeat"]]
    name = shards[rows[0]["shard_id"]]["path"].removesuffix(".bin")
    document = np.array(corpus.documents[name][rows[0]["row_index"]], "<i4").tobytes()
    named = [hashlib.blake2b(document, digest_size=16).hexdigest(), rows[-1]["content_hash"].hex()]
    (tmp_path / "list").write_text("\n".join(named))
    out = exported(replay, tmp_path / "out", "parquet", ids=True, exclude=str(tmp_path / "list"))
    gone = {row["sample_id"] for row in rows if row["doc_key"] == rows[0]["doc_key"]} | {rows[-1]["sample_id"]}
    found = {name for path in out.glob("data/**/*.parquet") for name in pq.read_table(path)["sample_id"].to_pylist()}
    assert found == {row["sample_id"] for row in rows} - gone


@pytest.mark.parametrize("kind", ["nanotron", "npy-uint16", "npy", "listed"])
def test_other_files_of_the_same_ids(corpus, run, tmp_path, monkeypatch, tiny_lm, kind):
    """They give the same rows but for names, and their manifest is verified and read in the same way."""
    path = tmp_path / "corpus/de/0.ds" if kind == "nanotron" else tmp_path / "corpus/de/0.npy"
    path.parent.mkdir(parents=True)
    ended = [[*ids, EOD] for ids in corpus.documents["de/0"]]
    flat = np.array([number for ids in ended for number in ids], "<u2")
    if kind == "nanotron":
        write_nanotron(path, ended)
    elif kind == "npy":
        np.save(path, flat)
    else:
        path.write_bytes(flat.tobytes())
        if kind == "listed":
            ends = np.cumsum([0, *map(len, ended)]).tolist()
            lines = "".join(f"{start},{end},id,src,1\n" for start, end in itertools.pairwise(ends))
            path.with_suffix(".csv.gz").write_bytes(gzip.compress(lines.encode()))
    options = ["--root", str(tmp_path / "corpus"), "--group-by", "path[0]"]
    named = ["--format", "npy-uint16"] if kind in ("npy-uint16", "listed") else []
    rows = embed(str(path.parent / "*"), tmp_path / "run", tiny_lm, *options, *named)
    of_megatron = pq.read_table(run / "embeddings").filter(pc.field("shard_id") == 0)
    for name in ("row_index", "window", "char_start", "token_start", "token_count", "n_tokens", "content_hash"):
        assert rows[name].to_pylist() == of_megatron[name].to_pylist()
    assert rows["loss_sum"].to_numpy() == pytest.approx(of_megatron["loss_sum"].to_numpy(), rel=1e-4)
    out = tmp_path / "replay"
    choose(tmp_path / "run", out, method="uniform", budget="50%", group_by=None)
    assert verify(VerifyConfig(directory=str(out), sources=True)).status == "verified"
    played = {row["sample_id"]: ids for ids, _, row in example(out, monkeypatch)["replay"]()}
    assert len(played) == len(rows) // 2
    for row in rows.to_pylist():
        ids = corpus.documents["de/0"][row["row_index"]][row["token_start"] :][: row["token_count"]]
        assert played.get(row["sample_id"], ids) == ids


def example(replay, monkeypatch):
    """The names that the example of CONSUMING.md defines when it is run in the directory."""
    (code,) = re.findall(r"```python\n(.*?)```", (replay / "CONSUMING.md").read_text(), re.DOTALL)
    names = {}
    monkeypatch.chdir(replay)
    exec(compile(code, "CONSUMING.md", "exec"), names)
    return names


def test_the_page_for_consumers_yields_the_ids(corpus, replay, monkeypatch):
    page = (replay / "CONSUMING.md").read_text()
    assert "token ids, windows of at most 16 tokens" in page
    yielded = example(replay, monkeypatch)["replay"]
    plays = [(row["sample_id"], ids) for rank in (0, 1) for ids, _, row in yielded(rank=rank)]
    assert plays == plays_of(corpus, replay)


def test_models_see_the_ids(corpus, replay, tmp_path, tiny_lm):
    """distill writes the ids that were embedded, fisher takes their gradients."""
    options = {"replay": str(replay), "model": str(tiny_lm)}
    distill(DistillConfig(**options, top_k=4, out=str(tmp_path / "targets")), make_steps=InlineSteps)
    rows = [row for path in tmp_path.glob("targets/data/*") for row in pq.read_table(path).to_pylist()]
    found = {row["sample_id"]: row["input_ids"] for row in rows}
    assert dict(plays_of(corpus, replay)).items() <= found.items()
    fisher(FisherConfig(**options, out=str(tmp_path / "fisher")), make_steps=InlineSteps)
    totals = json.loads((tmp_path / "fisher/fisher.json").read_text())["totals"]
    assert totals["samples"] == len(found)


def test_people_see_the_ids_as_numbers(corpus, replay, run, tmp_path, capsys):
    name, ids = plays_of(corpus, replay)[0]
    start = next(row["token_start"] for row in read_samples(replay).to_pylist() if row["sample_id"] == name)
    assert main(["explain", str(replay), name, "--run", str(run)]) == 0
    told = capsys.readouterr().out
    assert " ".join(map(str, ids))[:20] in told
    assert f"token ids {start}:{start + len(ids)} " in " ".join(told.split())
    assert "tokens row token ids text" in " ".join(told.split())
    found = cptsel.locate(cptsel.LocateConfig(replay=str(replay), epoch=0, rank=0, position=0))
    assert (found.token_ids, "characters" in found.totals) == (f"{start}:{start + len(ids)}", False)
    assert main(["explain", str(replay), "--text", "words"]) == 2
    assert "is of token ids; name a sample" in " ".join(capsys.readouterr().err.split())
    assert main(["report", str(replay), "--run", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert " ".join(map(str, ids))[:20] in (tmp_path / "page.html").read_text()
