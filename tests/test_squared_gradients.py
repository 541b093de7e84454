"""Squared gradients of single samples against autograd over the whole model, on every kind of head."""

import numpy as np
import pytest
import torch
import transformers
from model_builder import EXPERTS, KINDS, save, spec

from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.kernels.gradients import head as kernel
from cptsel.pipeline.kernels.gradients.fisher import draw_labels, label_variates
from cptsel.pipeline.kernels.gradients.head import LMHead
from cptsel.pipeline.model.fisher import SquaredGradients
from cptsel.pipeline.model.frozen import FrozenModel

IDS = [np.arange(1, 20) * 5 % 61, np.arange(3, 12) * 7 % 61]


def by_autograd(source, row, labels=None):
    """Loss and the gradient of every parameter, of one sample, through the model's own logits."""
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    tokens = torch.as_tensor(row).long().unsqueeze(0)
    logits = model(input_ids=tokens[:, :-1]).logits[0].float()
    wanted = tokens[0, 1:] if labels is None else labels
    loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return float(loss.detach()), logits.detach(), dict(zip(parameters, gradients, strict=True))


@pytest.mark.parametrize("kind", KINDS | EXPERTS)
def test_equals_autograd(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(kernel.CHUNK_ELEMENTS, "cpu", 61 * 7)  # several slices of tokens
    source = save((KINDS | EXPERTS)[kind](), tmp_path)
    squares = SquaredGradients(FrozenModel(spec(source)))
    weights = [3.0, 0.25]
    losses = [squares.add("x", row, weight, None) for row, weight in zip(IDS, weights, strict=True)]
    expected = {name: torch.zeros(total.shape) for name, total in squares.sums.items()}
    for row, weight, loss in zip(IDS, weights, losses, strict=True):
        theirs, _, gradients = by_autograd(source, row)
        assert loss == pytest.approx(theirs, rel=1e-5)
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            if gradient is not None:
                expected[name] += weight * gradient.square()
    for name, total in squares.sums.items():
        torch.testing.assert_close(total, expected[name], rtol=1e-3, atol=1e-5 * float(expected[name].max()))


@pytest.mark.parametrize("kind", ["tied", "logit bias"])
def test_bfloat16_is_near(kind, tmp_path):
    source, traces = save(KINDS[kind](), tmp_path), []
    for dtype in ("float32", "bfloat16"):
        squares = SquaredGradients(FrozenModel(spec(source, dtype=dtype)))
        squares.add("x", IDS[0], 2.0, None)
        assert all(total.dtype == torch.float32 for total in squares.sums.values())
        traces.append(sum(float(total.double().sum()) for total in squares.sums.values()))
    assert traces[1] == pytest.approx(traces[0], rel=0.1)


def test_a_gradient_is_of_one_sample_alone(tmp_path):
    """The square of a sum over samples would be another number."""
    squares = SquaredGradients(FrozenModel(spec(save(KINDS["tied"](), tmp_path))))
    for row in (IDS[0], IDS[0]):
        squares.add("x", row, 1.0, None)
    once = SquaredGradients(FrozenModel(spec(str(tmp_path))))
    once.add("x", IDS[0], 1.0, None)
    for name, total in squares.sums.items():
        torch.testing.assert_close(total, 2 * once.sums[name])


def test_drawn_labels_are_those_of_the_sample(tmp_path):
    source = save(KINDS["untied"](), tmp_path)
    squares = SquaredGradients(FrozenModel(spec(source)))
    loss = squares.add("a", IDS[0], 2.0, 7)
    _, logits, _ = by_autograd(source, IDS[0])
    sums = torch.softmax(logits.double(), 1).cumsum(1)
    labels = [int((row < u).sum()) for row, u in zip(sums, label_variates(7, "a", len(IDS[0]) - 1), strict=True)]
    theirs, _, gradients = by_autograd(source, IDS[0], torch.tensor(labels))
    assert labels != IDS[0][1:].tolist()
    assert loss == pytest.approx(theirs, rel=1e-4)
    for name, total in squares.sums.items():
        torch.testing.assert_close(total, 2 * gradients[name].square(), rtol=1e-3, atol=1e-5 * float(total.max()))


def test_labels_follow_the_model():
    """Frequencies over many draws, within five standard errors."""
    n = 20_000
    u = torch.from_numpy(label_variates(0, "many", n))
    rows = torch.tensor([[2.0, 0.0, -1.0, 1.0]]).expand(n, -1)
    labels = draw_labels(rows, LMHead(torch.eye(4)), u)
    p = torch.softmax(rows[0].double(), 0)
    share = torch.bincount(labels, minlength=4) / n
    assert bool(((share - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all())
    ends = torch.tensor([2.0**-53, 1.0], dtype=torch.float64)
    assert draw_labels(rows[:2], LMHead(torch.eye(4)), ends).tolist() == [0, 3]


def test_the_expectation_over_labels_is_the_fisher_information(tmp_path):
    """Squares of the summed gradient, averaged over draws, are Σ_t Σ_v p_t(v) (∂ log p_t(v))², within noise.

    Of the last norm of the model, whose few numbers can be enumerated over positions and tokens.
    """
    source = save(KINDS["tied"](), tmp_path)
    row, name, draws = IDS[1][:4], "model.norm.weight", 400
    squares = SquaredGradients(FrozenModel(spec(source)))
    found = []
    for seed in range(draws):
        before = squares.sums[name].clone()
        squares.add("a", row, 1.0, seed)
        found.append(squares.sums[name] - before)
    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    logs = torch.log_softmax(model(input_ids=torch.as_tensor(row[:-1]).long().unsqueeze(0)).logits[0], 1)
    exact = torch.zeros_like(found[0])
    for position in logs:
        for log_p in position:
            (gradient,) = torch.autograd.grad(log_p, [model.model.norm.weight], retain_graph=True)
            exact += log_p.exp().detach() * gradient.square()
    values = torch.stack(found).double()
    errors = values.std(0) / draws**0.5
    assert bool(((values.mean(0) - exact).abs() <= 5 * errors).all())
    assert float(errors.max()) < float(exact.max()) / 4  # the bound means something


def test_parameters_without_gradient_are_refused_by_name(tmp_path):
    model = FrozenModel(spec(save(KINDS["tied"](), tmp_path)))
    norm = model.model.model.norm
    norm.weight = torch.nn.Parameter(norm.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(UsageError, match=r"the parameter model\.norm\.weight is torch\.int8 and has no gradient"):
        SquaredGradients(model)


def test_variates_are_names_of_seed_and_sample():
    assert np.array_equal(label_variates(0, "a", 9)[:5], label_variates(0, "a", 5))
    assert not np.array_equal(label_variates(0, "a", 5), label_variates(1, "a", 5))
    assert not np.array_equal(label_variates(0, "a", 5), label_variates(0, "b", 5))
