"""What a dry run tells."""

from cptsel.pipeline.select import select
from cptsel.pipeline.selection.config import SelectConfig


def test_a_dry_run_of_every_family(run, tmp_path):
    for method in ("uniform", "craig", "gradmatch", "full"):
        options = {"budget": "100%"} if method == "full" else {"budget": "20%"}
        config = SelectConfig(runs=(str(run),), out=str(tmp_path / "x"), method=method, dry_run=True, **options)
        assert select(config)["status"] == "dry-run"
    assert not (tmp_path / "x").exists()
