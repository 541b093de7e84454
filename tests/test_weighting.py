"""Weights as they are realised, and curricula."""

from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
import pytest
from selection_builder import choose, data_bytes, header_of, losses, read_samples

from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.selection.outcome import tallies
from cptsel.pipeline.selection.tuning import DEFAULT
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify


@pytest.mark.parametrize(
    ("options", "key", "sign"),
    [
        ({"curriculum": "loss"}, lambda row: row["loss"], 1),
        ({"curriculum": "norm", "curriculum_order": "descending"}, lambda row: row["grad_norm"] / row["n_tokens"], -1),
        ({"curriculum": "gain", "curriculum_order": "descending"}, lambda row: row["score"], -1),
    ],
)
def test_curriculum(run, tmp_path, options, key, sign):
    choose(run, tmp_path / "replay", method="craig", **options)
    verify(VerifyConfig(directory=str(tmp_path / "replay")))
    loss = losses(run)
    rows = sorted(read_samples(tmp_path / "replay").to_pylist(), key=lambda row: row["order_rank"])
    assert [row["order_rank"] for row in rows] == list(range(len(rows)))
    values = [sign * key(row | {"loss": loss[row["sample_id"]]}) for row in rows]
    assert values == sorted(values)


@pytest.mark.parametrize("realisation", ["repeat", "loss", "sampling", "none"])
def test_realisations(run, tmp_path, realisation):
    choose(run, tmp_path / "replay", method="importance", realisation=realisation)
    verify(VerifyConfig(directory=str(tmp_path / "replay")))
    rows = read_samples(tmp_path / "replay")
    assert (rows["repeat"].to_numpy() == 1).all() == (realisation != "repeat")
    assert (rows["loss_weight"].to_numpy() == 1).all() == (realisation in ("sampling", "none"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"realisation": "repeat", "max_repeats": 2, "replay_tokens": 3000, "group_by": None},
        {"realisation": "loss", "curriculum": "norm"},
        {"realisation": "repeat", "curriculum": "loss", "curriculum_buckets": 3, "curriculum_order": "descending"},
        {"method": "importance", "budget": "2000 tokens"},
        {"method": "uniform", "budget": "90 samples", "unit": "batch", "batch_size": 3},
        {"phases": 3, "phase_budget": "25%", "budget": "40%"},
        {"phases": 2, "phase_budget": "1200 tokens", "budget": "60%"},
    ],
)
def test_how_many_picks_are_held_at_once_changes_no_byte(run, tmp_path, options):
    for rows in (DEFAULT.pick_rows, 5):
        tuning = replace(DEFAULT, pick_rows=rows)
        choose(run, tmp_path / str(rows), tuning=tuning, **{"method": "craig", "budget": "40%", **options})
    few, all_at_once = (load_manifest(str(tmp_path / str(rows))) for rows in (5, DEFAULT.pick_rows))
    assert data_bytes(few.directory) == data_bytes(all_at_once.directory)
    assert few.header == all_at_once.header
    verify(VerifyConfig(directory=few.directory))


def test_what_is_told_of_a_group_is_what_its_samples_add_up_to(run, tmp_path):
    options = {"realisation": "repeat", "max_repeats": 2, "replay_tokens": 3000, "group_alpha": 0.3}
    choose(run, tmp_path / "replay", method="importance", budget="30%", **options)
    header, rows = header_of(tmp_path / "replay"), read_samples(tmp_path / "replay")
    for entry in header["groups"]:
        mine = rows.filter(pc.equal(rows["group"], entry["group"]))
        weight, n, repeat = (mine[name].to_numpy() for name in ("weight", "n_tokens", "repeat"))
        requested = 3000 * entry["target_mass"] / header["totals"]["population_mass"]
        plays = weight * (requested / (weight @ n))  # were there no cap
        assert entry["replay_requested"] == pytest.approx(requested)
        assert entry["cut_tokens"] == pytest.approx(np.maximum(plays - 2, 0) @ n)
        assert entry["effective_tokens"] == pytest.approx((weight @ n) ** 2 / (weight**2 @ n))
        assert (entry["plays"], entry["played_samples"]) == (repeat.sum(), (repeat > 0).sum())
        assert (entry["selected_tokens"], entry["replay_tokens"]) == (n.sum(), repeat @ n)
    assert max(entry["cut_tokens"] for entry in header["groups"]) > 0
    assert {0, 1, 2} == set(rows["repeat"].to_pylist())
    weight, n = rows["weight"].to_numpy(), rows["n_tokens"].to_numpy()
    assert header["phases"][0]["effective_tokens"] == pytest.approx((weight @ n) ** 2 / (weight**2 @ n))


def test_quantiles_are_exact_where_all_weights_of_a_phase_are_kept(run, tmp_path, monkeypatch):
    """Also of a group that has more than its equal part of them."""
    choose(run, tmp_path / "all", method="importance", budget="90%")
    expected = header_of(tmp_path / "all")
    samples = [entry["selected_samples"] for entry in expected["groups"]]
    monkeypatch.setattr(tallies, "_KEPT", sum(samples))
    assert max(samples) * len(samples) > sum(samples)
    choose(run, tmp_path / "kept", method="importance", budget="90%")
    assert header_of(tmp_path / "kept")["groups"] == expected["groups"]
    rows = read_samples(tmp_path / "all")
    for entry in expected["groups"]:
        weight = rows.filter(pc.equal(rows["group"], entry["group"]))["weight"].to_numpy()
        assert entry["weight_quantiles"] == np.quantile(weight, tallies.QUANTILES).tolist()
    assert (
        expected["phases"][0]["weight_quantiles"] == np.quantile(rows["weight"].to_numpy(), tallies.QUANTILES).tolist()
    )


def test_quantiles_of_many_weights_are_those_of_evenly_spaced_ones(run, tmp_path, monkeypatch):
    choose(run, tmp_path / "all", method="importance", budget="90%")
    monkeypatch.setattr(tallies, "_KEPT", 40)
    choose(run, tmp_path / "some", method="importance", budget="90%")
    expected, found = (header_of(tmp_path / name) for name in ("all", "some"))
    for key in ("groups", "phases"):
        for exact, near in zip(expected[key], found[key], strict=True):
            assert near["weight_quantiles"] == sorted(near["weight_quantiles"])
            assert [near["weight_quantiles"][at] for at in (0, -1)] == [exact["weight_quantiles"][at] for at in (0, -1)]
            assert near["weight_quantiles"] != exact["weight_quantiles"]
            assert exact["weight_quantiles"][1] <= near["weight_quantiles"][3] <= exact["weight_quantiles"][5]
            assert near | {"weight_quantiles": 0} == exact | {"weight_quantiles": 0}
