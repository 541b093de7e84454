"""Weights: one meaning whatever a method finds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.kernels.sampling.repeats import replay_rates, systematic_repeats
from cptsel.pipeline.kernels.sampling.weights import (
    REQUIRED_FEATURES,
    GroupShare,
    coreset_weights,
    effective_tokens,
    loss_weights,
    realise,
)

PICKS = st.lists(st.tuples(st.floats(1e-6, 1e9), st.integers(1, 4096)), min_size=1, max_size=50)


@given(PICKS, st.floats(1e-3, 1e15))
def test_weights_sum_to_the_target_whatever_the_scale_of_raw(picks, target):
    raw, n_tokens = (np.array(column) for column in zip(*picks, strict=True))
    weight = coreset_weights(raw, n_tokens, target)
    assert np.isclose(weight @ n_tokens, target, rtol=1e-12)
    assert np.allclose(weight * n_tokens / raw, weight[0] * n_tokens[0] / raw[0], rtol=1e-9)
    assert np.allclose(coreset_weights(raw * 7.5, n_tokens, target), weight, rtol=1e-12)


@given(PICKS)
def test_loss_weights_have_mean_one_over_tokens(picks):
    weight, n_tokens = (np.array(column) for column in zip(*picks, strict=True))
    scaled = loss_weights(weight, n_tokens)
    assert np.isclose(scaled @ n_tokens, n_tokens.sum(), rtol=1e-12)


@given(PICKS)
def test_effective_tokens_are_all_of_them_when_weights_are_even_and_never_more(picks):
    weight, n_tokens = (np.array(column) for column in zip(*picks, strict=True))
    assert np.isclose(effective_tokens(np.full(len(weight), 0.3), n_tokens), n_tokens.sum())
    assert effective_tokens(weight, n_tokens) <= n_tokens.sum() * (1 + 1e-12)
    assert effective_tokens(weight, n_tokens) >= n_tokens[np.argmax(weight)] * (1 - 1e-12)


@given(PICKS, st.sampled_from(sorted(REQUIRED_FEATURES)), st.integers(1, 5), st.floats(2**-53, 1))
def test_every_realisation_is_its_row_of_the_table(picks, realisation, cap, u):
    weight, n_tokens = (np.array(column) for column in zip(*picks, strict=True))
    members = [np.arange(len(picks))[part::2][::-1] for part in (0, 1)]
    groups = [GroupShare(part, 0.7 * n_tokens[part].sum(), u) for part in members]
    made = realise(realisation, weight, n_tokens, groups, cap)
    assert made.repeat.dtype == np.int32
    if realisation == "repeat":
        for group, shortfall in zip(groups, made.shortfall, strict=True):
            rates = replay_rates(weight[group.members], n_tokens[group.members], group.replay_tokens, cap)
            assert made.repeat[group.members].tolist() == systematic_repeats(rates.x, u).tolist()
            assert shortfall == rates.shortfall
    else:
        assert (made.repeat == 1).all()
        assert made.shortfall == [0.0, 0.0]
    if realisation in {"repeat", "loss"}:
        assert np.allclose(made.loss_weight / weight, n_tokens.sum() / (weight @ n_tokens), rtol=1e-9)
    else:
        assert (made.loss_weight == 1).all()


def test_an_unknown_realisation_is_refused_and_an_empty_phase_is_not():
    empty = np.empty(0)
    for realisation in REQUIRED_FEATURES:
        assert len(realise(realisation, empty, empty, [], 4).repeat) == 0
    with pytest.raises(ValueError, match="one of repeat, loss, sampling, none, not 'magic'"):
        realise("magic", empty, empty, [], 4)
