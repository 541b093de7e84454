"""Exports read, and corpora written, by trainers' own libraries, in environments of tests/environments.py."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from corpus_builders import read_corpus
from manifest_builder import build_replay
from token_builder import EOD, exported, plays_of
from transformers import AutoTokenizer

from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.artifacts.token_ids import token_ids
from cptsel.pipeline.corpus.listing import list_inputs
from cptsel.pipeline.corpus.types import TokenRule
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.export import export
from cptsel.pipeline.exports import plan as export_plan
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.exports.registry import EXPORTS

pytestmark = pytest.mark.trainers
FIELDS = ("sample_id", "text", "repeat", "group", "weight", "loss_weight")


def environment(repository, name):
    """Its Python; the test skips where it is not there."""
    python = repository / ".trainers" / name / "bin/python"
    if not (python.parents[1] / "installed.txt").exists():
        pytest.skip(f"no environment {name}; run python tests/environments.py")
    return str(python)


def by_library(repository, name, script, kind, folder, given=""):
    """What a script prints in an environment."""
    command = [environment(repository, name), str(repository / "tests/trainers" / script), kind, str(folder)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def read_by(repository, name, kind, folder):
    """What a library yields; its version goes into the file that CPTSEL_PROVED names, where that is set."""
    *plays, found = map(json.loads, by_library(repository, name, "read.py", kind, folder))
    if os.environ.get("CPTSEL_PROVED"):
        proved = Path(os.environ["CPTSEL_PROVED"])
        versions = json.loads(proved.read_text()) | found
        proved.write_text(json.dumps(dict(sorted(versions.items())), indent=2) + "\n")
    return plays


@pytest.mark.parametrize(
    ("to", "name", "kind"),
    [
        ("webdataset", "pytorch", "webdataset"),
        ("webdataset", "pytorch", "wids"),
        ("webdataset", "energon", "energon"),
        ("mds", "streaming", "streaming"),
        ("parquet", "pytorch", "grain"),
        ("parquet", "pytorch", "torchdata"),
        ("parquet", "pytorch", "litdata"),
    ],
)
def test_plays_are_those_of_the_manifest_in_its_order(repository, tmp_path, monkeypatch, to, name, kind):
    monkeypatch.setattr(export_plan, "PART_PLAYS", 20)
    built = build_replay(tmp_path, shards=4, documents=8, keep=0.9)
    out = tmp_path / "out"
    export(ExportConfig(replay=str(built.replay), out=str(out), to=to), make_steps=InlineSteps)
    plays = read_by(repository, name, kind, out if kind in ("grain", "torchdata") else out / "data")
    found = [tuple(play[name] for name in FIELDS) for play in plays]
    assert found == [
        (s["sample_id"], s["text"], number, s["group"], s["weight"], 1.0) for _, s, number in built.sequence()
    ]


@pytest.mark.parametrize(
    ("to", "name", "kind"),
    [
        ("megatron", "pytorch", "megatron"),
        ("megatron", "automodel", "automodel"),
        ("olmo", "olmo", "olmo"),
        ("nanotron", "pytorch", "datatrove"),
    ],
)
def test_documents_are_the_ids_that_were_embedded(repository, tmp_path, embedded, to, name, kind):
    out = tmp_path / "out"
    export(ExportConfig(replay=str(embedded.replay), out=str(out), to=to), make_steps=InlineSteps)
    vocabulary = token_ids(load_manifest(str(embedded.replay)), None).vocabulary
    (out / "facts.json").write_text(json.dumps({"size": vocabulary.size, "eos": vocabulary.eos}))
    documents = read_by(repository, name, kind, out / "data")
    assert documents == [[*ids, vocabulary.eos] for _, ids in embedded.plays]


@pytest.mark.parametrize(
    ("to", "name", "kind", "end"),
    [
        ("megatron", "pytorch", "megatron_blend", "/replay"),
        ("megatron", "automodel", "automodel_blend", "/replay"),
        ("olmo", "olmo", "olmo_mixture", "/replay.npy"),
        ("mds", "streaming", "foundry_streams", ""),
    ],
)
def test_blends_are_what_trainers_parse(repository, tmp_path, embedded, to, name, kind, end):
    options = {"new_corpus": "/data/new", "mix_fraction": 0.125}
    export(
        ExportConfig(replay=str(embedded.replay), out=str(tmp_path / "out"), to=to, **options), make_steps=InlineSteps
    )
    (blend,) = read_by(repository, name, kind, tmp_path / "out/data")
    assert blend == [["/data/new", f"{tmp_path}/out/data{end}"], [0.875, 0.125]]


@pytest.mark.parametrize("to", [name for name, format in EXPORTS.items() if format.media is not None])
def test_croissant_metadata_is_sound_and_gives_the_records(repository, tmp_path, to):
    """By MLCommons' own library, which reads Parquet and JSON lines that are not compressed."""
    built = build_replay(tmp_path, shards=4, documents=8, keep=0.9)
    out = tmp_path / "out"
    export(ExportConfig(replay=str(built.replay), out=str(out), to=to, license="mit"), make_steps=InlineSteps)
    said, *records = read_by(repository, "croissant", "mlcroissant", out)
    assert said["errors"] == []
    assert [warning for warning in said["warnings"] if "citeAs" not in warning and "datePublished" not in warning] == []
    if to not in ("parquet", "llamafactory", "llamafactory-v1", "ms-swift"):
        assert records == []
        return
    one = (lambda value: [value]) if "messages" in (out / "croissant.json").read_text() else (lambda value: value)
    found = [(record["sample_id"], record["text"], record["repeat"], record["group"]) for record in records]
    assert found == [(s["sample_id"], one(s["text"]), number, s["group"]) for _, s, number in built.sequence()]


def test_ms_swift_weighs_the_tokens_of_a_sample(repository, tmp_path, tiny_lm):
    """In order, by the weight of the manifest; EOS, which it adds, weighs 1."""
    built, plays = read_weighed(repository, tmp_path, tiny_lm, "ms-swift", "swift", "swift")
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    for (_, sample, _), play in zip(built.sequence(), plays, strict=True):
        ids = tokenizer(sample["text"])["input_ids"]
        assert play["text"] == sample["text"]
        assert play["input_ids"] == [*ids, tokenizer.eos_token_id]
        assert play["loss_scale"][1:-1] == pytest.approx([sample["loss_weight"]] * (len(ids) - 1))
        assert play["loss_scale"][-1] == 1.0
        assert play["labels"][1:] == play["input_ids"][1:]


def test_llamafactory_v1_weighs_the_tokens_of_a_sample(repository, tmp_path, tiny_lm):
    """All of them, those of the template as well, which it puts around the text."""
    built, plays = read_weighed(repository, tmp_path, tiny_lm, "llamafactory-v1", "llamafactory", "llamafactory_v1")
    for (_, sample, _), play in zip(built.sequence(), plays, strict=True):
        assert play["text"] == sample["text"]
        assert play["loss_weights"] == [sample["loss_weight"]] * len(play["input_ids"])
        assert play["labels"] == play["input_ids"]


def read_weighed(repository, folder, tiny_lm, to, name, kind):
    """A manifest whose weights multiply losses, and what a library makes of its export."""
    built = build_replay(folder, shards=4, documents=8, realisation="loss", keep=0.9)
    assert len({sample["loss_weight"] for sample in built.samples}) > 1
    out = folder / "out"
    export(ExportConfig(replay=str(built.replay), out=str(out), to=to), make_steps=InlineSteps)
    (out / "model.txt").write_text(str(tiny_lm))
    return built, read_by(repository, name, kind, out / "data")


def test_llamafactory_reads_plays_in_order(repository, tmp_path, tiny_lm):
    built = build_replay(tmp_path, shards=4, documents=8, keep=0.9)
    out = tmp_path / "out"
    export(ExportConfig(replay=str(built.replay), out=str(out), to="llamafactory"), make_steps=InlineSteps)
    (out / "model.txt").write_text(str(tiny_lm))
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    texts = [sample["text"] + tokenizer.eos_token for _, sample, _ in built.sequence()]
    assert read_by(repository, "llamafactory", "llamafactory", out / "data") == tokenizer(texts)["input_ids"]


@pytest.mark.parametrize(
    ("to", "name", "kind", "end"),
    [
        ("hf", "trl", "trl", "eos"),
        ("hf", "axolotl", "axolotl", "eos"),
        ("parquet", "torchtitan", "torchtitan", "eos"),
        ("mds", "streaming", "foundry", ""),
        ("hf", "trl", "trainer", ""),
    ],
)
def test_plays_are_sequences_in_order(repository, tmp_path, tiny_lm, to, name, kind, end):
    """With EOS behind each: batches of TRL's SFTTrainer, the training set that axolotl prepares, plays of torchtitan's
    ranks. Without: samples of llm-foundry, batches of the Hugging Face Trainer."""
    built = build_replay(tmp_path, shards=4, documents=8, keep=0.9)
    out = tmp_path / "out"
    export(ExportConfig(replay=str(built.replay), out=str(out), to=to), make_steps=InlineSteps)
    (out / "model.txt").write_text(str(tiny_lm))
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    texts = [sample["text"] + (tokenizer.eos_token if end else "") for _, sample, _ in built.sequence()]
    assert read_by(repository, name, kind, out / "data") == tokenizer(texts)["input_ids"]


def test_the_hugging_face_trainer_plays_the_manifest_and_resumes_after_a_kill(
    repository, tmp_path, monkeypatch, embedded, tiny_lm, sample_data
):
    """The worked example: what it writes down is the order of the manifest, and a kill changes nothing."""
    export(
        ExportConfig(replay=str(embedded.replay), out=str(tmp_path / "export"), to="parquet", ids=True),
        make_steps=InlineSteps,
    )
    python = environment(repository, "pytorch")
    options = ["--model", str(tiny_lm), "--replay", str(tmp_path / "export"), "--fraction", "0.4"]
    options += ["--steps", "12", "--save-steps", "4", "--batch-size", "4", "--length", "32"]
    command = [python, str(repository / "examples/hf_trainer.py"), str(sample_data / "new/*/*.jsonl.gz"), *options]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    monkeypatch.setenv("PYTHONPATH", str(repository / "src"))
    subprocess.run([*command, "--out", str(whole)], check=True, timeout=300)
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([*command, "--out", str(killed)], stdout=log, stderr=log)
        while process.poll() is None and max(played(killed), default=0) < 6:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, "--out", str(killed)], check=True, timeout=300)
    assert played(killed) == played(whole)
    replayed = [name for step in range(12) for name in played(whole)[step] if name is not None]
    assert replayed == [name for name, _ in embedded.plays][: len(replayed)]
    assert len(replayed) == 12 * 4 * 2 // 5
    assert (killed / "tokenizer.json").exists()
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def played(folder):
    """sample_ids by step, as they were played last; the last line may be torn."""
    path = folder / "plays.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return {line["step"]: line["sample_ids"] for line in map(json.loads, lines)}


CORPUS = [
    {"id": f"d{i}", "text": f"Naïve 🙂 row {i}. " * (i % 9 + 1), "meta": {"lang": "ab"[i % 2]}, "number": i}
    for i in range(200)
]


@pytest.mark.parametrize(
    ("environment", "kind", "folder", "pattern"),
    [
        ("streaming", "streaming", "plain", "*.mds"),
        ("streaming", "streaming", "zstd", "*.mds.zstd"),
        ("pytorch", "webdataset", "plain", "*.tar"),
        ("pytorch", "webdataset", "gzip", "*.tar.gz"),
    ],
)
def test_a_corpus_that_a_library_wrote_is_read(repository, tmp_path, environment, kind, folder, pattern):
    given = "".join(json.dumps(row) + "\n" for row in CORPUS)
    by_library(repository, environment, "write.py", kind, tmp_path / folder, given)
    paths = sorted((tmp_path / folder).glob(pattern))
    assert len(paths) > 2
    read = [read_corpus(path, group_by=("meta.lang", "number"), block_bytes=3000) for path in paths]
    assert [reject for _, rejects, _ in read for reject in rejects] == []
    assert [(d.doc_id, d.content, d.groups) for documents, _, _ in read for d in documents] == [
        (row["id"], row["text"], (row["meta"]["lang"], str(row["number"]))) for row in CORPUS
    ]


def test_token_ids_that_a_library_wrote_are_read(repository, tmp_path):
    documents = [[i % 4000 + 1] * (i % 7 + 1) for i in range(200)]
    given = "".join(json.dumps({"ids": [*ids, 0]}) + "\n" for ids in documents)
    by_library(repository, "pytorch", "write.py", "megatron", tmp_path / "ids", given)
    _, files = list_inputs([str(tmp_path / "ids/*")], None)
    assert [path for _, path, _ in files] == [f"{number:04d}.bin" for number in range(0, 200, 40)]
    read = [read_corpus(Path(uri), tokens=TokenRule(eod=0), block_bytes=300) for uri, _, _ in files]
    assert [reject for _, rejects, _ in read for reject in rejects] == []
    assert [d.content.tolist() for found, _, _ in read for d in found] == documents


def test_a_zero_copy_plays_the_ids_that_were_chosen(repository, tmp_path, token_corpus, token_replay):
    """By the library's own readers; what it makes of them by merging is why nobody may."""
    out = exported(token_replay, tmp_path / "out", "megatron-zero-copy")
    ended = {(*ids, EOD) for documents in token_corpus.documents.values() for ids in documents}
    plays = [ids for _, ids in plays_of(token_corpus, token_replay)]
    files = read_by(repository, "pytorch", "megatron_zero_copy", out / "data")
    assert [path for path, _, _ in files] == [f"data/shard-{number:06d}" for number in range(3)]
    found = [sequence for _, _, sequences in files for sequence in sequences]
    assert sorted(ids[:-1] if ids[-1] == EOD else ids for ids in found) == sorted(plays)
    assert {tuple(ids) for ids in found if ids[-1] == EOD and len(ids) < 17} & ended
    assert sum(weight for _, weight, _ in files) == sum(map(len, plays))
    merged = read_by(repository, "pytorch", "megatron_merged", out / "data")
    assert not all(same for sequences in merged for same in sequences)
