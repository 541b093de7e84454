"""The two-stage sketch: linear, unbiased, the same everywhere, and faithful to inner products."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cptsel.pipeline.kernels.gradients import sketch as sketch_module
from cptsel.pipeline.kernels.gradients.sketch import K_V, K_V_VALIDATION, HeadSketch, permutation, philox_words, signs


def dense_matrix(table: HeadSketch, vocab: int, hidden: int) -> np.ndarray:
    """The (k, V·d) matrix that the sketch stands for, entry by entry: the slow, obvious form."""
    out = np.zeros((table.k, vocab * hidden), np.float32)
    for v in range(vocab):
        for j in range(hidden):
            errors, states = torch.zeros(1, vocab), torch.zeros(1, hidden)
            errors[0, v] = states[0, j] = 1.0
            out[:, v * hidden + j] = table.sketch(errors, states).numpy()
    return out


@pytest.mark.parametrize(("vocab", "hidden", "k", "k_v"), [(13, 5, 8, 4), (7, 3, 64, 16), (16, 4, 3, 8), (5, 1, 1, 2)])
def test_every_gradient_entry_lands_in_one_bucket_with_a_sign(vocab, hidden, k, k_v):
    matrix = dense_matrix(HeadSketch.create(0, "t", vocab, hidden, k, k_v), vocab, hidden)
    assert (np.count_nonzero(matrix, axis=0) == 1).all()
    assert set(np.unique(matrix)) <= {-1.0, 0.0, 1.0}
    fullest = np.count_nonzero(matrix, axis=1).max()
    assert fullest <= -(-min(k_v, vocab) * hidden // k) * -(-vocab // min(k_v, vocab))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(2, 30), st.integers(1, 9), st.integers(1, 40))
def test_sketch_is_the_linear_map_of_the_gradient(seed, steps, vocab, hidden, k):
    table = HeadSketch.create(seed, "t", vocab, hidden, k, 8)
    generator = torch.Generator().manual_seed(seed)
    errors = torch.randn(steps, vocab, generator=generator)
    states = torch.randn(steps, hidden, generator=generator)
    gradient = (errors.T @ states).numpy().reshape(-1)
    expected = dense_matrix(table, vocab, hidden) @ gradient
    np.testing.assert_allclose(table.sketch(errors, states).numpy(), expected, atol=1e-4)


def test_inner_products_are_unbiased():
    rng = np.random.default_rng(0)
    vocab, hidden, k, seeds = 24, 6, 16, 4000
    left = [torch.tensor(rng.standard_normal((3, n)), dtype=torch.float32) for n in (vocab, hidden)]
    right = [torch.tensor(rng.standard_normal((3, n)) + 0.3, dtype=torch.float32) for n in (vocab, hidden)]
    exact = float(((left[0].T @ left[1]) * (right[0].T @ right[1])).sum())
    estimates = []
    for seed in range(seeds):
        table = HeadSketch.create(seed, "t", vocab, hidden, k, 8)
        estimates.append(float(table.sketch(*left) @ table.sketch(*right)))
    error = np.std(estimates) / np.sqrt(seeds)
    assert abs(np.mean(estimates) - exact) < 4 * error
    norms = [np.linalg.norm(errors.T @ states) for errors, states in (left, right)]
    assert error < 0.1 * norms[0] * norms[1]  # so that a bias would be seen


def test_onehot_part_equals_a_dense_onehot():
    table = HeadSketch.create(3, "t", 50, 4, 16, 8)
    probabilities = torch.rand(6, 50)
    labels = torch.tensor([0, 7, 49, 8, 8, 16])
    scale = torch.rand(6)
    folded = table.fold_vocab(probabilities)
    table.subtract_onehot(folded, labels, scale)
    dense = probabilities - torch.nn.functional.one_hot(labels, 50) * scale.unsqueeze(1)
    torch.testing.assert_close(folded, table.fold_vocab(dense))


def test_sketch_and_validation_share_no_collision_pattern():
    assert np.gcd(K_V, K_V_VALIDATION) == 1
    first = HeadSketch.create(0, "head", 600, 4, 64, K_V)
    second = HeadSketch.create(0, "head/validation", 600, 4, 64, K_V_VALIDATION)
    agreement = (first.vocab_signs == second.vocab_signs).float().mean()
    assert 0.4 < agreement < 0.6
    collide = lambda k_v: {(a, b) for a in range(600) for b in range(a) if a % k_v == b % k_v}  # noqa: E731
    assert not collide(K_V) & collide(K_V_VALIDATION)


def test_signs_and_permutations_are_balanced():
    assert abs(signs(0, "s", 100_000).mean()) < 0.02
    order = permutation(0, "p", 1000)
    assert sorted(order) == list(range(1000))
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.15


def test_numbers_are_the_same_in_every_release():
    """Golden: a change of these numbers makes old embeddings incomparable with new ones: raise FORMAT_VERSION."""
    assert sketch_module.FORMAT_VERSION == 1
    assert [hex(word) for word in philox_words(0, "head/vocab-signs", 3)] == GOLDEN_WORDS
    table = HeadSketch.create(7, "head", 40, 3, 6, 8)
    errors = (torch.arange(80).view(2, 40) % 7 - 3).float()
    states = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 4.0]])
    assert table.sketch(errors, states).tolist() == GOLDEN_SKETCH


def test_two_processes_draw_the_same_tables():
    program = (
        "import hashlib; from cptsel.pipeline.kernels.gradients.sketch import HeadSketch as H\n"
        "t = H.create(5, 'head', 300, 16, 64, 32)\n"
        "tables = b''.join(x.numpy().tobytes() for x in (t.vocab_signs, t.take, t.take_signs))\n"
        "print(hashlib.sha256(tables).hexdigest())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] != ""


GOLDEN_WORDS = ["0x9fab087274d56d7e", "0xaa1edf8caf91f610", "0xfe5911e96bf293f2"]
GOLDEN_SKETCH = [46.5, 11.5, 16.5, 18.0, -34.0, -40.0]
