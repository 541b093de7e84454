"""What merges chose is read once a worker, within bounds of memory."""

import pickle

import pyarrow as pa
import pytest
from selection_builder import choose, read_samples

from cptsel.pipeline import io
from cptsel.pipeline.selection.scopes import merged
from cptsel.pipeline.selection.scopes.merged import MergedGroups


@pytest.fixture
def paths(tmp_path):
    found = [str(tmp_path / f"{number}.parquet") for number in range(3)]
    for number, path in enumerate(found):
        io.write_parquet(path, pa.table({"sample_id": [f"{number}a", f"{number}b"], "score": [1.0, 2.0]}))
    return found


def reads(monkeypatch):
    seen, read = [], io.read_parquet
    monkeypatch.setattr(merged.io, "read_parquet", lambda path: seen.append(path) or read(path))
    return seen


def test_a_file_is_read_once(paths, monkeypatch):
    seen, groups = reads(monkeypatch), MergedGroups()
    for _ in range(3):
        for number, path in enumerate(paths):
            found = groups.read(path)
            assert found.names.tolist() == [f"{number}a", f"{number}b"]
            assert found.rows["score"].to_pylist() == [1.0, 2.0]
    assert seen == paths
    assert not pickle.loads(pickle.dumps(groups))._kept


def test_what_is_kept_is_bounded(paths, monkeypatch):
    seen, groups = reads(monkeypatch), MergedGroups()
    monkeypatch.setattr(merged, "KEPT_BYTES", 2.5 * groups.read(paths[0]).bytes)
    for path in (paths[1], paths[0], paths[2], paths[0], paths[1]):
        groups.read(path)
    assert seen == [paths[0], paths[1], paths[2], paths[1]]
    monkeypatch.setattr(merged, "KEPT_BYTES", 0)
    for path in (paths[0], paths[2], paths[2]):
        assert groups.read(path) is not None
    assert len(groups._kept) == 1


@pytest.mark.parametrize("method", ["craig", "gradmatch"])
def test_a_second_choice_in_one_process_reads_its_own_files(run, tmp_path, method):
    """They have the paths of the first one's."""
    options = {"method": method, "scope": "global", "phases": 2, "phase_budget": "80%"}
    for seed, budget in enumerate(("10%", "25%")):
        choose(run, tmp_path / "out", **options, budget=budget, seed=seed, overwrite=True)
        choose(run, tmp_path / budget, **options, budget=budget, seed=seed)
        assert read_samples(tmp_path / "out").equals(read_samples(tmp_path / budget))


def test_nothing_chosen_is_none(tmp_path):
    empty = str(tmp_path / "empty.parquet")
    io.write_parquet(empty, pa.table({"sample_id": pa.array([], pa.string())}))
    assert MergedGroups().read(empty) is None
    assert MergedGroups().read(str(tmp_path / "none.parquet")) is None
