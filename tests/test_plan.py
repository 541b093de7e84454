"""Group shares, floors and caps of a plan, each against what its definition says."""

import numpy as np
import pytest
from selection_builder import choose, header_of, read_samples

from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.kernels.budget import divide
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify


def test_shares_by_hand(run, tmp_path):
    shares = tmp_path / "shares.yaml"
    shares.write_text("de: 3\nen: 1\n(none): 0\nuk: 0\n")
    choose(run, tmp_path / "replay", method="uniform", group_mass=str(shares))
    verify(VerifyConfig(directory=str(tmp_path / "replay")))
    header = header_of(tmp_path / "replay")
    mass = header["totals"]["population_mass"]
    target = {group["group"]: group["target_mass"] / mass for group in header["groups"]}
    assert target == pytest.approx({"de": 0.75, "en": 0.25, "(none)": 0, "uk": 0})
    assert set(read_samples(tmp_path / "replay")["group"].to_pylist()) == {"de", "en"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("de: 1\nen: 1\n", r"has no share for \(none\), uk"),
        ("de: 1\nen: 1\nuk: 1\n(none): 1\nfr: 1\n", "names what is no group here: fr"),
        ("de: -1\n", "the share of 'de' is -1, not a number of at least 0"),
        ("- de\n", "must be a mapping of groups to shares"),
        ("de: 1\nuk: 1\nde: 2\n", "'de' stands there twice"),
        ("de: [\n", "can't be read as YAML"),
        ("de: 0\nen: 0\nuk: 0\n(none): 0\n", "gives no group a share above 0"),
    ],
)
def test_shares_that_are_none(run, tmp_path, text, sentence):
    (tmp_path / "shares.yaml").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        choose(run, tmp_path / "replay", method="uniform", group_mass=str(tmp_path / "shares.yaml"))


def test_floors_and_caps_change_budgets_only(run, tmp_path):
    budgets = {}
    for name, options in {"plain": {}, "floor": {"group_floor": "9 samples"}, "cap": {"group_cap": "30%"}}.items():
        choose(run, tmp_path / name, method="craig", **options)
        groups = header_of(tmp_path / name)["groups"]
        budgets[name] = {group["group"]: group["budget"] for group in groups}
        budgets[name, "mass"] = {group["group"]: group["target_mass"] for group in groups}
    assert budgets["plain", "mass"] == budgets["floor", "mass"] == budgets["cap", "mass"]
    assert min(budgets["plain"].values()) < 9 <= min(budgets["floor"].values())
    assert max(budgets["plain"].values()) > 0.3 * 56 >= max(budgets["cap"].values())
    assert sum(budgets["floor"].values()) == sum(budgets["cap"].values()) == 56
    with pytest.raises(UsageError, match="--group-floor: the floors come to 80, more than the 56"):
        choose(run, tmp_path / "x", group_floor="20 samples")
    for floor in ("12 samples", "50%"):
        with pytest.raises(UsageError, match=r"--group-floor of \d+ samples is above the --group-cap of 10; lower it"):
            choose(run, tmp_path / "x", group_floor=floor, group_cap="10")
    with pytest.raises(UsageError, match="--group-cap leaves 20 of the 56 samples"):
        choose(run, tmp_path / "x", group_cap="5 samples")


def test_division_within_limits_is_water_filling():
    """Against bisection of the level t in Σ clip(t · share, floor, cap) = total."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(1, 8))
        shares, caps = rng.random(n) ** 3, rng.integers(0, 60, n)
        floors = np.minimum(rng.integers(0, 12, n), caps)
        total = int(rng.integers(floors.sum(), max(floors.sum(), caps.sum()) + 5))
        given = divide(total, shares, caps, floors)
        low, high = 0.0, 1e18
        for _ in range(200):
            level = (low + high) / 2
            low, high = (level, high) if np.clip(level * shares, floors, caps).sum() < total else (low, level)
        assert given.sum() == min(total, caps.sum())
        assert (np.abs(given - np.clip(high * shares, floors, caps)) < 1 + 1e-6).all()
