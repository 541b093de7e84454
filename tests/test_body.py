"""Gradients of the layers below the head, against autograd, on every architecture."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from model_builder import EXPERTS, GPT2, KINDS, save, spec

from cptsel.pipeline.artifacts.embeddings import read_rows
from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding import mixing
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.kernels.gradients import matrix_sketch
from cptsel.pipeline.kernels.gradients.head import LMHead, LogitMap, head_backward
from cptsel.pipeline.kernels.gradients.matrix_sketch import MatrixSketch
from cptsel.pipeline.model.frozen import FrozenModel
from cptsel.pipeline.model.gradients.body import BodyGradient
from cptsel.pipeline.model.gradients.head import HeadGradient
from cptsel.pipeline.model.gradients.head_body import HeadBodyGradient

IDS = [np.arange(1, 20) * 5 % 61, np.arange(3, 12) * 7 % 61]


def by_autograd(source, row, pattern=None):
    """Loss and the gradient of every linear layer below the head, of one sample alone."""
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    kinds = (torch.nn.Linear, transformers.pytorch_utils.Conv1D)
    layers = {name: m for name, m in model.base_model.named_modules() if isinstance(m, kinds)}
    tokens = torch.as_tensor(row).long().unsqueeze(0)
    logits = model(input_ids=tokens[:, :-1]).logits[0].float()
    loss = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum")
    gradients = torch.autograd.grad(loss, [layer.weight for layer in layers.values()])
    found = zip(layers.items(), gradients, strict=True)
    return float(loss.detach()), {n: g if isinstance(m, torch.nn.Linear) else g.T for (n, m), g in found}


@pytest.mark.parametrize("kind", KINDS)
def test_equals_autograd(kind, tmp_path):
    source = save(KINDS[kind](), tmp_path)
    body = BodyGradient(FrozenModel(spec(source, gradient="body")))
    result = body.of_windows(IDS)
    for i, row in enumerate(IDS):
        loss, gradients = by_autograd(source, row)
        assert gradients.keys() == body.layers.keys()
        norm = sum(float(g.square().sum()) for g in gradients.values()) ** 0.5
        assert float(result.loss_sum[i]) == pytest.approx(loss, rel=1e-4)
        assert float(result.exact_norm[i]) == pytest.approx(norm, rel=1e-3)
        for found, which in ((result.sketch, 0), (result.validation, 1)):
            expected = sum(body.tables[name][which].of_matrix(g) for name, g in gradients.items())
            torch.testing.assert_close(found[i], expected, rtol=1e-3, atol=1e-3 * norm)
    assert not any(p.requires_grad for p in body.model.model.parameters())


def test_a_row_does_not_depend_on_its_batch_mates(tmp_path):
    body = BodyGradient(FrozenModel(spec(save(KINDS["tied"](), tmp_path), gradient="body")))
    both = body.of_windows(IDS)
    for i, row in enumerate(IDS):
        alone = body.of_windows([row])
        torch.testing.assert_close(both.sketch[i], alone.sketch[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(both.exact_norm[i], alone.exact_norm[0], rtol=1e-4, atol=1e-5)


def test_modules_are_narrowed_by_a_pattern(tmp_path):
    source = save(KINDS["tied"](), tmp_path)
    body = BodyGradient(FrozenModel(spec(source, gradient="body", modules="*mlp*")))
    assert len(body.layers) == 6
    _, gradients = by_autograd(source, IDS[0])
    norm = sum(float(g.square().sum()) for name, g in gradients.items() if "mlp" in name) ** 0.5
    assert float(body.of_windows(IDS).exact_norm[0]) == pytest.approx(norm, rel=1e-3)
    with pytest.raises(UsageError, match="--modules nothing: no linear layer"):
        BodyGradient(FrozenModel(spec(source, gradient="body", modules="nothing")))


def test_experts_that_share_a_tensor_are_refused_by_name_or_left_out(tmp_path):
    source = save(EXPERTS["mixtral"](), tmp_path)
    with pytest.raises(UsageError, match=r"layers\.0\.mlp\..* of MixtralForCausalLM is a weight of no linear layer"):
        BodyGradient(FrozenModel(spec(source, gradient="body")))
    body = BodyGradient(FrozenModel(spec(source, gradient="body", modules="*attn*")))
    _, gradients = by_autograd(source, IDS[0])
    norm = sum(float(g.square().sum()) for name, g in gradients.items() if "attn" in name) ** 0.5
    assert float(body.of_windows(IDS).exact_norm[0]) == pytest.approx(norm, rel=1e-3)


def test_shared_weights_are_named(tmp_path, monkeypatch):
    """Two layers with one weight: each sees a part of its gradient."""
    frozen = FrozenModel(spec(save(KINDS["tied"](), tmp_path), gradient="body"))
    layers = frozen.base.layers
    layers[1].mlp.up_proj.weight = layers[0].mlp.up_proj.weight
    with pytest.raises(UsageError, match=r"the gradient of layers\.0\.mlp\.up_proj can't be taken"):
        BodyGradient(frozen)


def test_a_layer_that_does_not_run_is_named(tmp_path):
    frozen = FrozenModel(spec(save(KINDS["tied"](), tmp_path), gradient="body"))
    frozen.base.unused = torch.nn.Linear(4, 4)
    with pytest.raises(UsageError, match=r"the gradient of unused can't be taken"):
        BodyGradient(frozen)


def test_dropout_that_is_on_is_noticed(tmp_path):
    frozen = FrozenModel(spec(save(transformers.GPT2Config(**GPT2), tmp_path), gradient="body"))
    for module in frozen.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.train()
    with pytest.raises(UsageError, match="can't be taken"):
        BodyGradient(frozen)


@pytest.mark.parametrize("logit_map", [LogitMap(), LogitMap(scale=0.5, softcap=3.0)])
def test_the_backward_pass_through_the_head_is_autograds(logit_map):
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 7, 5), torch.randn(11, 5)
    labels, lengths = torch.randint(11, (2, 7)), torch.tensor([7, 4])
    loss, below = head_backward(hidden, labels, lengths, LMHead(weight, None, logit_map))
    for i, n in enumerate(lengths.tolist()):
        states = hidden[i, :n].clone().requires_grad_(True)
        z = (
            logit_map.apply_((states @ weight.T).clone())
            if logit_map.softcap is None
            else (logit_map.softcap * torch.tanh(states @ weight.T * logit_map.scale / logit_map.softcap))
        )
        expected = torch.nn.functional.cross_entropy(z, labels[i, :n], reduction="sum")
        (gradient,) = torch.autograd.grad(expected, states)
        assert float(loss[i]) == pytest.approx(float(expected.detach()), rel=1e-5)
        torch.testing.assert_close(below[i, :n], gradient, rtol=1e-4, atol=1e-5)
        assert not below[i, n:].any()


def test_sketches_of_matrices_keep_inner_products():
    """The mean over seeds of ⟨s(X), s(Y)⟩ is ⟨X, Y⟩, within five standard errors."""
    torch.manual_seed(1)
    x, y = torch.randn(2, 23, 17)
    y += 0.5 * x
    products = []
    for seed in range(300):
        table = MatrixSketch.create(seed, "m", 23, 17, 64, 8)
        products.append(float(table.of_matrix(x) @ table.of_matrix(y)))
    error = np.std(products) / np.sqrt(len(products))
    assert abs(np.mean(products) - float((x * y).sum())) < 5 * error
    assert np.gcd(matrix_sketch.R, matrix_sketch.R_VALIDATION) == 1


def test_half_precision_is_close(tmp_path):
    source = save(KINDS["tied"](), tmp_path)
    full, half = (
        BodyGradient(FrozenModel(replace(spec(source, gradient="body"), dtype=dtype))).of_windows(IDS)
        for dtype in ("float32", "bfloat16")
    )
    assert torch.nn.functional.cosine_similarity(full.sketch, half.sketch).min() > 0.98


def test_head_and_body_are_mixed_as_asked(tmp_path):
    frozen = FrozenModel(spec(save(KINDS["soft-cap"](), tmp_path), gradient="head+body", mixing=(0.5, 3.0)))
    both, head, body = (kind(frozen).of_windows(IDS) for kind in (HeadBodyGradient, HeadGradient, BodyGradient))
    for name in ("sketch", "validation"):
        expected = 0.5 * getattr(head, name) + 3.0 * getattr(body, name)
        torch.testing.assert_close(getattr(both, name), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both.exact_norm, torch.hypot(0.5 * head.exact_norm, 3.0 * body.exact_norm))
    torch.testing.assert_close(both.loss_sum, head.loss_sum)


@pytest.fixture
def run(tiny_lm, sample_data, tmp_path):
    def call(name, **options):
        settings = {"max_tokens": 32, "sketch_dim": 256, "validation_dim": 64, "limit": 3} | options
        corpus = str(sample_data / "old" / "docs_*" / "*0.jsonl.gz")
        embed(EmbedConfig(inputs=(corpus,), model=str(tiny_lm), out=str(tmp_path / name), **settings))
        header = json.loads((tmp_path / name / "run.json").read_text())
        return tmp_path / name, header["projection"]

    return call


def test_parts_are_of_one_size_and_runs_that_go_together_share_the_factors(run, sample_data, monkeypatch):
    first, projection = run("first", gradient="head+body")
    squares, tokens = {}, {}
    for kind in ("head", "body"):
        opened = open_runs([str(run(kind, gradient=kind)[0])])
        for shard in opened.shards:
            rows = read_rows(shard, opened.schema, ["sketch_norm", "n_tokens"])
            squares[kind] = squares.get(kind, 0.0) + (rows["sketch_norm"].to_numpy().astype(float) ** 2).sum()
            tokens[kind] = tokens.get(kind, 0) + rows["n_tokens"].to_numpy().sum()
    for kind, factor in projection["mixing"].items():
        assert factor**2 * squares[kind] / tokens[kind] == pytest.approx(1.0, rel=0.5)  # found on a few windows
    new = str(sample_data / "new" / "*" / "*")
    ahead = {"lookahead": (new,), "lookahead_tokens": 200, "lookahead_steps": 1}
    assert run("ahead", gradient="head+body", **ahead)[1] == projection
    monkeypatch.setattr(mixing, "_found", None)
    assert run("again", gradient="head+body", seed=0, mixing=str(first), limit=2)[1] == projection
    (first / "_SUCCESS").unlink()
    assert run("first", gradient="head+body")[1] == projection
    with pytest.raises(UsageError, match="has no --gradient head\\+body"):
        run("other", gradient="head+body", mixing=str(first.parent / "head"))
    with pytest.raises(UsageError, match="--gradient head, now body"):
        run("head", gradient="body")
    with pytest.raises(UsageError, match="--modules is read with a --gradient of the body"):
        run("head", modules="*mlp*")
