"""A few steps along the new domain: against plain autograd, the same bytes again, and what ``embed`` does with it."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from selection_builder import choose
from tokenizers.normalizers import Lowercase
from transformers import AutoModelForCausalLM, AutoTokenizer

from cptsel.cli.main import main
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding import lookahead as room
from cptsel.pipeline.embedding.config import EmbedConfig, LookaheadConfig
from cptsel.pipeline.embedding.plan import plan_model
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.inspect import inspect
from cptsel.pipeline.lookahead import lookahead
from cptsel.pipeline.model.frozen import FrozenModel
from cptsel.pipeline.model.lookahead import take_steps
from cptsel.pipeline.model.naming import weights_fingerprint
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify

SMALL = {"max_tokens": 32, "sketch_dim": 64, "validation_dim": 32, "limit": 4}


@pytest.fixture(scope="module")
def new(sample_data):
    return str(sample_data / "new" / "*" / "*")


@pytest.fixture
def made(tiny_lm, new, tmp_path):
    def call(name, **options):
        settings = {"tokens": 300, "max_tokens": 32, "steps": 1, "optimizer": "sgd"} | options
        lookahead(LookaheadConfig(model=str(tiny_lm), inputs=(new,), out=str(tmp_path / name), **settings))
        return tmp_path / name

    return call


def rows(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(5, 500, n).astype(np.int32) for n in lengths]


def mean_loss(model, windows):
    """By transformers itself, one window at a time."""
    losses = [
        model(input_ids=torch.tensor(w[None]).long(), labels=torch.tensor(w[None]).long()).loss * (len(w) - 1)
        for w in windows
    ]
    return sum(losses) / sum(len(w) - 1 for w in windows)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_steps_are_those_of_plain_autograd(tiny_lm, optimizer):
    lr, windows = (0.1, 1e-3)[optimizer == "adamw"], [rows([9, 17, 5, 12]), rows([8, 8, 20], seed=1)]
    plan = plan_model(EmbedConfig(inputs=(), model=str(tiny_lm), out=""))
    ours = FrozenModel(plan.spec)
    told: list[int] = []
    losses = take_steps(ours, [[windows[0][:3], windows[0][3:]], [windows[1]]], optimizer, lr, told.append)
    assert told == [0, 1, 2]
    theirs = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32).eval()
    stepper = torch.optim.AdamW(theirs.parameters(), lr, betas=(0.9, 0.95), weight_decay=0.0)
    expected = []
    for step in windows:
        theirs.zero_grad()
        loss = mean_loss(theirs, step)
        loss.backward()
        expected.append(loss.item())
        if optimizer == "sgd":
            with torch.no_grad():
                for parameter in theirs.parameters():
                    parameter -= lr * parameter.grad
        else:
            stepper.step()
    expected.append(mean_loss(theirs, windows[0]).item())
    assert losses == pytest.approx(expected, rel=1e-4)
    assert losses[-1] < losses[0]
    for mine, its in zip(ours.model.parameters(), theirs.parameters(), strict=True):
        assert not mine.requires_grad
        # AdamW moves a weight of almost no gradient by its sign, which rounding decides.
        assert (mine - its).abs().mean() < 1e-2 * lr * (1 if optimizer == "adamw" else 1e-3)


def test_the_checkpoint_is_the_same_again_and_the_model_stays(made, tiny_lm):
    before = weights_fingerprint(str(tiny_lm))
    first, again, other = made("a", steps=2), made("b", steps=2), made("c", steps=2, seed=1)
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    for name in names:
        if name not in {"stats.json", "config.yaml"}:
            assert (first / name).read_bytes() == (again / name).read_bytes()
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()
    assert weights_fingerprint(str(tiny_lm)) == before != weights_fingerprint(str(first))
    facts = json.loads((first / "lookahead.json").read_text())
    assert facts["weights"] == before
    assert len(facts["losses"]) == 3
    assert facts["losses"][-1] < facts["losses"][0]
    assert inspect(str(first)).status == "lookahead checkpoint, finished"
    assert AutoModelForCausalLM.from_pretrained(first).dtype == torch.float32


def test_steps_see_each_so_many_tokens_of_other_documents(made):
    facts = [json.loads((made(str(n), steps=n) / "lookahead.json").read_text()) for n in (1, 3)]
    assert facts[1]["windows"] > 2 * facts[0]["windows"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": 1e4}, "lower it"),
        ({"tokens": 10**9}, "the new corpus has .* tokens, and 1 step of 1,000,000,000"),
        ({"steps": 0}, "--steps 0: must be at least 1"),
        ({"lr": 0.0}, "--lr 0.0: must be"),
        ({"optimizer": "lion"}, "must be one of adamw, sgd"),
        ({"device": "tpu"}, "--device tpu"),
    ],
)
def test_what_can_not_be_is_named(made, tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        made("out", **options)
    assert not (tmp_path / "out").exists()


def test_an_older_checkpoint_stays_where_a_new_one_fails(made):
    out = made("out")
    weights = (out / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="exists; pass --overwrite"):
        made("out")
    with pytest.raises(UsageError, match="lower it"):
        made("out", lr=1e4, overwrite=True)
    assert (out / "model.safetensors").read_bytes() == weights
    assert (out / "_SUCCESS").exists()
    made("out", lr=0.01, overwrite=True)
    assert (out / "model.safetensors").read_bytes() != weights


@pytest.fixture
def run(tiny_lm, sample_data, new, tmp_path):
    def call(name, ahead=True, **options):
        one_step = {"lookahead_tokens": 300, "lookahead_steps": 1, "lookahead_optimizer": "sgd"}
        settings = {"model": str(tiny_lm)} | SMALL | ({"lookahead": (new,), **one_step} if ahead else {}) | options
        corpus = str(sample_data / "old" / "docs_*" / "*0.jsonl.gz")
        embed(EmbedConfig(inputs=(corpus,), out=str(tmp_path / name), **settings))
        return tmp_path / name

    return call


def test_embed_takes_gradients_there(run, made, tmp_path):
    here, base = run("ahead"), run("base", ahead=False)
    there = made("model")
    assert (here / "lookahead" / "model.safetensors").read_bytes() == (there / "model.safetensors").read_bytes()
    headers = [json.loads((path / "run.json").read_text()) for path in (here, base)]
    assert headers[0]["fingerprints"]["weights"] == weights_fingerprint(str(there))
    assert headers[0]["model"]["source"] == headers[1]["model"]["source"]
    assert headers[0]["options"]["lookahead"]["weights"] == headers[1]["fingerprints"]["weights"]
    summary = choose((base, here), tmp_path / "replay", group_by=None, method="craig", combine="difference")
    assert summary.status == "done"


def test_a_rerun_takes_the_checkpoint_that_is_there(run, monkeypatch):
    here = run("ahead")
    bytes_before = {path.name: path.read_bytes() for path in (here / "embeddings").iterdir()}
    (here / "_SUCCESS").unlink()
    next((here / "embeddings").iterdir()).unlink()
    monkeypatch.setattr(room, "make_lookahead", None)
    run("ahead")
    assert {path.name: path.read_bytes() for path in (here / "embeddings").iterdir()} == bytes_before
    monkeypatch.undo()
    for options, words in (
        ({"lookahead_lr": 0.2}, "was begun with --lookahead 1 step of sgd at 0.1 .*, now 1 step of sgd at 0.2"),
        ({"ahead": False}, "was begun with --lookahead .*, now not set"),
    ):
        with pytest.raises(UsageError, match=words):
            run("ahead", **options)
        assert (here / "_SUCCESS").exists()
    run("ahead", lookahead_lr=0.2, overwrite=True)
    assert json.loads((here / "lookahead" / "lookahead.json").read_text())["lr"] == 0.2
    with pytest.raises(UsageError, match="--lookahead-steps is read with --lookahead"):
        run("other", ahead=False, lookahead_steps=2)


def test_the_command(tiny_lm, new, tmp_path, capsys):
    argv = [
        "lookahead",
        str(tiny_lm),
        new,
        "--tokens",
        "300",
        "--steps",
        "2",
        "--max-tokens",
        "32",
        "--out",
        str(tmp_path / "x"),
    ]
    assert main([*argv, "--dry-run"]) == 0
    assert not (tmp_path / "x").exists()
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "done"


def column(run, name):
    return pq.read_table(run / "embeddings", columns=[name])[name].to_numpy()


def test_losses_before_stand_beside_those_after(run, tmp_path):
    here, base = run("ahead"), run("base", ahead=False)
    before = column(here, "base_loss_sum")
    assert before == pytest.approx(column(base, "loss_sum"), rel=1e-5)
    assert np.abs(before - column(here, "loss_sum")).max() > 1e-3
    options = {"group_by": None, "method": "craig", "budget": "10%", "similarity": "cosine", "scope": "global"}
    choose((here,), tmp_path / "by-default", **options)
    choose((here,), tmp_path / "by-rise", mass="interference", **options)
    choose((here,), tmp_path / "by-corpus", mass="corpus", **options)
    choose((base,), tmp_path / "plain", **options)
    picks = {name: samples(tmp_path / name) for name in ("by-default", "by-rise", "by-corpus")}
    assert picks["by-default"] == picks["by-rise"] != picks["by-corpus"]
    masses = {name: selection_options(tmp_path / name)["mass"] for name in (*picks, "plain")}
    assert list(masses.values()) == ["interference", "interference", "corpus", "corpus"]
    rises = column(here, "loss_sum") - before
    rising = set(pq.read_table(here / "embeddings")["sample_id"].filter(pa.array(rises > 0)).to_pylist())
    assert set(picks["by-default"]) <= rising
    draw = choose((here,), tmp_path / "draw", method="interference", group_by=None)
    assert draw.status == "done"


def samples(replay):
    return sorted(pq.read_table(replay / "samples", columns=["sample_id"])["sample_id"].to_pylist())


def selection_options(replay):
    return json.loads((replay / "manifest.json").read_text())["selection"]["options"]


def test_a_checkpoint_that_is_there_has_its_losses_before_by_base(run, tiny_lm, tmp_path):
    ahead, alone = run("ahead"), tmp_path / "alone"
    shutil.copytree(ahead / "lookahead", tmp_path / "checkpoint")
    here = run("here", ahead=False, model=str(tmp_path / "checkpoint"), base=str(tiny_lm))
    for name in ("sample_id", "loss_sum", "base_loss_sum"):
        assert column(here, name).tolist() == column(ahead, name).tolist()
    choose((here,), tmp_path / "replay", group_by=None, method="craig")
    assert selection_options(tmp_path / "replay")["mass"] == "interference"
    with pytest.raises(UsageError, match=r"was begun with --base [0-9a-f]+, now not set"):
        run("here", ahead=False, model=str(tmp_path / "checkpoint"))
    with pytest.raises(UsageError, match="--base is read without --lookahead"):
        run("both", base=str(tiny_lm))
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    tokenizer.backend_tokenizer.normalizer = Lowercase()
    shutil.copytree(tiny_lm, alone)
    tokenizer.save_pretrained(alone)
    with pytest.raises(UsageError, match="has another tokenizer than --model"):
        run("other", ahead=False, base=str(alone))


def test_losses_before_may_be_left_out(run, tmp_path):
    here = run("ahead", skip_base_loss=True)
    assert "base_loss_sum" not in pq.read_schema(next((here / "embeddings").iterdir())).names
    choose((here,), tmp_path / "replay", group_by=None, method="craig")
    assert selection_options(tmp_path / "replay")["mass"] == "corpus"
    with pytest.raises(UsageError, match="interference needs to know how losses rise: embed with --lookahead"):
        choose((here,), tmp_path / "no", group_by=None, method="interference")
    with pytest.raises(UsageError, match="was begun with --skip-base-loss True, now False"):
        run("ahead")
    with pytest.raises(UsageError, match="--skip-base-loss is read with --lookahead"):
        run("other", ahead=False, skip_base_loss=True)
    assert verify(VerifyConfig(directory=str(here))).status == "verified"


def test_every_phase_must_tell_how_losses_rise(run, tmp_path):
    here, base = run("ahead"), run("base", ahead=False)
    options = {"group_by": None, "method": "craig", "phase_run": (str(base),)}
    choose((here,), tmp_path / "replay", **options)
    assert selection_options(tmp_path / "replay")["mass"] == "corpus"
    with pytest.raises(UsageError, match="interference needs to know how losses rise"):
        choose((here,), tmp_path / "no", mass="interference", **options)
