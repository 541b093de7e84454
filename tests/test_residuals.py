"""What a manifest says of residuals is true of all vectors."""

import numpy as np
import pytest
from selection_builder import choose, population, read_samples

from cptsel.pipeline.artifacts.manifest import load_manifest


@pytest.mark.parametrize("alpha", [1.0, 0.0])
def test_residuals_are_those_of_all_vectors(run, tmp_path, alpha):
    choose(run, tmp_path / "replay", method="gradmatch", group_alpha=alpha)
    header, rows, everything = load_manifest(str(tmp_path / "replay")).header, read_samples(tmp_path / "replay"), None
    everything = population(run)
    weight = dict(zip(rows["sample_id"].to_pylist(), rows["weight"].to_pylist(), strict=True))
    w = np.array([weight.get(name, 0.0) for name in everything["id"]])
    target_mass = {group["group"]: group["target_mass"] for group in header["groups"]}
    mass = {name: everything["mass"][everything["group"] == name].sum() for name in target_mass}
    a = everything["mass"] / everything["n_tokens"]
    a = a * np.array([target_mass[name] / mass[name] for name in everything["group"]])
    for key, x in (("residual", everything["g"]), ("validation_residual", everything["v"])):
        expected = np.linalg.norm(a @ x - w @ x) / np.linalg.norm(a @ x)
        assert header["phases"][0][key] == pytest.approx(expected, rel=1e-5)
    assert header["phases"][0]["target_norm"] == pytest.approx(np.linalg.norm(a @ everything["g"]), rel=1e-5)


def test_the_residual_of_random_picks_is_their_mean(run, tmp_path):
    """Root mean square over many uniform choices of as many samples of each group, each standing for n/m rows."""
    choose(run, tmp_path / "replay", method="uniform", budget="20%")
    header, everything = load_manifest(str(tmp_path / "replay")).header, population(run)
    a = everything["mass"] / everything["n_tokens"]
    rows = a[:, None] * everything["g"]
    target, rng, squares = rows.sum(axis=0), np.random.default_rng(0), []
    for _ in range(2000):
        total = np.zeros(rows.shape[1])
        for group in header["groups"]:
            mine, m = np.flatnonzero(everything["group"] == group["group"]), group["selected_samples"]
            total += rows[rng.choice(mine, m, replace=False)].sum(axis=0) * (len(mine) / m)
        squares.append(((target - total) ** 2).sum())
    expected = np.sqrt(np.mean(squares)) / np.linalg.norm(target)
    assert header["phases"][0]["random_residual"] == pytest.approx(expected, rel=0.05)


def test_everything_has_no_residual(run, tmp_path):
    choose(run, tmp_path / "replay", method="full", budget="100%")
    assert load_manifest(str(tmp_path / "replay")).header["phases"][0]["residual"] < 1e-6
    choose(run, tmp_path / "skipped", method="full", budget="100%", skip_residuals=True)
    assert "residual" not in load_manifest(str(tmp_path / "skipped")).header["phases"][0]
