"""Choosing: every family has a chooser, and exploration and the choice share a budget without sharing a sample."""

import pytest
from run_builder import ROWS
from selection_builder import choose, ids, read_samples

from cptsel.pipeline.selection.choose import CHOOSERS, chooser_of
from cptsel.pipeline.selection.families.base import Settings
from cptsel.pipeline.selection.methods import METHODS


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_the_chooser_of_its_family(method):
    chooser = chooser_of(method, Settings("samples", seed=1, phase=0))
    assert type(chooser) is CHOOSERS[METHODS[method].family]
    assert chooser.method is METHODS[method]


@pytest.mark.parametrize("scope", ["shard", "global"])
def test_what_is_explored_and_what_is_chosen_are_apart_and_fill_the_budget(run, tmp_path, scope):
    options = {"method": "craig", "scope": scope, "group_by": None}
    choose(run, tmp_path / "replay", budget="30%", explore=0.4, **options)
    names = read_samples(tmp_path / "replay")["sample_id"].to_pylist()
    assert len(names) == len(set(names)) == int(0.3 * sum(ROWS))
    choose(run, tmp_path / "plain", budget="30%", **options)
    assert ids(tmp_path / "plain") != set(names)
