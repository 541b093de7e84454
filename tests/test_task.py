"""What a selection reads and where it writes: what fails leaves what was there."""

import pytest
from selection_builder import choose

from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify


@pytest.mark.parametrize(
    "options",
    [
        {"method": "mix-review", "phases": 4, "mix_decay": 0.1},
        {"method": "uniform", "phases": 2, "phase_budget": "1 sample"},
        {"method": "uniform", "budget": "60 tokens"},
        {"method": "gradmatch", "history": ("{none}",)},
    ],
)
def test_what_fails_leaves_the_old_manifest(run, tmp_path, options):
    choose(run, tmp_path / "replay", method="importance")
    before = {path: path.read_bytes() for path in (tmp_path / "replay").rglob("*") if path.is_file()}
    if options["method"] == "mix-review":
        with pytest.raises(UsageError, match=r"--mix-decay 0\.1 in phase"):
            choose(run, tmp_path / "replay", overwrite=True, dry_run=True, **options)
    with pytest.raises(UsageError):
        choose(run, tmp_path / "replay", overwrite=True, **options)
    assert {path: path.read_bytes() for path in (tmp_path / "replay").rglob("*") if path.is_file()} == before
    (tmp_path / "replay" / ".work").mkdir()
    (tmp_path / "replay" / ".work" / "left").write_text("by a call that was killed")
    verify(VerifyConfig(directory=str(tmp_path / "replay")))
    choose(run, tmp_path / "replay", overwrite=True, method="uniform")
    verify(VerifyConfig(directory=str(tmp_path / "replay")))
    assert not (tmp_path / "replay" / ".work").exists()


def test_what_fails_leaves_a_directory_that_was_there(run, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("real", "link"):
        with pytest.raises(UsageError, match="gets no sample"):
            choose(run, tmp_path / name, method="uniform", budget="60 tokens")
    assert list((tmp_path / "real").iterdir()) == []


def test_an_output_apart_from_what_is_read(run, tmp_path):
    for out in (run, run / "replay", run.parent):
        with pytest.raises(UsageError, match=r"--out .* (is the input itself|lies inside the input|holds the input)"):
            choose(run, out, method="uniform", overwrite=True)
    assert (run / "_SUCCESS").exists()
