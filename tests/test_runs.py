"""Opening embedding runs: what is one, what may be united, and what damage is called."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from run_builder import K, build_run, reseal_run, run_header

from cptsel.pipeline.artifacts import run as run_module
from cptsel.pipeline.artifacts.embeddings import read_directions, read_rows
from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.errors import BadInputError, CptselError, UsageError


@pytest.fixture
def run(tmp_path):
    return build_run(tmp_path / "run", rows=(30, 0, 20))


def test_one_run(run):
    runs = open_runs([str(run)])
    assert [shard.shard_id for shard in runs.shards] == [0, 1, 2]
    assert [shard.samples for shard in runs.shards] == [30, 0, 20]
    assert [len(shard.files) for shard in runs.shards] == [2, 0, 1]
    assert runs.groups == ["language"]


@pytest.mark.parametrize("batch", [1, 2, 1000])
def test_small_files_may_be_in_any_order_and_are_read_some_rows_at_a_time(run, monkeypatch, batch):
    wanted = open_runs([str(run)]).shards
    assert [shard.rows for shard in wanted] == [(25, 5), (), (20,)]
    assert [shard.n_tokens > 0 for shard in wanted] == [True, False, True]
    for name in ("shards.parquet", "units.parquet"):
        table = pq.read_table(run / name)
        pq.write_table(table.take(np.arange(table.num_rows)[::-1]), run / name)
    reseal_run(run)
    monkeypatch.setattr(run_module, "_BATCH", batch)
    assert open_runs([str(run)]).shards == wanted


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_rows_and_directions_come_in_corpus_order(tmp_path, storage):
    runs = open_runs([str(build_run(tmp_path / "run", rows=(30, 0), storage=storage, block_rows=7))])
    full, empty = runs.shards
    rows = read_rows(full, runs.schema, ["row_index", "window", "language", "shard_id"])
    places = list(zip(rows["row_index"].to_pylist(), rows["window"].to_pylist(), strict=True))
    assert places == sorted(places)
    directions = np.concatenate(list(read_directions(full, runs.schema)))
    assert directions.shape == (30, K)
    assert directions.dtype == np.float32
    assert np.abs(np.linalg.norm(directions, axis=1) - 1).max() < 0.02
    whole = build_run(tmp_path / "whole", rows=(30, 0), storage=storage, block_rows=1000)
    again = open_runs([str(whole)])
    assert np.array_equal(directions, np.concatenate(list(read_directions(again.shards[0], again.schema))))
    nothing = read_rows(empty, runs.schema, ["row_index", "language"])
    assert nothing.num_rows == 0
    assert nothing.column_names == ["row_index", "language"]


def test_union_renumbers_shards_in_the_order_of_the_runs(tmp_path):
    first = build_run(tmp_path / "a", rows=(5, 6), prefix="a/")
    second = build_run(tmp_path / "b", rows=(7,), prefix="b/", block_rows=3)
    runs = open_runs([str(second), str(first)])
    assert [shard.source["path"] for shard in runs.shards] == ["b/000.jsonl", "a/000.jsonl", "a/001.jsonl"]
    assert [shard.shard_id for shard in runs.shards] == [0, 1, 2]
    assert [shard.source["shard_id"] for shard in runs.shards] == [0, 1, 2]
    ids = read_rows(runs.shards[2], runs.schema, ["shard_id"])["shard_id"].to_pylist()
    assert ids == [2] * 6


def changed_header(**changes):
    header = run_header(1, "float16", ["language"])
    for name, value in changes.items():
        header[name] = {**header[name], **value} if isinstance(value, dict) else value
    return header


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"fingerprints": {"weights": "0" * 64}}, "weights"),
        ({"fingerprints": {"tokenizer": "0" * 64}}, "tokenizer"),
        ({"fingerprints": {"projection": "0" * 64}}, "projection"),
        ({"norm_kind": "exact"}, "kind of norm"),
        ({"options": {"max_tokens": 128}}, "max_tokens"),
        ({"options": {"text_field": "body"}}, "text_field"),
    ],
)
def test_union_of_unlike_runs_is_refused_naming_the_difference(tmp_path, changes, named):
    first = build_run(tmp_path / "a", rows=(5,), prefix="a/")
    second = build_run(tmp_path / "b", rows=(5,), prefix="b/", header=changed_header(**changes))
    with pytest.raises(UsageError, match=named) as caught:
        open_runs([str(first), str(second)])
    assert "can't be united" in str(caught.value)


def test_union_allows_options_that_do_not_change_what_a_row_means(tmp_path):
    first = build_run(tmp_path / "a", rows=(5,), prefix="a/")
    header = changed_header(options={"block_bytes": 5, "limit": 3}, fingerprints={"corpus": "1" * 64})
    second = build_run(tmp_path / "b", rows=(5,), prefix="b/", header=header)
    assert len(open_runs([str(first), str(second)]).shards) == 2


def test_the_same_shard_twice_is_refused(tmp_path, run):
    other = build_run(tmp_path / "other", rows=(4,), seed=9)  # the same relative paths: sample_ids would clash
    for second in (run, other):
        with pytest.raises(UsageError, match=r"000\.jsonl.*disjoint"):
            open_runs([str(run), str(second)])


def test_unfinished_and_foreign_directories(tmp_path, run):
    with pytest.raises(UsageError, match="no embedding run given"):
        open_runs([])
    with pytest.raises(UsageError, match=r"nowhere is not an embedding run: it has no run\.json"):
        open_runs([str(tmp_path / "nowhere")])
    (run / "_SUCCESS").unlink()
    with pytest.raises(UsageError, match=r"not finished.*run the same cptsel embed command again"):
        open_runs([str(run)])


def test_a_newer_version_or_a_broken_header_is_refused(tmp_path):
    newer = build_run(tmp_path / "newer", rows=(3,), header={"spec_version": 4})
    with pytest.raises(UsageError, match="spec_version 4 is newer"):
        open_runs([str(newer)])
    older = build_run(tmp_path / "older", rows=(3,), header={"spec_version": 1})
    with pytest.raises(UsageError, match=r"spec_version 1 is of an older cptsel, .* embed again"):
        open_runs([str(older)])
    (newer / "run.json").write_text('{"format": "cptsel.run", "spec_version": 2}')
    with pytest.raises(UsageError, match=r"run\.json: .*required"):
        open_runs([str(newer)])
    (newer / "run.json").write_text('{"format": "cptsel.replay"}')
    with pytest.raises(UsageError, match=r"its format is not 'cptsel\.run'"):
        open_runs([str(newer)])


def read_everything(directory):
    runs = open_runs([str(directory)])
    for shard in runs.shards:
        read_rows(shard, runs.schema, ["sample_id", "language"])
        list(read_directions(shard, runs.schema))


def test_missing_damaged_and_exchanged_files_are_named(tmp_path, run):
    read_everything(run)
    victim = run / "embeddings" / "000000-00001.parquet"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    other = r"000000-00001\.parquet: is not the file that was embedded \(its footer differs\); delete it and run"
    with pytest.raises(BadInputError, match=other):
        read_everything(run)
    shutil.copy(run / "embeddings" / "000000-00000.parquet", victim)
    with pytest.raises(BadInputError, match=other):
        read_everything(run)
    reseal_run(run)
    with pytest.raises(BadInputError, match=r"000000-00001\.parquet: it has 25 rows, units\.parquet says 5"):
        read_everything(run)
    victim.write_bytes(whole)
    table = pq.read_table(victim)
    pq.write_table(table.drop_columns(["n_tokens", "direction"]), victim)
    reseal_run(run)
    with pytest.raises(BadInputError, match=r"000000-00001\.parquet: column 'direction' is missing"):
        read_everything(run)
    victim.write_bytes(b"no Parquet at all")
    reseal_run(run)
    with pytest.raises(BadInputError, match=r"000000-00001\.parquet: can't be read as Parquet"):
        read_everything(run)
    victim.unlink()
    with pytest.raises(UsageError, match=r"000000-00001\.parquet is missing"):
        open_runs([str(run)])
    (run / "units.parquet").write_bytes(b"PAR1")
    with pytest.raises(CptselError, match=r"units\.parquet"):
        open_runs([str(run)])
