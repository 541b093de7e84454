"""Repeats and curricula of samples on disk, against those of samples in memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.kernels.sampling.curriculum import curriculum_rank
from cptsel.pipeline.kernels.sampling.repeats import Chunk, capped_rates, replay_scales, systematic_repeats
from cptsel.pipeline.spill.columns import Column
from cptsel.pipeline.spill.plays import count_repeats, rank_by_score
from cptsel.pipeline.spill.sorting import ID, packed

GROUPS = 3
SEEDS = st.integers(0, 2**32)


def column(dtype, values):
    found = Column(dtype)
    found.append(np.asarray(values, dtype))
    return found


def names_of(rng, count):
    """Different names, of which many agree in their first half."""
    firsts = [f"{first:016x}" for first in (0, 2**63 - 1, 2**64 - 1)]
    return [f"{firsts[rng.integers(3)]}{second:016x}" for second in rng.permutation(count).tolist()]


@given(SEEDS, st.integers(1, 60), st.integers(1, 9), st.integers(1, 3))
def test_repeats_are_those_of_each_group_in_order_of_its_names(seed, count, rows, cap):
    rng = np.random.default_rng(seed)
    names, group = names_of(rng, count), rng.integers(0, GROUPS, count)
    weight, n_tokens = rng.choice([0.0, 0.5, 1.0, 40.0], count) * rng.uniform(0.9, 1.1), rng.integers(1, 50, count)
    target, u = rng.choice([10.0, 300.0, 1e6], GROUPS), 1 - rng.random(GROUPS)

    def chunks(size=rows):
        for start in range(0, count, size):
            part = slice(start, start + size)
            yield Chunk(group[part], weight[part], n_tokens[part])

    found, shortfall = count_repeats(chunks, np.arange(GROUPS), target, cap, column(ID, packed(names)), u, rows)
    scales = replay_scales(lambda: chunks(count), np.arange(GROUPS), target, cap)
    expected = np.zeros(count, np.int32)
    for number in range(GROUPS):
        mine = np.array([place for place in sorted(range(count), key=names.__getitem__) if group[place] == number], int)
        rates = capped_rates(weight[mine], scales.scale[number], cap)
        expected[mine], _ = systematic_repeats(rates, float(u[number]))
    assert found.read().tolist() == expected.tolist()
    assert shortfall.tolist() == scales.shortfall.tolist()


@given(
    SEEDS,
    st.lists(st.sampled_from([0.0, -0.0, 1.0, -2.5]) | st.floats(-1e9, 1e9), max_size=60),
    st.integers(1, 9),
    st.booleans(),
    st.none() | st.sampled_from([1, 2, 3, 7, 60, 2**40]),
)
def test_ranks_are_those_of_the_kernel(seed, score, rows, descending, buckets):
    rng = np.random.default_rng(seed)
    score, names, u = np.array(score), names_of(rng, len(score)), rng.choice([0.25, 0.5, 1.0], len(score))
    by_name = np.array(sorted(range(len(score)), key=names.__getitem__), int)
    expected = np.empty(len(score), np.int64)
    expected[by_name] = curriculum_rank(score[by_name], descending=descending, buckets=buckets, u=u[by_name])
    variates = column(np.float64, u if buckets else [])
    found = rank_by_score(
        column(np.float64, score),
        column(ID, packed(names)),
        variates,
        descending=descending,
        buckets=buckets,
        rows=rows,
    )
    assert found.read().tolist() == expected.tolist()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_no_order_are_refused(wrong):
    ids = column(ID, packed([f"{place:032x}" for place in range(3)]))
    with pytest.raises(ValueError, match="missing or not finite"):
        rank_by_score(
            column(np.float64, [1, 2, wrong]), ids, Column(np.float64), descending=False, buckets=None, rows=2
        )
