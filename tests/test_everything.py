"""The family that takes everything, and budgets of 100 %."""

import pytest
from selection_builder import candidates, read_samples
from selection_builder import choose_in_one_group as choose


def test_everything_at_100_percent(run, tmp_path):
    for method in ("uniform", "craig"):
        choose(run, tmp_path / method, method=method, budget="100%", group_by="language")
        rows, population = read_samples(tmp_path / method), candidates(run)
        assert sorted(rows["sample_id"].to_pylist()) == sorted(population)
        expected = [population[key][2] / population[key][1] for key in rows["sample_id"].to_pylist()]
        assert rows["weight"].to_pylist() == pytest.approx(expected, rel=1e-9)
