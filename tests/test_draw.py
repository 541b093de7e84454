"""The family of draws: one threshold over the whole group, whatever the shards."""

import numpy as np
import pytest
from selection_builder import candidates, data_bytes, read_samples
from selection_builder import choose_in_one_group as choose

from cptsel.pipeline import hashing, io
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.kernels.sampling.draws import priority_sample
from cptsel.pipeline.selection.tuning import Tuning


@pytest.mark.parametrize("sent", ["enough", "too few"])
@pytest.mark.parametrize("budget", ["50 samples", "1500 tokens"])
def test_global_uniform_is_the_draw_of_one_machine(run, tmp_path, budget, sent):
    tuning = Tuning(draw_margin=-1e9 if sent == "too few" else 4.0)  # every shard must then be asked again
    choose(run, tmp_path / "replay", tuning=tuning, method="uniform", scope="global", budget=budget, seed=5)
    population = dict(sorted(candidates(run, group_by=None).items()))
    scores = np.array([1 / row[3] for row in population.values()])
    n_tokens = np.array([row[1] for row in population.values()])
    u = hashing.uniform(5, "draw 0", population)
    draw = priority_sample(scores, u, int(budget.split()[0]), n_tokens if "tokens" in budget else None)
    expected = {list(population)[i]: pi for i, pi in zip(draw.picked, draw.inclusion_prob, strict=True)}
    rows = read_samples(tmp_path / "replay")
    found = dict(zip(rows["sample_id"].to_pylist(), rows["inclusion_prob"].to_pylist(), strict=True))
    assert found == pytest.approx(expected)


def test_a_draw_is_the_same_in_every_scope(run, tmp_path):
    """Draws are made over whole groups: a scope of shards would spread the weights for nothing."""
    for scope in ("shard", "global"):
        choose(run, tmp_path / scope, method="uniform", scope=scope, budget="1600 tokens", group_by="language")
    assert data_bytes(tmp_path / "shard") == data_bytes(tmp_path / "global")
    header = load_manifest(str(tmp_path / "shard")).header
    assert header["selection"]["scope"] == "global"


@pytest.mark.parametrize(("budget", "group_by"), [("2 samples", None), ("60%", "language")])
def test_how_many_files_are_read_ahead_changes_no_byte(run, tmp_path, monkeypatch, budget, group_by):
    """With the smaller budget a shard at least has rows and no pick."""
    for files in (1, 2, 1000):
        monkeypatch.setattr(io, "_AHEAD", files)
        choose(run, tmp_path / str(files), method="uniform", budget=budget, group_by=group_by)
    assert data_bytes(tmp_path / "1") == data_bytes(tmp_path / "2") == data_bytes(tmp_path / "1000")
    shards = set(read_samples(tmp_path / "1")["shard_id"].to_pylist())
    assert len(shards) == 3 if budget == "60%" else 1 <= len(shards) < 3


def test_seed_decides_draws(run, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        choose(run, tmp_path / name, method="uniform", seed=seed)
    assert data_bytes(tmp_path / "a") == data_bytes(tmp_path / "b")
    first, third = (set(read_samples(tmp_path / name)["sample_id"].to_pylist()) for name in ("a", "c"))
    assert first != third
