"""The forward-only head gradient against autograd, on the trained model and on made-up heads of every kind."""

import gzip
import json

import numpy as np
import pytest
import torch
from model_builder import spec
from scipy.stats import spearmanr

from cptsel.pipeline.kernels.gradients import head as head_gradient
from cptsel.pipeline.kernels.gradients.head import LMHead, LogitMap, head_gradients, head_losses
from cptsel.pipeline.kernels.gradients.sketch import K_V, K_V_VALIDATION, HeadSketch
from cptsel.pipeline.model.frozen import FrozenModel
from cptsel.pipeline.model.gradients.head import HeadGradient
from cptsel.pipeline.model.tokenizer import load_tokenizer

MAPS = [LogitMap(), LogitMap(scale=0.25), LogitMap(softcap=3.0), LogitMap(scale=1.7, softcap=5.0)]


def by_autograd(hidden, labels, weight, bias, logit_map):
    """The (V, d) gradient of one sample's summed loss, and the loss."""
    weight = weight.detach().clone().requires_grad_(True)
    z = torch.nn.functional.linear(hidden, weight, bias) * logit_map.scale
    if logit_map.softcap is not None:
        z = torch.tanh(z / logit_map.softcap) * logit_map.softcap
    loss = torch.nn.functional.cross_entropy(z, labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, weight)
    return gradient, float(loss.detach())


def dense_sketch(gradient: torch.Tensor, table: HeadSketch) -> torch.Tensor:
    """Sketch a (V, d) gradient through an identity: errors = Gᵀ, states = I."""
    return table.sketch(gradient.T.contiguous(), torch.eye(gradient.shape[1]))


@pytest.mark.parametrize("logit_map", MAPS)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("steps", [3, 20])  # fewer and more than the width: both forms of the exact norm
def test_equals_autograd(logit_map, with_bias, steps, monkeypatch):
    monkeypatch.setitem(head_gradient.CHUNK_ELEMENTS, "cpu", 150)  # several chunks, the last one short
    torch.manual_seed(steps)
    vocab, width = 37, 8
    weight, bias = torch.randn(vocab, width), torch.randn(vocab) if with_bias else None
    hidden, labels = torch.randn(2, steps, width), torch.randint(vocab, (2, steps))
    lengths = torch.tensor([steps, steps - 2])
    tables = [HeadSketch.create(0, name, vocab, width, k, k_v) for name, k, k_v in (("a", 32, 8), ("b", 16, 7))]
    head = LMHead(weight, bias, logit_map)
    result = head_gradients(hidden, labels, lengths, head, *tables, exact_norm=True)
    losses = head_losses(hidden, labels, lengths, head)
    for i, length in enumerate(lengths):
        gradient, loss = by_autograd(hidden[i, :length], labels[i, :length], weight, bias, logit_map)
        torch.testing.assert_close(result.sketch[i], dense_sketch(gradient, tables[0]), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(result.validation[i], dense_sketch(gradient, tables[1]), atol=1e-4, rtol=1e-4)
        assert float(result.loss_sum[i]) == pytest.approx(loss, rel=1e-5)
        assert float(losses[i]) == pytest.approx(loss, rel=1e-5)
        assert float(result.exact_norm[i]) == pytest.approx(float(gradient.norm()), rel=1e-4)


@pytest.fixture(scope="module")
def windows(sample_data, tiny_lm) -> list[np.ndarray]:
    """120 windows of real text in eight domains, of many lengths, with BOS before each."""
    tokenizer = load_tokenizer(str(tiny_lm))
    rows = []
    for shard in sorted((sample_data / "old").glob("*/shard-00000.jsonl.gz")):
        with gzip.open(shard, "rt", encoding="utf-8") as lines:
            for number, line in zip(range(15), lines, strict=False):
                ids = tokenizer(json.loads(line)["text"], add_special_tokens=False)["input_ids"]
                rows.append(np.asarray([0, *ids[: 48 + 9 * number]]))
    return rows


@pytest.fixture(scope="module")
def model(tiny_lm) -> FrozenModel:
    return FrozenModel(spec(str(tiny_lm), sketch_dim=1024, validation_dim=256, max_positions=257))


@pytest.fixture(scope="module")
def kind(model) -> HeadGradient:
    return HeadGradient(model)


def true_gradients(model: FrozenModel, windows: list[np.ndarray]) -> torch.Tensor:
    """(n, V·d) head gradients by autograd through the model's own loss, the head untied from the embeddings."""
    weight = model.head.weight.detach().clone()
    out = []
    for ids in windows:
        tokens = torch.as_tensor(ids).unsqueeze(0)
        with torch.no_grad():
            hidden = model.base(input_ids=tokens[:, :-1]).last_hidden_state[0]
        out.append(by_autograd(hidden, tokens[0, 1:], weight, None, LogitMap())[0].reshape(-1))
    return torch.stack(out)


def flat_count_sketch(gradients: torch.Tensor, k: int) -> torch.Tensor:
    """The plain CountSketch of whole gradients, (n, V·d) → (n, k): what the two stages are to lose nothing against."""
    generator = torch.Generator().manual_seed(0)
    buckets = torch.randint(k, (gradients.shape[1],), generator=generator)
    flips = torch.randint(2, (gradients.shape[1],), generator=generator) * 2.0 - 1.0
    return torch.zeros(len(gradients), k).index_add_(1, buckets, gradients * flips)


def test_fidelity_on_a_trained_model(model, kind, windows):
    """Cosines err by the 1/√k of any seeded projection and not more, so ranks are kept as well as k allows.

    How high the rank correlation gets depends on how far the true cosines spread (here by .05, benchmarks/embed.py), so
    it is held against the flat sketch of the same rows.
    """
    exact = true_gradients(model, windows)
    result = kind.of_windows(windows)
    cosines = [
        torch.nn.functional.normalize(rows, dim=1) @ torch.nn.functional.normalize(rows, dim=1).T
        for rows in (exact, result.sketch, result.validation, flat_count_sketch(exact, 1024))
    ]
    upper = np.triu_indices(len(windows), 1)
    truth, sketched, validated, flat = (matrix.numpy()[upper] for matrix in cosines)
    assert (sketched - truth).std() <= 1.1 / np.sqrt(1024)
    assert (validated - truth).std() <= 1.1 / np.sqrt(256)
    assert abs((sketched - truth).mean()) < 0.005
    assert spearmanr(truth, sketched).statistic >= spearmanr(truth, flat).statistic - 0.05
    norms = exact.double().norm(dim=1).float()  # a float32 sum of a million squares is off by 1e-4 itself
    torch.testing.assert_close(result.exact_norm, norms, rtol=1e-4, atol=0)
    assert float((result.sketch.norm(dim=1) / norms).std()) <= 0.05
    torch.testing.assert_close(
        result.sketch[5], dense_sketch(exact[5].view(model.head.weight.shape), kind.sketch), rtol=1e-3, atol=1e-3
    )


def test_rows_do_not_depend_on_batch_mates_or_padding(model, kind, windows):
    together = kind.of_windows(windows[:24])
    for i in (0, 7, 23):
        alone = kind.of_windows([windows[i]])
        for name in ("sketch", "validation"):
            left, right = getattr(alone, name)[0], getattr(together, name)[i]
            assert float((left - right).norm() / left.norm()) < 1e-5
        assert float(alone.loss_sum[0]) == pytest.approx(float(together.loss_sum[i]), rel=1e-5)


def test_bfloat16_accumulates_in_float32(model, kind, windows):
    """Same hidden states and head, rounded to bfloat16: sums over tokens must not round again."""
    tokens = torch.as_tensor(windows[14]).unsqueeze(0)
    with torch.no_grad():
        hidden = model.base(input_ids=tokens[:, :-1]).last_hidden_state.bfloat16()
    weight = model.head.weight.bfloat16()
    lengths = torch.tensor([hidden.shape[1]])
    tables = (kind.sketch, kind.validation)
    low = head_gradients(hidden, tokens[:, 1:], lengths, LMHead(weight), *tables)
    high = head_gradients(hidden.float(), tokens[:, 1:], lengths, LMHead(weight.float()), *tables)
    assert low.sketch.dtype == torch.float32
    assert float((low.sketch - high.sketch).norm() / high.sketch.norm()) < 0.02  # logits are rounded, sums are not
    assert (kind.sketch.k_v, kind.validation.k_v) == (K_V, K_V_VALIDATION)
