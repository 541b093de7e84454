"""Rows of a shard: what is excluded, what is refused, groups, and their order."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_builder import ROWS, build_run, reseal_run
from selection_builder import candidates, read_samples
from selection_builder import choose_in_one_group as choose

from cptsel.pipeline.artifacts.embeddings import read_rows
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.errors import BadInputError
from cptsel.pipeline.selection.reading.rows import read_shard


def test_excluded_samples_are_neither_candidates_nor_mass(run, tmp_path):
    rows = pq.read_table(run / "embeddings" / "000000-00000.parquet").to_pylist()
    names = [rows[0]["sample_id"], rows[3]["doc_key"], rows[7]["doc_id"], rows[11]["content_hash"].hex().upper()]
    (tmp_path / "list.txt").write_text("# take-downs\n" + "\n".join(names) + "\n")
    gone = {
        row["sample_id"]
        for row in rows
        if row["sample_id"] == names[0] or row["doc_key"] == names[1] or row["doc_id"] == names[2] or row is rows[11]
    }
    assert len(gone) >= 4
    for method in ("uniform", "craig"):
        out = tmp_path / method
        summary = choose(run, out, method=method, budget="100%", exclude=str(tmp_path / "list.txt"))
        assert summary.totals["samples"] == sum(ROWS) - len(gone)
        assert not gone & set(read_samples(out)["sample_id"].to_pylist())
        mass = sum(row[2] for key, row in candidates(run).items() if key not in gone)
        assert load_manifest(str(out)).header["totals"]["population_mass"] == pytest.approx(mass)


def test_entries_of_an_exclusion_list_that_name_nothing_are_a_warning(run, tmp_path):
    sample = next(iter(candidates(run)))
    (tmp_path / "list.txt").write_text(f"{sample.upper()}\nnobody\n{'AB' * 16}\n")
    for dry_run in (True, False):
        summary = choose(run, tmp_path / "replay", exclude=str(tmp_path / "list.txt"), dry_run=dry_run)
        (warning,) = [line for line in summary.warnings if "--exclude" in line]
        assert "2 entries name nothing" in warning


def test_a_sample_twice_is_refused(tmp_path):
    run = build_run(tmp_path / "run", rows=(20,), block_rows=10)
    for path in sorted((run / "embeddings").iterdir())[1:]:
        path.write_bytes((run / "embeddings" / "000000-00000.parquet").read_bytes())
    reseal_run(run)
    with pytest.raises(BadInputError, match="its sample_id occurs twice"):
        choose(run, tmp_path / "replay", method="uniform")


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("n_tokens", 0, "its n_tokens is below 1"),
        ("pool_prob", 1.5, r"its pool_prob is not in \(0, 1\]"),
        ("sketch_norm", 0.0, "its sketch_norm is not a finite number above 0"),
        ("validation_norm", float("inf"), "its validation_norm is not a finite number of at least 0"),
        ("grad_norm", float("nan"), "its grad_norm is not a finite number of at least 0"),
        ("loss_sum", float("inf"), "its loss_sum is not a finite number"),
    ],
)
def test_a_value_that_would_make_weights_meaningless_is_refused_by_sample(tmp_path, column, value, problem):
    run = build_run(tmp_path / "run", rows=(20,))
    path = run / "embeddings" / "000000-00000.parquet"
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[7] = value
    place = table.schema.get_field_index(column)
    field = table.schema.field(place)
    pq.write_table(table.set_column(place, field, pa.array(values, field.type)), path)
    reseal_run(run)
    with pytest.raises(BadInputError, match=f"sample {table['sample_id'][7].as_py()}: {problem}"):
        choose(run, tmp_path / "replay", method="uniform")


def test_rows_come_by_group_and_name_and_know_where_they_were(run):
    runs = open_runs([str(run)])
    for shard in runs.shards:
        found = read_shard(shard, runs.schema, "language", frozenset())
        if found is None:
            assert shard.samples == 0
            continue
        keys = list(zip(found.table["group"].to_pylist(), found.table["sample_id"].to_pylist(), strict=True))
        assert keys == sorted(keys)
        there = read_rows(shard, runs.schema, ["sample_id"])["sample_id"].to_pylist()
        assert [there[place] for place in found.source] == [name for _, name in keys]
