"""Phases: fresh draws that decay, draws from the first phase, and later checkpoints."""

import numpy as np
import pyarrow.compute as pc
import pytest
from run_builder import build_run
from selection_builder import choose, header_of, ids, population, read_samples

from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.budget import carry
from cptsel.pipeline.kernels.sampling.draws import priority_sample
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify


def test_fresh_draws_that_decay(run, tmp_path):
    out = tmp_path / "replay"
    choose(run, out, method="mix-review", phases=3, mix_decay=0.5, budget="80 samples", group_by=None)
    verify(VerifyConfig(directory=str(out)))
    assert [phase["samples"] for phase in header_of(out)["phases"]] == [80, 40, 20]
    assert len(ids(out, 0) & ids(out, 1)) < 30  # 80/280 of 40 are expected; a nested draw would have all 40
    order(OrderConfig(replay=str(out), out=str(tmp_path / "ordered"), world_size=2))
    verify(VerifyConfig(directory=str(tmp_path / "ordered")))


def test_the_mix_ratio_counts_the_new_domain(run, tmp_path):
    new = build_run(tmp_path / "new", rows=(20,), prefix="new/")
    tokens = population(new)["n_tokens"].sum()
    choose(run, tmp_path / "replay", method="mix-review", mix_ratio=1.5, new=str(new), group_by=None, budget="5%")
    budget = header_of(tmp_path / "replay")["selection"]["budget"]
    assert budget == {"requested": "--mix-ratio 1.5", "unit": "tokens", "amount": int(1.5 * tokens)}


@pytest.mark.parametrize("phase_budget", ["25%", "400 tokens"])
def test_later_phases_drawn_from_the_first(run, tmp_path, phase_budget):
    out = tmp_path / "replay"
    group_by = "language" if phase_budget == "25%" else None
    choose(run, out, method="craig", phases=3, phase_budget=phase_budget, budget="40%", group_by=group_by)
    verify(VerifyConfig(directory=str(out)))
    first = ids(out, 0)
    assert ids(out, 1) < first
    assert ids(out, 2) < first
    assert ids(out, 1) != ids(out, 2)
    rows = read_samples(out)
    zero = rows.filter(pc.equal(rows["phase"], 0))
    for phase in (1, 2):
        mine = rows.filter(pc.equal(rows["phase"], phase))
        if phase_budget == "25%":
            assert mine.num_rows == int(0.25 * zero.num_rows)
        else:
            assert pc.sum(mine["n_tokens"]).as_py() <= 400
        assert (mine["inclusion_prob"].to_numpy() <= 1).all()
    order(OrderConfig(replay=str(out), out=str(tmp_path / "ordered")))


@pytest.mark.parametrize("phase_budget", ["25%", "1200 tokens"])
def test_a_draw_from_the_first_phase_is_a_priority_sample_of_every_group(run, tmp_path, phase_budget):
    """Groups in turn, each with its share and, of tokens, what those before it left."""
    choose(run, tmp_path / "replay", method="craig", phases=2, phase_budget=phase_budget, budget="60%", seed=3)
    rows = read_samples(tmp_path / "replay").sort_by("sample_id")
    zero, one = (rows.filter(pc.equal(rows["phase"], phase)) for phase in (0, 1))
    found = dict(zip(one["sample_id"].to_pylist(), one["inclusion_prob"].to_pylist(), strict=True))
    weights = dict(zip(one["sample_id"].to_pylist(), one["weight"].to_pylist(), strict=True))
    left, by_tokens = 0, "tokens" in phase_budget
    for group in [entry for entry in header_of(tmp_path / "replay")["groups"] if entry["phase"] == 1]:
        mine = zero.filter(pc.equal(zero["group"], group["group"]))
        weight, norm, n_tokens = (mine[name].to_numpy() for name in ("weight", "grad_norm", "n_tokens"))
        names = mine["sample_id"].to_pylist()
        scores, u = weight * norm.astype(np.float64), uniform(3, "draw 1", names)
        draw = priority_sample(scores, u, group["budget"] + left, n_tokens if by_tokens else None)
        if by_tokens:
            left = carry(left, group["budget"], int(n_tokens[draw.picked].sum()), draw.threshold > 0)
        mass = (weight * n_tokens)[draw.picked] / draw.inclusion_prob
        expected = mass * (group["target_mass"] / mass.sum()) / n_tokens[draw.picked]
        for place, share, of in zip(draw.picked.tolist(), draw.inclusion_prob.tolist(), expected.tolist(), strict=True):
            assert found.pop(names[place]) == pytest.approx(share * mine["inclusion_prob"][place].as_py(), rel=1e-12)
            assert weights[names[place]] == pytest.approx(of, rel=1e-12)
    assert not found


def test_phases_from_later_checkpoints(run, later, tmp_path):
    choose(run, tmp_path / "replay", method="craig", phase_run=(str(later),))
    verify(VerifyConfig(directory=str(tmp_path / "replay")))
    for phase, source in enumerate((run, later)):
        choose(source, tmp_path / str(phase), method="craig")
        assert ids(tmp_path / "replay", phase) == ids(tmp_path / str(phase))
    assert len(header_of(tmp_path / "replay")["provenance"]["runs"]) == 2


def test_totals_are_of_all_phases(run, tmp_path):
    told = choose(run, tmp_path / "replay", method="craig", phases=3, phase_budget="25%", budget="40%", group_by=None)
    header = header_of(tmp_path / "replay")
    phases, totals = header["phases"], header["totals"]
    assert totals["selected_tokens"] == sum(phase["tokens"] for phase in phases)
    assert totals["effective_tokens"] == sum(phase["effective_tokens"] for phase in phases)
    assert all(phase["effective_tokens"] > 0 for phase in phases)
    assert told.effective_tokens == totals["effective_tokens"]
