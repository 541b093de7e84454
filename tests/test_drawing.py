"""Draws from entries on disk, against a priority sample of each group in memory."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.kernels.budget import carry
from cptsel.pipeline.kernels.sampling.draws import priority_keys, priority_sample
from cptsel.pipeline.selection.drawing import GroupDraws


@given(
    st.integers(0, 2**32),
    st.integers(0, 60),
    st.sampled_from([1, 2, 3, 70]),
    st.integers(1, 9),
    st.integers(1, 4),
)
def test_every_group_is_drawn_as_if_it_were_alone_with_what_is_left(seed, count, groups, rows, largest):
    """Groups without entries and without a budget, keys of 0, equal keys, and entries of several samples among them."""
    rng = np.random.default_rng(seed)
    group, names = rng.integers(0, groups, count), [f"{place:032x}" for place in rng.permutation(count)]
    scores, u = rng.choice([0.0, 1.0, 2.0], count), rng.choice([0.25, 0.5, 1.0], count)
    size = rng.integers(1, largest + 1, count)
    budgets = rng.integers(0, 12, groups)
    draws, cut = GroupDraws(groups), int(rng.integers(0, count + 1))
    for part in (slice(0, cut), slice(cut, None)):  # as of two shards
        draws.add(group[part], names[part], priority_keys(scores[part], u[part]), size[part])
    drawn = draws.draw(budgets.tolist(), rows)
    taken, threshold, left = np.zeros(count, bool), np.zeros(groups), 0
    for number, budget in enumerate(budgets.tolist()):
        mine = np.array([place for place in sorted(range(count), key=names.__getitem__) if group[place] == number], int)
        draw = priority_sample(scores[mine], u[mine], budget + left, size[mine])
        if len(mine):
            left = carry(left, budget, int(size[mine[draw.picked]].sum()), draw.threshold > 0)
        taken[mine[draw.picked]], threshold[number] = True, draw.threshold
    assert drawn.taken.read().tolist() == taken.tolist()
    assert drawn.threshold.tolist() == threshold.tolist()


def test_what_a_group_leaves_is_spent_once():
    """The first group has batches of 4 and leaves 3 samples, which the second takes; the others have samples alone."""
    group, size = np.repeat([0, 1, 2], 10), np.repeat([4, 1, 1], 10)
    draws = GroupDraws(3)
    draws.add(group, [f"{place:032x}" for place in range(30)], np.ones(30), size)
    taken = draws.draw([7, 5, 5]).taken.read()
    assert np.bincount(group, taken * size).tolist() == [4, 8, 5]
