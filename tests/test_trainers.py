"""Exports read by trainers' own libraries, in the environments that tests/trainers/environments.py makes."""

import json
import subprocess

import pytest
from manifest_builder import build_replay

from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.export import export
from cptsel.pipeline.exports import plan as export_plan
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.exports.token_ids import token_ids

pytestmark = pytest.mark.trainers
FIELDS = ("sample_id", "text", "repeat", "group", "weight", "loss_weight")


def read_by(repository, environment, kind, folder):
    """What a library yields, and its version."""
    python = repository / ".trainers" / environment / "bin/python"
    if not (python.parents[1] / "installed.txt").exists():
        pytest.skip(f"no environment {environment}; run python tests/trainers/environments.py")
    command = [str(python), str(repository / "tests/trainers/read.py"), kind, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    *plays, found = map(json.loads, done.stdout.splitlines())
    return plays, found


@pytest.mark.parametrize(
    ("to", "environment", "kind"),
    [
        ("webdataset", "pytorch", "webdataset"),
        ("webdataset", "pytorch", "wids"),
        ("mds", "streaming", "streaming"),
        ("parquet", "pytorch", "grain"),
        ("parquet", "pytorch", "torchdata"),
        ("parquet", "pytorch", "litdata"),
    ],
)
def test_plays_are_those_of_the_manifest_in_its_order(repository, tmp_path, monkeypatch, to, environment, kind):
    monkeypatch.setattr(export_plan, "PART_PLAYS", 20)
    built = build_replay(tmp_path, shards=4, documents=8, keep=0.9)
    out = tmp_path / "out"
    export(ExportConfig(replay=str(built.replay), out=str(out), to=to), make_steps=InlineSteps)
    plays, _ = read_by(repository, environment, kind, out if kind in ("grain", "torchdata") else out / "data")
    found = [tuple(play[name] for name in FIELDS) for play in plays]
    assert found == [
        (s["sample_id"], s["text"], number, s["group"], s["weight"], 1.0) for _, s, number in built.sequence()
    ]


@pytest.mark.parametrize(("to", "environment", "kind"), [("megatron", "pytorch", "megatron"), ("olmo", "olmo", "olmo")])
def test_documents_are_the_ids_that_were_embedded(repository, tmp_path, embedded, to, environment, kind):
    out = tmp_path / "out"
    export(ExportConfig(replay=str(embedded.replay), out=str(out), to=to), make_steps=InlineSteps)
    vocabulary = token_ids(load_manifest(str(embedded.replay)), None).vocabulary
    (out / "facts.json").write_text(json.dumps({"size": vocabulary.size, "eos": vocabulary.eos}))
    documents, _ = read_by(repository, environment, kind, out / "data")
    assert documents == [[*ids, vocabulary.eos] for _, ids in embedded.plays]
