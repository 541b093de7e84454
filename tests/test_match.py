"""The family of matching: what its choices leave, and when it stops."""

import pytest
from selection_builder import choose

from cptsel.pipeline.artifacts.manifest import load_manifest


def test_matching_beats_random_picks_on_what_it_never_saw(run, tmp_path):
    figures = {}
    for method in ("uniform", "gradmatch"):
        choose(run, tmp_path / method, method=method, scope="global")
        figures[method] = load_manifest(str(tmp_path / method)).header["phases"][0]
    assert figures["gradmatch"]["validation_residual"] < 0.5 * figures["uniform"]["validation_residual"]
    assert figures["gradmatch"]["validation_residual"] < 0.5 * figures["gradmatch"]["random_validation_residual"]


@pytest.mark.parametrize("method", ["gradmatch", "gradient-coreset"])
def test_tolerance_is_of_the_gradient(run, tmp_path, method):
    """A cell whose picks stop short of its budget misses at most that share of its own gradient."""
    options = {"method": method, "budget": "90%", "tolerance": 0.2, "group_by": None}
    choose(run, tmp_path / "replay", **options)
    (group,) = load_manifest(str(tmp_path / "replay")).header["groups"]
    assert group["selected_samples"] < group["budget"]
    assert group["method_residual"] <= 0.2 + 1e-6
