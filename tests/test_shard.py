"""Choices by shard fill their budgets."""

import pytest
from run_builder import build_run
from selection_builder import choose, header_of


@pytest.mark.parametrize("explore", [0.3, 0.8])
def test_small_shards_fill_their_budget_beside_an_explored_draw(tmp_path, explore):
    """The explored draw takes no more of a shard than its share, as the rest is chosen shard by shard."""
    run = build_run(tmp_path / "run", rows=(3, 4, 2, 5, 60, 3, 3), block_rows=100)
    choose(run, tmp_path / "replay", method="craig", budget="95%", explore=explore, group_by=None)
    assert header_of(tmp_path / "replay")["phases"][0]["samples"] == 76
