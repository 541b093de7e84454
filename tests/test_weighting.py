"""Weights as they are realised, and curricula."""

import pytest
from selection_builder import choose, losses, read_samples

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
