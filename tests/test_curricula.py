"""Ranks of a curriculum are computed again from the manifest, and a wrong one is named."""

import shutil

import pytest
from manifest_builder import change_samples, reseal
from selection_builder import choose

from cptsel.pipeline.errors import VerificationError
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify


def exchange(rows):
    rows[0]["order_rank"], rows[1]["order_rank"] = rows[1]["order_rank"], rows[0]["order_rank"]


@pytest.mark.parametrize("buckets", [None, 3])
@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize("kind", ["norm", "gain", "loss"])
def test_ranks_are_computed_again(run, tmp_path, kind, order, buckets):
    options = {"curriculum": kind, "curriculum_order": order, "curriculum_buckets": buckets, "seed": 3}
    choose(run, tmp_path / "replay", method="craig", **options)
    verify(VerifyConfig(directory=str(tmp_path / "replay")))
    changed = shutil.copytree(tmp_path / "replay", tmp_path / "changed")
    change_samples(changed, 0, exchange)
    reseal(changed)
    if kind == "loss":  # the manifest does not hold the losses
        assert verify(VerifyConfig(directory=str(changed))).status == "verified"
        return
    with pytest.raises(VerificationError, match=f"order_rank is .*, not its place by {kind} {order}") as caught:
        verify(VerifyConfig(directory=str(changed)))
    assert caught.value.summary.totals["problems"] == 2
