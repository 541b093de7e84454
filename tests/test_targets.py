"""Targets of distillation against a slow reference: the whole distribution, sorted."""

import numpy as np
import pytest
import torch

from cptsel.pipeline.kernels.gradients import head as kernel
from cptsel.pipeline.kernels.gradients.head import LMHead, LogitMap
from cptsel.pipeline.kernels.targets import hidden_projection, top_targets

MAPS = [LogitMap(), LogitMap(0.25), LogitMap(2.0, 5.0)]


def head(n=40, width=8, vocab=23, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=generator) for shape in ((n, width), (vocab, width), (vocab,)))


def reference(rows, weight, bias, logit_map, k):
    """Each position by itself: tokens by (falling log-probability, id), and the log of what the others add up to."""
    found = []
    for row in rows:
        a = weight @ row + (0 if bias is None else bias)
        z = logit_map.scale * a
        if logit_map.softcap is not None:
            z = logit_map.softcap * torch.tanh(z / logit_map.softcap)
        p = torch.log_softmax(z.double(), 0)
        order = sorted(range(len(p)), key=lambda v: (-float(z[v]), v))
        others = sum(float(p[v].exp()) for v in order[k:])
        found.append((order[:k], [float(p[v]) for v in order[:k]], np.log(others) if others else -np.inf))
    return found


@pytest.mark.parametrize("logit_map", MAPS)
@pytest.mark.parametrize("k", [1, 5, 22, 23])
@pytest.mark.parametrize("biased", [False, True])
def test_the_top_and_the_rest(monkeypatch, logit_map, k, biased):
    monkeypatch.setitem(kernel.CHUNK_ELEMENTS, "cpu", 23 * 7)  # several slices, the last one short
    rows, weight, bias = head()
    found = top_targets(rows, LMHead(weight, bias if biased else None, logit_map), k)
    expected = reference(rows, weight, bias if biased else None, logit_map, k)
    assert found.ids.tolist() == [ids for ids, _, _ in expected]
    np.testing.assert_allclose(found.log_probs, [values for _, values, _ in expected], atol=1e-5)
    np.testing.assert_allclose(found.rest, [rest for _, _, rest in expected], atol=1e-4)


@pytest.mark.parametrize("k", range(1, 13))
def test_of_equal_logits_the_lower_ids_are_taken(k):
    """Whole numbers of few values, so that most positions have ties at the edge of the top."""
    z = torch.randint(0, 3, (50, 12), generator=torch.Generator().manual_seed(k)).float()
    found = top_targets(z, LMHead(torch.eye(12)), k)
    assert found.ids.tolist() == [sorted(range(12), key=lambda v: (-row[v], v))[:k] for row in z.tolist()]


def test_a_small_rest_is_no_difference_to_one():
    rows, weight = torch.tensor([[60.0]]), torch.tensor([[1.0], [0.0], [0.5]])
    found = top_targets(rows, LMHead(weight), 2)
    assert found.rest.item() == pytest.approx(-60.0)


@pytest.mark.parametrize("k", [0, 24])
def test_k_is_of_the_vocabulary(k):
    rows, weight, _ = head()
    with pytest.raises(ValueError, match=f"k must be between 1 and 23, not {k}"):
        top_targets(rows, LMHead(weight), k)


def test_projection_keeps_inner_products_on_average():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 32)).astype(np.float32)
    found = [float((x @ m) @ (y @ m)) for m in (hidden_projection(seed, 32, 16) for seed in range(400))]
    spread = np.sqrt((x @ x) * (y @ y) + (x @ y) ** 2) / 4  # of one, at most
    assert np.mean(found) == pytest.approx(float(x @ y), abs=float(4 * spread / 20))
    assert np.array_equal(hidden_projection(1, 32, 16), hidden_projection(1, 32, 16))
    assert not np.array_equal(hidden_projection(1, 32, 16), hidden_projection(2, 32, 16))
