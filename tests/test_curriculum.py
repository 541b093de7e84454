"""Curriculum ranks against plain sorting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.kernels.sampling.curriculum import curriculum_rank

SCORES = st.lists(st.sampled_from([-2.0, 0.0, 0.5, 3.25, 1e300]) | st.floats(-10, 10), max_size=40)


@given(SCORES, st.booleans())
def test_sorted_with_ties_by_index(score, descending):
    played = sorted(range(len(score)), key=lambda i: (-score[i] if descending else score[i], i))
    rank = curriculum_rank(np.array(score), descending=descending)
    assert rank.dtype == np.int64
    assert [played[r] for r in rank.tolist()] == list(range(len(score)))


@given(SCORES, st.booleans(), st.integers(1, 50), st.randoms(use_true_random=False))
def test_buckets_are_even_runs_of_the_sorted_scores_shuffled_inside(score, descending, buckets, random):
    u = [random.choice([0.25, random.random()]) for _ in score]
    rank = curriculum_rank(np.array(score), descending=descending, buckets=buckets, u=np.array(u)).tolist()
    played = sorted(range(len(score)), key=lambda i: rank[i])
    by_score = sorted(range(len(score)), key=lambda i: (-score[i] if descending else score[i], i))
    sizes = []
    for number in range(buckets):
        run = [i for place, i in enumerate(by_score) if place * buckets // len(score) == number]
        begin = sum(sizes)
        assert played[begin : begin + len(run)] == sorted(run, key=lambda i: (u[i], i))
        sizes.append(len(run))
    assert sum(sizes) == len(score)
    assert max(sizes) - min(sizes) <= 1


def test_one_bucket_is_a_shuffle_and_as_many_as_samples_are_the_sorted_order():
    score, u = np.array([3.0, 1.0, 2.0, 2.0]), np.array([0.9, 0.8, 0.1, 0.5])
    assert curriculum_rank(score, buckets=1, u=u).tolist() == [3, 2, 0, 1]
    assert curriculum_rank(score, buckets=4, u=u).tolist() == curriculum_rank(score).tolist() == [3, 0, 1, 2]


@pytest.mark.parametrize(
    ("score", "options", "phrase"),
    [
        ([1.0, np.nan], {}, "1 of 2 scores are missing or not finite, the first at 1"),
        ([None, 1.0], {}, "1 of 2 scores are missing"),
        ([np.inf], {}, "not finite"),
        ([1.0], {"buckets": 0, "u": np.ones(1)}, "at least 1"),
        ([1.0], {"buckets": 2}, "one uniform variate"),
        ([1.0], {"buckets": 2, "u": np.ones(2)}, "one uniform variate"),
    ],
)
def test_what_has_no_order_is_refused(score, options, phrase):
    with pytest.raises(ValueError, match=phrase):
        curriculum_rank(np.array(score), **options)
