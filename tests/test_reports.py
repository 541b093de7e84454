"""Reports of cells add up to those of groups and of the whole."""

import pytest

from cptsel.pipeline.selection.outcome.reports import add_reports, summarise_reports


def coverage(group, mass, distance, random, picks=1):
    gain = (random - distance) / random if random else 0.0
    return {
        "group": group, "mass": mass, "picks": picks, "objective": mass, "random_objective": mass / 2,
        "mean_distance": distance, "random_distance": random, "gain_over_random": gain, "neighbours_advised": picks,
    }  # fmt: skip


def test_distances_are_means_by_mass_and_the_gain_follows():
    by_group = summarise_reports([coverage("b", 1, 2.0, 4.0), coverage("a", 3, 1.0, 2.0), coverage("b", 3, 1.0, 4.0)])
    assert [report["group"] for report in by_group] == ["a", "b"]
    assert by_group[1]["mean_distance"] == pytest.approx((1 * 2 + 3 * 1) / 4)
    assert by_group[1]["gain_over_random"] == pytest.approx(1 - 1.25 / 4)
    whole = add_reports(by_group)
    assert (whole["mass"], whole["cells"], whole["objective"]) == (7, 3, 7)
    assert whole["mean_distance"] == pytest.approx((3 * 1 + 4 * 1.25) / 7)
    assert whole["gain_over_random"] == pytest.approx(1 - whole["mean_distance"] / whole["random_distance"])


def test_a_cell_that_chose_nothing_has_no_distances():
    empty = coverage("a", 5, 0.0, 0.0, picks=0)
    assert add_reports([coverage("a", 3, 1.0, 2.0), empty])["mean_distance"] == 1.0


def test_counts_of_matching_add_up_and_ridges_are_counted():
    cell = {"group": "a", "mass": 1.0, "picks": 2, "parts": 1, "unused_budget": 3, "dropped_atoms": 0}
    cells = [cell | {"ridge": ridge, "weight_sum": weight} for ridge, weight in ((0.1, 1.0), (1.0, 0.5), (0.1, 0.6))]
    (report,) = summarise_reports(cells)
    assert (report["picks"], report["unused_budget"], report["ridges"]) == (6, 9, {"0.1": 2, "1": 1})
    assert report["weight_sum"] == pytest.approx(0.7)
    assert add_reports([report, report])["ridges"] == {"0.1": 4, "1": 2}


def test_draws_say_nothing():
    assert summarise_reports([{"group": "a", "mass": 1.0}]) == []
    assert add_reports([]) == {}
