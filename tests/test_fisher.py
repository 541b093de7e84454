"""The diagonal of the Fisher information against autograd, sample by sample; equal bytes; resumed; refused."""

import json
import math
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import transformers
from safetensors.torch import load_file

from cptsel.cli.main import main
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.chosen import squares as chosen_squares
from cptsel.pipeline.chosen.config import FisherConfig
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.errors import BadInputError, UsageError
from cptsel.pipeline.fisher import fisher
from cptsel.pipeline.inspect import inspect
from cptsel.pipeline.kernels.gradients.fisher import label_variates

UNIT_TOKENS = 60


def run(embedded, model, out, **options):
    """The folder, once it is written."""
    options = {"unit_tokens": UNIT_TOKENS} | options
    config = FisherConfig(replay=str(embedded.replay), model=str(model), out=str(out), **options)
    return Path(out), fisher(config, make_steps=InlineSteps)


def tree(folder):
    names = set(outputs.list_tree(str(folder))) - {"stats.json", "config.yaml"}
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def rows(embedded):
    return [row for path in sorted(embedded.replay.glob("samples/*")) for row in pq.read_table(path).to_pylist()]


def expected_fisher(rows, ids, model, factor, seed):
    """Σ w (∇ log-likelihood)² / Σ w n, Σ w n and nats a token, by autograd through the model's own logits."""
    parameters = dict(model.named_parameters())
    sums = {name: torch.zeros(parameter.shape, dtype=torch.float64) for name, parameter in parameters.items()}
    mass = nats = 0.0
    for row in rows:
        if factor(row) == 0:
            continue
        mine = ids[row["sample_id"]]
        logits = model(torch.tensor([[model.config.bos_token_id, *mine[:-1]]])).logits[0].float()
        labels = torch.tensor(mine)
        if seed is not None:
            u = torch.from_numpy(label_variates(seed, row["sample_id"], len(mine)))
            sums_of = torch.softmax(logits.detach().double(), 1).cumsum(1)
            labels = torch.searchsorted(sums_of, (u * sums_of[:, -1]).unsqueeze(1)).squeeze(1)
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        for name, gradient in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True):
            sums[name] += factor(row) * gradient.double().square()
        mass += factor(row) * row["n_tokens"]
        nats += factor(row) * float(loss.detach())
    return {name: total / mass for name, total in sums.items()}, mass, nats / mass


@pytest.mark.parametrize(("kind", "weights"), [("true", "mass"), ("empirical", "mass"), ("empirical", "played")])
def test_equals_autograd_sample_by_sample(embedded, tiny_lm, rows, tmp_path, kind, weights):
    folder, summary = run(embedded, tiny_lm, tmp_path / "out", kind=kind, weights=weights, **_seeded(kind))
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32).eval()
    played = {row["sample_id"] for row in rows if row["repeat"]}
    ids = dict(embedded.plays)
    kept = [row for row in rows if row["sample_id"] in ids]
    if weights == "mass":  # what is never played counts too: its ids are in no play
        assert len(kept) == len(rows)
    factor = (lambda row: row["weight"]) if weights == "mass" else (lambda row: float(row["repeat"]))
    expected, mass, nats = expected_fisher(kept, ids, model, factor, 5 if kind == "true" else None)
    found = load_file(folder / "fisher.safetensors")
    assert found.keys() == expected.keys() == dict(model.named_parameters()).keys()
    for name, values in found.items():
        assert values.dtype == torch.float32
        torch.testing.assert_close(values.double(), expected[name], rtol=1e-3, atol=1e-5 * float(expected[name].max()))
    totals = json.loads((folder / "fisher.json").read_text())["totals"]
    assert totals["mass"] == pytest.approx(mass)
    assert totals["nats"] == pytest.approx(nats, rel=1e-4)
    assert totals["trace"] == pytest.approx(math.fsum(float(v.double().sum()) for v in found.values()), rel=1e-6)
    assert totals["parameters"] == sum(v.numel() for v in found.values())
    assert totals["samples"] == (len(rows) if weights == "mass" else len(played)) == summary.totals["samples"]


def _seeded(kind):
    return {"seed": 5} if kind == "true" else {}


@pytest.fixture(scope="module")
def made(embedded, tiny_lm, tmp_path_factory):
    return run(embedded, tiny_lm, tmp_path_factory.mktemp("fisher") / "out")


def test_what_is_left_is_the_result_alone(made):
    folder, _ = made
    names = set(outputs.list_tree(str(folder)))
    assert names == {
        "_SUCCESS", "SHA256SUMS", "config.yaml", "fisher.json", "fisher.safetensors", "stats.json",
    }  # fmt: skip
    header = json.loads((folder / "fisher.json").read_text())
    digest, size = outputs.hash_file(str(folder / "fisher.safetensors"))
    assert header["files"] == {"fisher.safetensors": {"sha256": digest, "bytes": size}}
    assert header["fisher"] == {"kind": "true", "weights": "mass", "seed": 0}
    assert inspect(str(folder)).status == "Fisher information, finished"


def test_equal_bytes_with_two_workers(made, embedded, tiny_lm, tmp_path):
    config = FisherConfig(
        replay=str(embedded.replay), model=str(tiny_lm), out=str(tmp_path / "2"), unit_tokens=UNIT_TOKENS, workers=2
    )
    fisher(config)
    assert tree(tmp_path / "2") == tree(made[0])


def count_units(monkeypatch, stop_after=10**9):
    computed, write = [], chosen_squares.WriteSquares._write

    def counting(self, path, unit):
        if len(computed) == stop_after:
            raise KeyboardInterrupt
        computed.append(unit.name)
        return write(self, path, unit)

    monkeypatch.setattr(chosen_squares.WriteSquares, "_write", counting)
    return computed


def test_partial_sums_that_are_whole_are_not_computed_again(made, embedded, tiny_lm, tmp_path, monkeypatch):
    first = count_units(monkeypatch, stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        run(embedded, tiny_lm, tmp_path / "out")
    monkeypatch.undo()
    assert len(first) == 3
    path = tmp_path / f"out/partials/{first[1]}.safetensors"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)  # rots: it is found by its checksum and made again
    computed = count_units(monkeypatch)
    folder, summary = run(embedded, tiny_lm, tmp_path / "out")
    assert summary.status == "resumed"
    assert first[1] in computed
    assert not {first[0], first[2]} & set(computed)
    assert tree(folder) == tree(made[0])
    computed.clear()
    assert run(embedded, tiny_lm, folder)[1].status == "already done"
    assert computed == []


def test_partial_sums_that_a_kill_left_behind_are_deleted(made, embedded, tiny_lm, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "out")
    (folder / "partials").mkdir()
    (folder / "partials/000000-00000.safetensors").write_bytes(b"left by a call that was killed after _SUCCESS")
    assert run(embedded, tiny_lm, folder)[1].status == "already done"
    assert tree(folder) == tree(made[0])


def test_another_call_is_refused(made, embedded, tiny_lm, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "out")
    with pytest.raises(UsageError, match=r"was begun with fisher\.kind true, now empirical; use another --out"):
        run(embedded, tiny_lm, folder, kind="empirical")
    assert tree(folder) == tree(made[0])


def test_a_result_that_rots_is_made_again(made, embedded, tiny_lm, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "out")
    data = bytearray((folder / "fisher.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "fisher.safetensors").write_bytes(data)
    assert run(embedded, tiny_lm, folder)[1].status == "resumed"
    assert tree(folder) == tree(made[0])


def test_numbers_that_are_not_finite_are_an_error(embedded, tiny_lm, tmp_path, monkeypatch):
    monkeypatch.setattr(
        chosen_squares.SquaredGradients, "add", lambda self, *_: self.sums["model.norm.weight"].fill_(torch.inf)
    )
    with pytest.raises(
        BadInputError, match=r"0\.jsonl: rows \d to \d: squared gradients of model\.norm\.weight are not"
    ):
        run(embedded, tiny_lm, tmp_path / "out")


def test_options_that_are_refused(embedded, tiny_lm, tmp_path):
    for options, words in (
        ({"kind": "empirical", "seed": 3}, "--seed is read with --kind true; leave it out"),
        ({"dtype": "float16"}, "--dtype float16: must be one of float32, bfloat16"),
        ({"weights": "all"}, "--weights all: must be one of mass, played"),
    ):
        with pytest.raises(UsageError, match=words):
            run(embedded, tiny_lm, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_dry_run_writes_nothing_and_counts_right(made, embedded, tiny_lm, tmp_path):
    _, summary = run(embedded, tiny_lm, tmp_path / "out", dry_run=True)
    assert not (tmp_path / "out").exists()
    for key in ("samples", "tokens"):
        assert summary.totals[key] == made[1].totals[key]


def test_the_command_line_on_beam(embedded, tiny_lm, tmp_path, capsys):
    command = ["fisher", str(embedded.replay), "--model", str(tiny_lm), "--kind", "empirical"]
    assert main([*command, "--out", str(tmp_path / "out"), "--json", "--", "--runner=DirectRunner"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["kind"] == "empirical"
