"""Statistics of cells that a run keeps: bit by bit what is read from embeddings, and used only where they hold."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from run_builder import ROWS, build_run, reseal_run
from selection_builder import choose, data_bytes

from cptsel.pipeline.artifacts.embeddings import read_rows
from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.artifacts.seal import CELLS_FILE
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.errors import BadInputError, VerificationError
from cptsel.pipeline.selection.reading import kept as kept_module
from cptsel.pipeline.selection.reading import rows as rows_module
from cptsel.pipeline.selection.reading.cells import CellReader, cell_statistics
from cptsel.pipeline.selection.reading.history import History
from cptsel.pipeline.selection.reading.kept import KEPT_BETA, keep_cells, kept_cells


@pytest.fixture(scope="module")
def keeping(tmp_path_factory):
    """The run of the selections, which keeps its statistics."""
    run = build_run(tmp_path_factory.mktemp("kept") / "run", rows=ROWS, pool=True)
    keep_cells(str(run), json.loads((run / "run.json").read_text()))
    reseal_run(run)
    return run


@pytest.fixture(scope="module")
def ahead(tmp_path_factory, tiny_lm, sample_data):
    """A run that embed made, with losses before and after, of groups by column and path."""
    out = tmp_path_factory.mktemp("ahead") / "run"
    embed(
        EmbedConfig(
            inputs=(str(sample_data / "old" / "docs_*" / "*0.jsonl*"),), model=str(tiny_lm), out=str(out), limit=6,
            max_tokens=64, sketch_dim=16, validation_dim=8, group_by=("lang", "path[0]"), pool="70%",
            lookahead=(str(sample_data / "new" / "*" / "*"),), lookahead_tokens=200, lookahead_steps=1,
        )
    )  # fmt: skip
    return out


def test_what_is_kept_is_what_is_read(keeping, ahead):
    for run, groups, rises in ((keeping, [None, "language"], False), (ahead, [None, "lang", "path[0]"], True)):
        runs = open_runs([str(run)])
        for group_by in groups:
            for rise in (False, True) if rises else (False,):
                for beta in (None, KEPT_BETA) if rise else (None,):
                    reader = CellReader(runs.schema, group_by, rise=rise, beta=beta)
                    kept = kept_cells(runs, reader)
                    assert kept == [cell_statistics(shard, reader) for shard in runs.shards]
                    assert sum(map(len, kept)) >= sum(shard.samples > 0 for shard in runs.shards)
    assert any(cell["rise"] for cells in kept for cell in cells)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_shard_is_read_once_for_all_groups(ahead, monkeypatch, batch):
    """Bytes do not depend on how many shards are looked at together."""
    written, read = (ahead / CELLS_FILE).read_bytes(), []

    def counting(shard, *rest):
        read.append(shard.shard_id)
        return read_rows(shard, *rest)

    for module in (kept_module, rows_module):
        monkeypatch.setattr(module, "read_rows", counting)
    monkeypatch.setattr(kept_module, "_BATCH", batch)
    keep_cells(str(ahead), json.loads((ahead / "run.json").read_text()))
    assert (ahead / CELLS_FILE).read_bytes() == written
    assert sorted(read) == [shard.shard_id for shard in open_runs([str(ahead)]).shards]
    assert len(read) > batch


def test_statistics_are_computed_where_others_are_wanted(keeping, ahead, run, later):
    runs = open_runs([str(keeping)])
    for other in (
        {"exclude": frozenset(["x"])},
        {"history": History(files={0: (("a", "b"),)})},
        {"taken": ("work",)},
        {"batch_size": 2},
        {"beta": 0.5},
        {"rise": True},
        {"rise": True, "new_gradient": np.zeros(12)},
    ):
        assert kept_cells(runs, CellReader(runs.schema, "language", **other)) is None, other
    assert kept_cells(open_runs([str(run)]), CellReader(runs.schema)) is None  # a run without them
    assert kept_cells(runs, CellReader(runs.schema, "language")) is not None


def test_selections_are_the_same_with_and_without(keeping, run, tmp_path):
    for method in ("uniform", "craig"):
        choose(keeping, tmp_path / f"with-{method}", method=method)
        choose(run, tmp_path / f"without-{method}", method=method)
        assert data_bytes(tmp_path / f"with-{method}") == data_bytes(tmp_path / f"without-{method}")


def test_a_dry_run_reads_no_embeddings(keeping, tmp_path):
    wanted = choose(keeping, tmp_path / "out", method="uniform", dry_run=True)
    blind = shutil.copytree(keeping, tmp_path / "run")
    for path in (blind / "embeddings").iterdir():
        path.write_bytes(b"?")
    found = choose(blind, tmp_path / "out", method="uniform", dry_run=True)
    assert found.tables == wanted.tables
    assert found.totals == wanted.totals
    assert wanted.totals["bytes of embeddings"] == sum(
        Path(path).stat().st_size for shard in open_runs([str(keeping)]).shards for path in shard.files
    )
    with pytest.raises(BadInputError, match="is not the file that was embedded"):
        choose(blind, tmp_path / "out", method="uniform")


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b"PAR1"), lambda path: path.unlink()])
def test_what_is_kept_is_held_against_its_checksum(keeping, tmp_path, change):
    copied = shutil.copytree(keeping, tmp_path / "run")
    change(copied / CELLS_FILE)
    with pytest.raises(VerificationError, match=r"cells\.parquet is (missing|not what was written)"):
        choose(copied, tmp_path / "out", method="uniform")
