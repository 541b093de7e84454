"""Principal components equal those of scikit-learn."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from cptsel.pipeline.kernels import pca
from cptsel.pipeline.kernels.pca import principal_components


@pytest.mark.parametrize(("n", "d", "k"), [(200, 12, 2), (7, 30, 3), (50, 3, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_and_shares_are_those_of_scikit_learn(n, d, k, dtype):
    rng = np.random.default_rng(n)
    x = (rng.normal(size=(n, d)) * np.linspace(3, 0.5, d) + 10).astype(dtype)
    found = principal_components(x, k)
    reference = PCA(k, svd_solver="full").fit(x.astype(np.float64))
    scores = reference.transform(x.astype(np.float64))
    scores *= np.sign((scores * found.scores).sum(axis=0))
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)
    np.testing.assert_allclose(found.shares, reference.explained_variance_ratio_, atol=1e-7)


def test_the_largest_loading_is_positive():
    x = np.zeros((5, 3))
    x[:, 1] = -np.arange(5)
    np.testing.assert_allclose(principal_components(x).scores[:, 0], x[:, 1] - x[:, 1].mean(), atol=1e-12)


def test_blocks_of_rows_do_not_matter(monkeypatch):
    x = np.random.default_rng(0).normal(size=(100, 6))
    whole = principal_components(x)
    monkeypatch.setattr(pca, "_BLOCK", 7)
    np.testing.assert_allclose(principal_components(x).scores, whole.scores, atol=1e-12)


def test_components_that_are_not_there_are_zero():
    found = principal_components(np.arange(4.0)[:, None], 2)
    assert (found.scores[:, 1] == 0).all()
    assert found.shares.tolist() == [1.0, 0.0]
    alike = principal_components(np.ones((3, 4)))
    assert (alike.scores == 0).all()
    assert (alike.shares == 0).all()
    assert (principal_components(np.ones((1, 4))).scores == 0).all()


def test_what_is_refused():
    with pytest.raises(ValueError, match="n and d above 0"):
        principal_components(np.zeros((0, 4)))
    with pytest.raises(ValueError, match="k must be at least 1"):
        principal_components(np.zeros((3, 4)), 0)
