"""The points of the map as a table: as the page has them, with what the manifest says of each."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from page_reader import Page, columns_of
from run_builder import ROWS
from selection_builder import choose, losses, read_samples

from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.report import report
from cptsel.pipeline.reporting.config import ReportConfig
from cptsel.schemas.arrow import MAP


@pytest.fixture(scope="module")
def selections(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("selections")
    choose(run, folder / "a", method="craig")
    choose(run, folder / "b", method="uniform", realisation="repeat", replay_tokens="3K", seed=3)
    return folder


def make(run, folder, *replays, **options):
    """The report and the table, as bytes."""
    replay, other = (*map(str, replays), None)[:2]
    out, table = folder / "page.html", folder / "map.parquet"
    report(ReportConfig(replay=replay, other=other, run=(str(run),), out=str(out), map=str(table), **options))
    return out.read_bytes(), table.read_bytes()


def test_every_point_of_the_page_is_a_row(run, selections, tmp_path):
    page, _ = make(run, tmp_path, selections / "a")
    drawn, table = columns_of(Page(page).data("map-data")), pq.read_table(tmp_path / "map.parquet")
    assert table.schema.remove_metadata() == MAP
    assert table.num_rows == sum(ROWS)
    for name in ("x", "y", "loss"):
        np.testing.assert_array_equal(table[name].to_numpy(), drawn[name])
    np.testing.assert_array_equal(table["chosen"].to_numpy(), drawn["mark"] == 1)
    rows = {row["sample_id"]: row for row in table.to_pylist()}
    picks = {row["sample_id"]: row for row in read_samples(selections / "a").to_pylist()}
    assert {name for name, row in rows.items() if row["chosen"]} == set(picks)
    for name, row in rows.items():
        pick = picks.get(name, {"weight": None, "repeat": 0})
        assert (row["weight"], row["plays"]) == (pick["weight"], pick["repeat"])
        assert row["loss"] == np.float32(losses(run)[name])
        assert (row["rise"], row["other_chosen"], row["other_weight"], row["other_plays"]) == (None,) * 4


def test_a_second_selection_has_columns_of_its_own(run, selections, tmp_path):
    make(run, tmp_path, selections / "a", selections / "b", points=150)
    rows = pq.read_table(tmp_path / "map.parquet").to_pylist()
    assert len(rows) == 150
    for head, name in (("", "a"), ("other_", "b")):
        picks = {
            row["sample_id"]: (row["weight"], row["repeat"]) for row in read_samples(selections / name).to_pylist()
        }
        assert any(row[f"{head}chosen"] for row in rows)
        for row in rows:
            found = (row[f"{head}weight"], row[f"{head}plays"])
            assert found == picks.get(row["sample_id"], (None, 0))
            assert row[f"{head}chosen"] == (row["sample_id"] in picks)


def test_equal_bytes_and_no_other_file_is_replaced(run, selections, tmp_path):
    first = make(run, tmp_path, selections / "a", points=50)
    with pytest.raises(UsageError, match=r"page\.html exists; pass --overwrite"):
        make(run, tmp_path, selections / "a", points=50)
    assert make(run, tmp_path, selections / "a", points=50, overwrite=True) == first
    (tmp_path / "page.html").unlink()
    with pytest.raises(UsageError, match=r"--map .*map\.parquet exists; pass --overwrite"):
        make(run, tmp_path, selections / "a")
    (tmp_path / "map.parquet").write_bytes(b"mine")
    with pytest.raises(UsageError, match="was not written by cptsel report"):
        make(run, tmp_path, selections / "a", overwrite=True)
    pq.write_table(pq.read_table(run / "shards.parquet"), tmp_path / "map.parquet")
    with pytest.raises(UsageError, match="was not written by cptsel report"):
        make(run, tmp_path, selections / "a", overwrite=True)


def test_it_needs_the_vectors(run, selections, tmp_path):
    config = {"replay": str(selections / "a"), "out": str(tmp_path / "a.html")}
    with pytest.raises(UsageError, match="--map"):
        report(ReportConfig(**config, map=str(tmp_path / "map.parquet")))
    with pytest.raises(UsageError, match="name two files"):
        report(ReportConfig(**config, run=(str(run),), map=str(tmp_path / "a.html")))
    with pytest.raises(UsageError, match="lies inside the input"):
        report(ReportConfig(**config, run=(str(run),), map=str(run / "map.parquet")))
    assert not (tmp_path / "a.html").exists()


def test_texts_are_whole(embedded, tmp_path):
    make(embedded.replay.parent / "run", tmp_path, embedded.replay)
    texts = {row["sample_id"]: row["text"] for row in pq.read_table(tmp_path / "map.parquet").to_pylist()}
    documents = [json.loads(line)["text"] for path in embedded.corpus.glob("*.jsonl") for line in path.open()]
    assert all(any(text in document for document in documents) for text in texts.values())
    assert "".join(sorted("".join(texts.values()))) == "".join(sorted("".join(documents)))
