"""The family of coverage: weights are masses of clusters, and a merge agrees with itself."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_builder import build_run, reseal_run
from selection_builder import candidates, read_samples
from selection_builder import choose_in_one_group as choose

from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.selection.tuning import Tuning


@pytest.mark.parametrize("similarity", ["euclidean", "cosine"])
@pytest.mark.parametrize("scope", ["shard", "global"])
def test_craig_weights_are_the_mass_of_exact_clusters(run, tmp_path, scope, similarity):
    choose(run, tmp_path / "replay", method="craig", scope=scope, similarity=similarity, group_by="language")
    check_masses_of_clusters(run, tmp_path / "replay", scope, similarity)


def check_masses_of_clusters(run, replay, scope, similarity):
    population = candidates(run, similarity=similarity)
    rows = {row["sample_id"]: row for row in read_samples(replay).to_pylist()}
    clusters = dict.fromkeys(rows, 0.0)
    for key, (group, _, mass, _, vector, shard) in population.items():
        near = [
            (np.linalg.norm(population[pick][4].astype(np.float64) - vector), pick != key, pick)
            for pick, row in rows.items()
            if row["group"] == group and (scope == "global" or row["shard_id"] == shard)
        ]
        if near:
            clusters[min(near)[-1]] += mass
    for group in {row["group"] for row in rows.values()}:
        mine = [key for key in rows if rows[key]["group"] == group]
        found = np.array([rows[key]["weight"] * rows[key]["n_tokens"] for key in mine])
        expected = np.array([clusters[key] for key in mine])
        assert np.allclose(found / found.sum(), expected / expected.sum(), rtol=1e-6)


def test_craig_covers_better_than_random_and_global_better_than_shard(run, tmp_path):
    def report(**options):
        choose(run, tmp_path / options["scope"], method="craig", **options)
        return load_manifest(str(tmp_path / options["scope"])).header["selection"]["report"]

    shard, merged = report(scope="shard"), report(scope="global")
    assert shard["gain_over_random"] > 0.1
    assert shard["objective"] > shard["random_objective"]
    assert merged["mean_distance"] <= shard["mean_distance"]


@pytest.mark.parametrize("budget", ["50%", "55000 tokens"])
def test_global_craig_uses_its_budget_where_shards_are_skewed(tmp_path, budget):
    """Of the mass, nearly all is in the few long samples: the other shard has many times its share by mass to give."""
    run = build_run(tmp_path / "run", rows=(1000, 100), block_rows=1000)
    set_n_tokens(run / "embeddings" / "000000-00000.parquet", 10)
    set_n_tokens(run / "embeddings" / "000001-00000.parquet", 1000)
    reseal_run(run)
    choose(run, tmp_path / "replay", method="craig", scope="global", budget=budget)
    rows = read_samples(tmp_path / "replay")
    if budget == "50%":
        assert rows.num_rows == 550
    else:
        assert 55_000 - 10 < sum(rows["n_tokens"].to_pylist()) <= 55_000


def set_n_tokens(path, n_tokens):
    table = pq.read_table(path)
    place = table.schema.get_field_index("n_tokens")
    values = pa.array([n_tokens] * table.num_rows, table.schema.field(place).type)
    pq.write_table(table.set_column(place, table.schema.field(place), values), path)


def test_distances_and_gain_of_a_merge_agree(run, tmp_path):
    tuning = Tuning(clients=60)
    choose(run, tmp_path / "replay", tuning=tuning, method="craig", scope="global", group_by="language")
    selection = load_manifest(str(tmp_path / "replay")).header["selection"]
    for report in (selection["report"], *selection["reports"]):
        gain = 1 - report["mean_distance"] / report["random_distance"]
        assert report["gain_over_random"] == pytest.approx(gain)


def test_sampled_clients_still_give_exact_weights(run, tmp_path):
    tuning = Tuning(clients=60)
    choose(run, tmp_path / "replay", tuning=tuning, method="craig", scope="global", group_by="language")
    check_masses_of_clusters(run, tmp_path / "replay", "global", "cosine")
    reports = load_manifest(str(tmp_path / "replay")).header["selection"]["reports"]
    assert len(reports) == 4
