"""The EWC penalty is its formula, and half of it is the divergence from the old model, near it."""

import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from cptsel.ewc import EWC, ewc_penalty
from cptsel.pipeline.chosen.config import FisherConfig
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.fisher import fisher


@pytest.fixture(scope="module")
def folder(embedded, tiny_lm, tmp_path_factory):
    out = tmp_path_factory.mktemp("ewc") / "fisher"
    fisher(FisherConfig(replay=str(embedded.replay), model=str(tiny_lm), out=str(out)), make_steps=InlineSteps)
    return out


def test_the_penalty_is_its_formula():
    fisher = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}
    anchor = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([[1.0]])}
    here = {"a": torch.tensor([2.0, 0.0], requires_grad=True), "b": torch.tensor([[1.5]]), "c": torch.ones(3)}
    penalty = ewc_penalty(here, fisher, anchor)
    assert penalty.item() == pytest.approx(1 * 4 + 2 * 1 + 3 * 0.25)
    penalty.backward()
    assert here["a"].grad.tolist() == [4.0, -4.0]


def test_it_is_nothing_at_the_start_and_pulls_back(folder, tiny_lm):
    model = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32)
    ewc = EWC(model, str(folder))
    assert ewc(model).item() == 0
    stored = load_file(folder / "fisher.safetensors")
    moved = {name: torch.randn_like(p) * 1e-3 for name, p in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += moved[name]
    expected = sum(float((stored[name].double() * moved[name].double().square()).sum()) for name in stored)
    assert ewc(model).item() == pytest.approx(expected, rel=1e-3)
    ewc(model).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * stored[name] * moved[name], rtol=1e-2, atol=1e-5)


def test_half_of_it_is_the_divergence_along_one_parameter(embedded, folder, tiny_lm):
    """KL ≈ ½ F δ² to second order, for moves of one weight: no other entry of the matrix takes part.

    Labels are drawn once a sample, so F of a weight is noisy; over some weights of the last norm that averages out.
    """
    model = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32).eval()
    rows = _weights(embedded)
    ewc, name, step = EWC(model, str(folder)), "model.norm.weight", 0.05
    weight = dict(model.named_parameters())[name]
    before = _log_probs(model, embedded)
    found = penalties = 0.0
    for index in range(0, 256, 16):
        with torch.no_grad():
            weight[index] += step
            after = _log_probs(model, embedded)
            penalties += 0.5 * ewc(model).item()
            weight[index] -= step
        found += _mean_divergence(before, after, rows)
    assert penalties == pytest.approx(found, rel=0.5)


def _weights(embedded):
    import pyarrow.parquet as pq

    rows = [row for path in sorted(embedded.replay.glob("samples/*")) for row in pq.read_table(path).to_pylist()]
    return {row["sample_id"]: row["weight"] for row in rows}


def _log_probs(model, embedded):
    with torch.no_grad():
        return {
            name: torch.log_softmax(model(torch.tensor([[model.config.bos_token_id, *ids[:-1]]])).logits[0].double(), 1)
            for name, ids in dict(embedded.plays).items()
        }


def _mean_divergence(before, after, weights):
    total = mass = 0.0
    for name, p in before.items():
        total += weights[name] * float((p.exp() * (p - after[name])).sum())
        mass += weights[name] * len(p)
    return total / mass


def test_what_does_not_fit_is_named(folder, tiny_lm, tmp_path):
    with pytest.raises(ValueError, match="is not finished; write it by cptsel fisher"):
        EWC(torch.nn.Linear(1, 1), str(tmp_path))
    with pytest.raises(ValueError, match=r"is \(\d+(, \d+)?\) there and is not in the model"):
        EWC(torch.nn.Linear(1, 1), str(folder))
    config = LlamaConfig.from_pretrained(tiny_lm, vocab_size=5)
    with pytest.raises(ValueError, match=r"embed_tokens\.weight is \(4096, 256\) there and has \(5, 256\)"):
        EWC(AutoModelForCausalLM.from_config(config), str(folder))


def test_the_file_works_alone(folder, repository, tmp_path):
    shutil.copy(repository / "src" / "cptsel" / "ewc.py", tmp_path)
    code = "import sys, ewc; print('cptsel' in sys.modules, 'transformers' in sys.modules, 'pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]
