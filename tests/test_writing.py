"""The files of a manifest: samples in corpus order, as the run has them, and every shard."""

import pyarrow.parquet as pq
from run_builder import ROWS
from selection_builder import choose_in_one_group as choose
from selection_builder import read_samples


def test_files_are_in_corpus_order_and_every_shard_is_listed(run, tmp_path):
    choose(run, tmp_path / "replay", method="uniform")
    shards = pq.read_table(tmp_path / "replay" / "shards.parquet")
    assert shards["shard_id"].to_pylist() == [0, 1, 2, 3]
    assert shards["population_samples"].to_pylist() == list(ROWS)
    assert shards["path"].to_pylist() == [f"{number:03d}.jsonl" for number in range(4)]
    assert sorted(path.name for path in (tmp_path / "replay" / "samples").iterdir()) == [
        f"{number:06d}.parquet" for number, count in enumerate(shards["selected_samples"].to_pylist()) if count
    ]
    ranks = []
    for path in sorted((tmp_path / "replay" / "samples").iterdir()):
        rows = pq.read_table(path)
        places = list(zip(rows["row_index"].to_pylist(), rows["window"].to_pylist(), strict=True))
        assert places == sorted(places)
        ranks += rows["order_rank"].to_pylist()
    assert ranks == list(range(len(ranks)))
    assert not (tmp_path / "replay" / ".work").exists()


def test_rows_are_those_of_the_run(run, tmp_path):
    choose(run, tmp_path / "replay", method="craig")
    source = {}
    for path in sorted((run / "embeddings").iterdir()):
        source |= {row["sample_id"]: row for row in pq.read_table(path).to_pylist()}
    for row in read_samples(tmp_path / "replay").to_pylist():
        original = source[row["sample_id"]]
        shared = set(row) & set(original)
        assert len(shared) >= 15
        assert {name: row[name] for name in shared} == {name: original[name] for name in shared}
