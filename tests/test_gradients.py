"""Checkpoints of one corpus side by side, and their differences."""

import numpy as np
import pytest
from run_builder import build_run
from selection_builder import choose, header_of, population

from cptsel.pipeline.artifacts.run import open_checkpoints
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.selection.reading.cells import CellReader, read_cells
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify


def test_checkpoints_side_by_side_have_equal_mean_squares(run, later):
    runs = open_checkpoints([str(run), str(later)])
    cells = [cell for shard in runs.shards for cell in read_cells(shard, CellReader(runs.schema, combine="difference"))]
    squares = np.sum([cell.squares for cell in cells], axis=0)
    scales = tuple(np.sqrt(squares[0] / squares))
    reader = CellReader(runs.schema, combine="concat", scales=scales)
    halves = np.zeros(2)
    for shard in runs.shards:
        for cell in read_cells(shard, reader, "cover"):
            k = cell.vectors.shape[1] // 2
            for half in range(2):
                lengths = (cell.vectors[:, half * k : (half + 1) * k] ** 2).sum(axis=1)
                halves[half] += cell.columns["corpus_mass"] @ lengths
    assert halves[0] == pytest.approx(halves[1], rel=1e-3)  # directions are stored as float16


def test_difference_is_what_moving_changed(run, later):
    runs = open_checkpoints([str(run), str(later)])
    one, two = population(run), population(later)
    reader = CellReader(runs.schema, "language", combine="difference")
    found = [cell for shard in runs.shards for cell in read_cells(shard, reader, "match")]
    assert np.concatenate([cell.names for cell in found]).tolist() == one["id"].tolist()
    assert np.concatenate([cell.vectors for cell in found]) == pytest.approx(two["g"] - one["g"], abs=1e-3)


@pytest.mark.parametrize("method", ["uniform", "craig", "gradmatch"])
@pytest.mark.parametrize("combine", ["concat", "difference"])
def test_methods_over_two_checkpoints(run, later, tmp_path, method, combine):
    """Residuals are of the gradients that were combined, in the same scale: a full selection leaves none."""
    choose((run, later), tmp_path / "replay", method=method, combine=combine)
    verify(VerifyConfig(directory=str(tmp_path / "replay")))
    (phase,) = header_of(tmp_path / "replay")["phases"]
    assert 0 < phase["residual"] < 5
    choose((run, later), tmp_path / "full", method="full", combine=combine, budget="100%")
    assert header_of(tmp_path / "full")["phases"][0]["validation_residual"] < 1e-6


def test_runs_that_are_no_checkpoints_of_each_other(run, tmp_path):
    shorter = build_run(tmp_path / "shorter", rows=(90, 60, 0, 120), pool=True, drift=0.5)
    for others, sentence in (
        ((shorter,), "does not hold the samples of"),
        ((), "several checkpoints are several runs"),
    ):
        with pytest.raises(UsageError, match=sentence):
            choose((run, *others), tmp_path / "replay", combine="concat")
    with pytest.raises(UsageError, match="are of the same checkpoint"):
        choose((run, run), tmp_path / "replay", combine="difference")
    with pytest.raises(UsageError, match=r"fingerprint of the weights differs.*--combine"):
        choose((run, shorter), tmp_path / "replay")
