"""The benchmark of predicted rises finds what is there: where sketches tell the rise of loss, it says so."""

import importlib
import sys

import numpy as np
import pytest
from run_builder import build_run


@pytest.fixture(scope="module")
def rises(repository):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(repository / "benchmarks")])  # last: a select.py lies there
        return importlib.import_module("rises")


def planted(rises, rise, n=400, k=6, seed=0):
    """Samples of four groups, two to a document, whose rise is ``rise(sketch, loss, group)``."""
    rng = np.random.default_rng(seed)
    sketch = rng.normal(size=(n, k)).astype(np.float32)
    groups, loss = rng.integers(4, size=n), rng.normal(3, 1, size=n)
    documents = [f"{i // 2}" for i in range(n)]
    tokens = rng.integers(1, 64, size=n).astype(float)
    return rises.Samples(documents, groups, tokens, loss, rise(sketch, loss, groups), sketch)


def test_a_rise_that_is_linear_in_the_sketch_is_found(rises):
    weights = np.arange(1.0, 7.0)
    found = rises.evaluate(planted(rises, lambda sketch, loss, group: sketch @ weights), 0.3, 0)
    assert found["ridge"].others > 0.999
    assert found["ridge"].rank > 0.999
    assert found["ridge"].held_out > 0.999
    assert found["groups + loss"].others < 0.1


def test_a_rise_by_group_and_loss_is_found_without_sketches(rises):
    found = rises.evaluate(planted(rises, lambda sketch, loss, group: group + 0.5 * loss), 0.3, 0)
    assert found["groups + loss"].others == pytest.approx(1)
    assert found["groups"].others < 0.95
    assert np.isnan(found["groups"].rank_in_groups)
    assert found["loss"].rank_in_groups == pytest.approx(1)
    assert found["ridge"].others < 0.1


def test_rises_by_cluster_are_found_by_neighbours(rises, tmp_path):
    """From files: gradients of these runs lie in clusters, by which losses move, whatever the group."""
    run, ahead = build_run(tmp_path / "run"), build_run(tmp_path / "ahead", drift=1.0)
    samples = rises.read_samples(str(run), str(ahead), "language")
    assert set(np.round(samples.rise, 4)) == {-2.5, -1.5, -0.5, 0.5, 1.5, 2.5}
    found = rises.evaluate(samples, 0.5, 0)
    assert found["knn"].others > 0.99
    assert found["groups"].others < 0.2


def test_samples_count_by_their_tokens(rises):
    samples = planted(rises, lambda sketch, loss, group: loss)
    fit = np.arange(200)
    mean = rises.linear(samples, fit, np.array([300]), groups=False, loss=False)
    assert mean == pytest.approx(np.average(samples.rise[fit], weights=samples.n_tokens[fit]))
    near = rises.knn(samples, fit, np.array([300]), rises.PREDICTORS["groups"][0], len(fit))
    assert np.isfinite(near).all()
    whole = rises.knn(samples, fit, np.array([300]), lambda s, f, rows: np.zeros(len(rows)), len(fit))
    assert whole == pytest.approx(mean)


def test_a_group_that_was_not_measured_has_the_mean_of_all(rises):
    samples = planted(rises, lambda sketch, loss, group: group.astype(float))
    fit, rows = np.flatnonzero(samples.groups < 3), np.flatnonzero(samples.groups == 3)[:1]
    predicted = rises.linear(samples, fit, rows, groups=True, loss=False)
    assert predicted == pytest.approx(np.average(samples.rise[fit], weights=samples.n_tokens[fit]))


def test_sketches_of_another_run(rises, tmp_path):
    run, ahead = build_run(tmp_path / "run"), build_run(tmp_path / "ahead", drift=1.0)
    mine = rises.read_samples(str(run), str(ahead), None)
    its = rises.read_samples(str(run), str(ahead), None, str(ahead))
    np.testing.assert_array_equal(mine.rise, its.rise)
    np.testing.assert_array_equal(its.sketch, rises.read_samples(str(ahead), str(run), None).sketch)
    assert not np.allclose(mine.sketch, its.sketch)
    other = build_run(tmp_path / "other", seed=1, rows=(60, 40, 0, 79))
    with pytest.raises(SystemExit, match="does not hold the samples"):
        rises.read_samples(str(run), str(ahead), None, str(other))
