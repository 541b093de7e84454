"""The header of a manifest: sums that agree, the options that decided, the runs it came from, no output path."""

import json

import pytest
from selection_builder import choose, header_of

from cptsel.pipeline.artifacts.run import open_runs, run_fingerprint


@pytest.mark.parametrize("method", ["uniform", "craig"])
def test_groups_add_up_to_phases_and_phases_to_the_whole(run, later, tmp_path, method):
    choose(run, tmp_path / "replay", method=method, phase_run=(str(later),))
    header = header_of(tmp_path / "replay")
    for phase in header["phases"]:
        mine = [group for group in header["groups"] if group["phase"] == phase["phase"]]
        for of_group, of_phase in (("selected_samples", "samples"), ("selected_tokens", "tokens")):
            assert sum(group[of_group] for group in mine) == phase[of_phase]
        assert sum(group["replay_tokens"] for group in mine) == phase["replay_tokens"]["realised"]
        assert sum(group["population_tokens"] for group in mine) == header["totals"]["population_tokens"]
    assert sum(phase["samples"] for phase in header["phases"]) == header["totals"]["selected_samples"]
    assert sum(group["plays"] for group in header["groups"]) == header["totals"]["plays"]


def test_options_are_those_that_the_method_reads(run, tmp_path):
    read = {}
    for method in ("uniform", "craig", "gradmatch"):
        choose(run, tmp_path / method, method=method)
        read[method] = set(header_of(tmp_path / method)["selection"]["options"])
    assert "neighbours" in read["craig"] - read["uniform"] - read["gradmatch"]
    assert "ridge" in read["gradmatch"] - read["uniform"] - read["craig"]
    assert {"seed", "group_by", "max_repeats"} <= read["uniform"] & read["craig"] & read["gradmatch"]


def test_runs_are_named_by_what_is_in_them_and_outputs_not_at_all(run, tmp_path):
    choose(run, tmp_path / "somewhere", method="uniform")
    header = header_of(tmp_path / "somewhere")
    (source,) = open_runs([str(run)]).headers
    assert header["provenance"]["runs"] == [{"fingerprint": run_fingerprint(source), "run_id": source["run_id"]}]
    assert "somewhere" not in json.dumps(header)


def test_a_group_without_a_share_is_listed_with_nothing(run, tmp_path):
    (tmp_path / "mix.yaml").write_text('{"de": 1, "en": 1, "uk": 0, "(none)": 1}')
    choose(run, tmp_path / "replay", method="uniform", group_mass=str(tmp_path / "mix.yaml"))
    (left_out,) = [group for group in header_of(tmp_path / "replay")["groups"] if group["group"] == "uk"]
    assert left_out["population_samples"] > 0
    assert {left_out[name] for name in ("target_mass", "budget", "selected_samples", "plays", "replay_requested")} == {
        0
    }
    assert left_out["weight_quantiles"] == []
