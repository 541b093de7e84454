"""Rounds: what was replayed before is left out, discounted or covered, and exploration draws what was not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from run_builder import build_run
from selection_builder import choose, header_of, ids, population, read_samples

from cptsel.pipeline import hashing
from cptsel.pipeline.artifacts.manifest import manifest_id
from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.kernels.matching import gradmatch
from cptsel.pipeline.kernels.matching.mass import MASS
from cptsel.pipeline.kernels.sampling.draws import priority_sample
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.selection.methods import METHODS
from cptsel.pipeline.selection.reading.history import open_history
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify


@pytest.mark.parametrize("method", ["uniform", "craig", "gradmatch"])
@pytest.mark.parametrize("scope", ["shard", "global"])
def test_what_was_replayed_is_not_chosen_again(run, tmp_path, method, scope):
    """Two rounds after the first; the corpus's mass stays what it is."""
    options = {"method": method, "scope": scope, "group_by": None, "budget": "40 samples"}
    rounds: list[Path] = []
    played: set[str] = set()
    for number in range(3):
        out = tmp_path / str(number)
        choose(run, out, history=tuple(map(str, rounds)), seed=number, **options)
        verify(VerifyConfig(directory=str(out)))
        assert not ids(out) & played
        rows = read_samples(out)
        played |= set(rows.filter(pc.greater(rows["repeat"], 0))["sample_id"].to_pylist())
        rounds.append(out)
    mass = {header_of(out)["totals"]["population_mass"] for out in rounds}
    assert len(mass) == 1
    assert header_of(rounds[2])["provenance"]["history"] == [header_of(out)["manifest_id"] for out in rounds[:2]]


def test_what_was_not_played_may_be_chosen_again(run, tmp_path):
    choose(run, tmp_path / "a", method="uniform", realisation="repeat", replay_tokens="300")
    rows = read_samples(tmp_path / "a")
    unplayed = set(rows.filter(pc.equal(rows["repeat"], 0))["sample_id"].to_pylist())
    assert unplayed
    choose(run, tmp_path / "b", method="uniform", history=(str(tmp_path / "a"),))
    assert ids(tmp_path / "b") & unplayed  # the same draw, whose keys are large
    assert not ids(tmp_path / "b") & (ids(tmp_path / "a") - unplayed)


def test_discounted_draws(run, tmp_path):
    options = {"method": "uniform", "scope": "global", "group_by": None, "budget": "50 samples"}
    choose(run, tmp_path / "a", realisation="none", **options)
    history = {"history": (str(tmp_path / "a"),), "history_mode": "discount", "history_discount": 0.25}
    choose(run, tmp_path / "b", **history, **options)
    everything = population(run, group_by=None)
    order_ = np.argsort(everything["id"])
    names, before = everything["id"][order_].tolist(), ids(tmp_path / "a")
    scores = (everything["mass"] / everything["n_tokens"])[order_]
    scores = scores * np.where([name in before for name in names], 0.25, 1.0)
    draw = priority_sample(scores, hashing.uniform(0, "draw 0", names), 50)
    assert ids(tmp_path / "b") == {names[i] for i in draw.picked}


def test_coverage_starts_from_what_was_replayed(run, tmp_path):
    options = {"method": "craig", "group_by": None, "budget": "12 samples", "scope": "global"}
    choose(run, tmp_path / "a", realisation="none", **options)
    figures = {}
    for mode in ("exclude", "cover"):
        choose(run, tmp_path / mode, history=(str(tmp_path / "a"),), history_mode=mode, **options)
        figures[mode] = header_of(tmp_path / mode)["selection"]["report"]
        assert not ids(tmp_path / mode) & ids(tmp_path / "a")
    assert figures["cover"]["covered_distance"] < figures["cover"]["mean_distance"]
    first, both = (population(run, group_by=None)["id"], ids(tmp_path / "a"))
    assert len(both) == 12 < len(first)


def test_exploration(run, tmp_path):
    options = {"method": "craig", "group_by": None, "budget": "40 samples"}
    choose(run, tmp_path / "a", realisation="none", **options)
    choose(run, tmp_path / "b", explore=0.25, history=(str(tmp_path / "a"),), **options)
    verify(VerifyConfig(directory=str(tmp_path / "b")))
    rows = read_samples(tmp_path / "b")
    explored = rows.filter(pc.is_null(rows["score"]))  # a draw has no gain
    assert (rows.num_rows, explored.num_rows) == (40, 10)
    weight, n = (explored[name].to_numpy().astype(float) for name in ("weight", "n_tokens"))
    assert weight @ n == pytest.approx(0.25 * header_of(tmp_path / "b")["totals"]["population_mass"])
    assert not ids(tmp_path / "b") & ids(tmp_path / "a")
    choose(run, tmp_path / "c", **{**options, "explore": 1.0})
    assert read_samples(tmp_path / "c")["score"].null_count == 40


def test_exploration_stands_for_what_it_drew(run, tmp_path):
    """Where less is fresh than was to be drawn, the few that are don't stand for the whole share."""
    choose(run, tmp_path / "a", method="uniform", group_by=None, budget="270 samples", realisation="none")
    options = {"history": (str(tmp_path / "a"),), "history_mode": "discount", "group_by": None, "budget": "40 samples"}
    choose(run, tmp_path / "b", explore=0.5, method="craig", **options)
    rows = read_samples(tmp_path / "b")
    explored = rows.filter(pc.is_null(rows["score"]))
    assert rows.num_rows == 40
    assert 0 < explored.num_rows <= 10  # 280 samples less 270 are fresh, and half of 40 were to be explored
    weight, n = (explored[name].to_numpy().astype(float) for name in ("weight", "n_tokens"))
    assert weight @ n == pytest.approx(explored.num_rows / 40 * header_of(tmp_path / "b")["totals"]["population_mass"])


@pytest.mark.parametrize("method", ["craig", "gradmatch"])
@pytest.mark.parametrize("mode", ["exclude", "cover"])
def test_a_shard_without_candidates_still_counts(run, tmp_path, monkeypatch, method, mode):
    """History takes all of the first shard: its samples stay clients, and their gradients stay in the target."""
    if mode == "cover" and method != "craig":
        pytest.skip("only coverage starts from what was replayed")
    whole = choose(run, tmp_path / "a", method="full", budget="100%", realisation="none").totals["samples"]
    for path in sorted((tmp_path / "a" / "samples").iterdir())[1:]:  # a manifest of the first shard alone
        path.unlink()
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    gone = [name for name in manifest["files"] if name.startswith("samples/") and name != "samples/000000.parquet"]
    for name in gone:
        del manifest["files"][name]
    manifest["manifest_id"] = manifest_id(manifest)
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest))
    options = {"method": method, "history": (str(tmp_path / "a"),), "history_mode": mode, "group_by": None}
    options |= {"neighbours": 400} if method == "craig" else {}
    targets = []

    def recorded(*args, **named):
        targets.append(named["target"])
        return gradmatch.match(*args, **named)

    monkeypatch.setitem(METHODS, "gradmatch", replace(METHODS["gradmatch"], kernel=recorded))
    choose(run, tmp_path / "b", scope="global", **options)
    report = header_of(tmp_path / "b")["selection"]["report"]
    everything = population(run, group_by=None)
    if method == "craig":
        assert report["clients"] == whole
        assert ("covered_distance" in report) == (mode == "cover")
    else:
        length = np.linalg.norm(everything["g"].T @ (everything["mass"] / everything["n_tokens"]))
        assert np.linalg.norm(targets[-1][:-1]) == pytest.approx(length, rel=1e-3)  # that of the merge
        assert targets[-1][-1] == pytest.approx(MASS * length, rel=1e-3)


def test_a_history_named_twice_is_one_round(run, tmp_path):
    choose(run, tmp_path / "a", method="uniform")
    order(OrderConfig(replay=str(tmp_path / "a"), out=str(tmp_path / "ordered")))
    options = {"method": "importance", "history_mode": "discount", "history_discount": 0.1}
    choose(run, tmp_path / "b", history=(str(tmp_path / "a"),), **options)
    choose(run, tmp_path / "c", history=(str(tmp_path / "a"), str(tmp_path / "ordered")), **options)
    assert ids(tmp_path / "b") == ids(tmp_path / "c")


def test_equal_rounds_are_two_rounds(run, tmp_path):
    """Rounds that chose the same are told apart by what they were selected with."""
    choose(run, tmp_path / "a", method="craig")
    choose(run, tmp_path / "b", method="craig", mass="corpus", skip_residuals=True, seed=7, realisation="none")
    runs = open_runs([str(run)])
    paths = [str(tmp_path / name) for name in "ab"]
    assert ids(tmp_path / "a") == ids(tmp_path / "b")
    for count in (1, 2):
        history = open_history(paths[:count], runs, "discount", 0.5)
        assert {len(files) for files in history.files.values()} == {count}


def test_exploration_takes_no_more_of_a_group_than_its_share(run, tmp_path):
    rest = {"group_by": "language", "realisation": "none", "budget": "100%"}
    choose(run, tmp_path / "all", method="full", **rest)
    groups = {row["sample_id"]: row["group"] for row in read_samples(tmp_path / "all").to_pylist()}
    fresh = max(set(groups.values()), key=list(groups.values()).count)
    shares = tmp_path / "shares.yaml"
    shares.write_text(json.dumps({group: float(group != fresh) for group in set(groups.values())}))
    names = sorted(name for name, group in groups.items() if group != fresh)
    choose(
        run,
        tmp_path / "a",
        method="uniform",
        group_mass=str(shares),
        budget=f"{len(names)} samples",
        **{name: value for name, value in rest.items() if name != "budget"},
    )
    history = {"history": (str(tmp_path / "a"),), "history_mode": "discount", "budget": "40%"}
    choose(run, tmp_path / "b", method="craig", explore=0.1, **history)
    mine = read_samples(tmp_path / "b").filter(pc.equal(read_samples(tmp_path / "b")["group"], fresh))
    assert 0 < mine["score"].null_count <= np.ceil(0.1 * mine.num_rows)


def test_a_history_that_is_none(run, tmp_path):
    other = build_run(tmp_path / "other", rows=(40,), prefix="elsewhere/")
    choose(other, tmp_path / "a", method="uniform")
    with pytest.raises(UsageError, match="none of the shards that it replays is in these runs"):
        choose(run, tmp_path / "b", history=(str(tmp_path / "a"),))
    choose(run, tmp_path / "c", method="uniform")
    next((tmp_path / "c" / "samples").iterdir()).write_bytes(b"damaged")
    with pytest.raises(VerificationError, match="is not the file that was written"):
        choose(run, tmp_path / "d", history=(str(tmp_path / "c"),))
