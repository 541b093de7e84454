"""The problem of matching: arguments that can't be meant are refused, and the rest follows from them."""

from dataclasses import replace

import numpy as np
import pytest

from cptsel.pipeline.kernels.matching.gradmatch import match
from cptsel.pipeline.kernels.matching.problem import Problem


def gradients(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 16)).astype(np.float32)


def tokens(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 50, n)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"g": np.full((5, 16), np.nan, np.float32)}, "finite float32"),
        ({"a": np.zeros(5)}, "weights a above 0"),
        ({"budget": -1}, "a budget is"),
        ({"n_tokens": np.zeros(5, np.int64), "budget_kind": "tokens"}, "n_tokens"),
        ({"ridge": -1.0}, "ridge"),
        ({"parts": 0}, "parts"),
        ({"tolerance": -0.1}, "tolerance"),
        ({"validation": np.zeros((4, 3), np.float32)}, "validation sketch"),
        ({"target": np.zeros(3)}, "the target must be 16"),
        ({"target": np.zeros(16), "validation": np.zeros((5, 3), np.float32)}, "validation_target"),
        ({"candidates": np.ones(5)}, "candidates"),
        ({"gain_factor": np.full(5, 2.0)}, "gain_factor"),
        ({"counts": np.zeros(5)}, "counts"),
    ],
)
def test_arguments_are_checked(change: dict, message: str) -> None:
    arguments = {"g": gradients(5, 0), "a": np.ones(5), "n_tokens": tokens(5, 0), "budget": 2, "budget_kind": "samples"}
    with pytest.raises(ValueError, match=message):
        match(**(arguments | change))


def pose(g: np.ndarray, n: np.ndarray, **arguments) -> Problem:
    names = ("candidates", "gain_factor", "validation", "target", "validation_target")
    empty = dict.fromkeys(names) | {"tolerance": 0.0, "uniform_weights": False}
    return Problem(g, np.ones(len(g)), n, **(empty | {"budget": 7, "budget_kind": "samples"} | arguments))


def test_costs_target_and_expected_picks_follow_from_the_arguments() -> None:
    g, n = gradients(6, 1), np.array([10, 20, 30, 40, 50, 60])
    posed = pose(g, n)
    assert posed.costs.tolist() == [1] * 6
    assert posed.free.all()
    np.testing.assert_allclose(posed.b, g.sum(axis=0, dtype=np.float64))
    assert posed.expected_picks == 6  # no more than there are
    by_tokens = replace(posed, budget=100, budget_kind="tokens", candidates=np.array([0, 0, 0, 1, 1, 1], bool))
    assert by_tokens.costs.tolist() == n.tolist()
    assert by_tokens.expected_picks == 2  # 100 tokens at a mean of 50
    assert replace(by_tokens, budget=1).expected_picks == 1  # and never none
    given = np.arange(16, dtype=np.float32)
    assert replace(posed, target=given).b.tolist() == given.tolist()
