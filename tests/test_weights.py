"""Weights: one meaning whatever a method finds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.kernels.sampling.weights import coreset_weights, effective_tokens, loss_factor

PICKS = st.lists(st.tuples(st.floats(1e-6, 1e9), st.integers(1, 4096)), min_size=1, max_size=50)


@given(PICKS, st.floats(1e-3, 1e15))
def test_weights_sum_to_the_target_whatever_the_scale_of_what_was_found(picks, target):
    found, n_tokens = (np.array(column) for column in zip(*picks, strict=True))
    weight = coreset_weights(found, n_tokens, target, found.sum())
    assert np.isclose(weight @ n_tokens, target, rtol=1e-12)
    assert np.allclose(weight * n_tokens / found, weight[0] * n_tokens[0] / found[0], rtol=1e-9)
    assert np.allclose(coreset_weights(found * 7.5, n_tokens, target, 7.5 * found.sum()), weight, rtol=1e-12)


@given(PICKS)
def test_loss_weights_have_mean_one_over_tokens(picks):
    weight, n_tokens = (np.array(column) for column in zip(*picks, strict=True))
    scaled = weight * loss_factor(int(n_tokens.sum()), float(weight @ n_tokens))
    assert np.isclose(scaled @ n_tokens, n_tokens.sum(), rtol=1e-12)


@given(PICKS)
def test_effective_tokens_are_all_of_them_when_weights_are_even_and_never_more(picks):
    def effective(weight):
        return effective_tokens(float(weight @ n_tokens), float((weight * weight) @ n_tokens))

    weight, n_tokens = (np.array(column) for column in zip(*picks, strict=True))
    assert np.isclose(effective(np.full(len(weight), 0.3)), n_tokens.sum())
    assert effective(weight) <= n_tokens.sum() * (1 + 1e-12)
    assert effective(weight) >= n_tokens[np.argmax(weight)] * (1 - 1e-12)
