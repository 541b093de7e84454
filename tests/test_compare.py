"""What ``compare`` tells equals sets and sums made by hand."""

import json

import numpy as np
import pytest
from run_builder import ROWS, build_run
from selection_builder import choose, read_samples

import cptsel
from cptsel.cli.main import main
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.compare import compare
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.lookup.apart import apart, picks_of
from cptsel.pipeline.lookup.config import CompareConfig


def table(summary, title):
    return summary.table(title).records()


def side_by_side(*paths, **options):
    return compare(CompareConfig(replays=tuple(str(path) for path in paths), **options))


def test_residuals_against_other_targets_are_named(run, tmp_path):
    choose(run, tmp_path / "a", method="uniform")
    choose(run, tmp_path / "b", method="gradmatch")
    choose(run, tmp_path / "c", method="uniform", group_alpha=0.3, realisation="sampling", replay_tokens="9K")
    assert side_by_side(tmp_path / "a", tmp_path / "b").warnings == []
    summary = side_by_side(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    (warning,) = summary.warnings
    assert warning.startswith("residuals of c are relative to another target than that of a")
    assert table(summary, "Selections")[2]["played tokens"] == 9000
    assert sum(row["c"] for row in table(summary, "Tokens played")) == pytest.approx(9000, abs=2)
    targets = {g["group"]: g["target_mass"] for g in load_manifest(str(tmp_path / "c")).header["groups"]}
    for row in table(summary, "Groups"):
        assert row["c"] == pytest.approx(targets[row["group"]] / sum(targets.values()))


def test_overlap_and_mix_are_those_of_the_samples(run, tmp_path):
    choose(run, tmp_path / "a", method="uniform", budget="40%")
    choose(run, tmp_path / "b", method="craig", budget="30%", group_alpha=0.5)
    summary = side_by_side(tmp_path / "a", tmp_path / "b")
    (pair,) = table(summary, "Overlap")
    a, b = ({row["sample_id"]: row for row in read_samples(tmp_path / name).to_pylist()} for name in "ab")
    common = a.keys() & b.keys()
    assert pair["samples in both"] == len(common) > 0
    assert pair["Jaccard"] == pytest.approx(len(common) / len(a.keys() | b.keys()))
    assert pair["by chance"] == pytest.approx(len(a) * len(b) / sum(ROWS))
    played = sum(row["repeat"] * row["n_tokens"] for row in a.values())
    shared = sum(a[name]["repeat"] * a[name]["n_tokens"] for name in common if b[name]["repeat"])
    assert pair["of its played tokens"] == pytest.approx(shared / played)
    mass = load_manifest(str(tmp_path / "a")).header["totals"]["population_mass"]
    names = a.keys() | b.keys()
    apart = sum(abs(m(a, name) - m(b, name)) for name in names) / (2 * mass)
    assert pair["distance of masses"] == pytest.approx(apart)
    assert pair["tokens in both"] == sum(a[name]["n_tokens"] for name in common)
    for row in table(summary, "Groups"):
        assert row["a"] == pytest.approx(tokens_of(a, row["group"]) / played)
    differences = table(summary, "Tokens played")
    assert len(differences) == len({row["group"] for row in a.values()})
    for row in differences:
        assert (row["a"], row["b"]) == (tokens_of(a, row["group"]), tokens_of(b, row["group"]))
        assert row["b less a"] == row["b"] - row["a"]
    assert pair["tokens moved between groups"] == sum(abs(row["b less a"]) for row in differences) / 2 > 0


def tokens_of(rows, group):
    return sum(row["repeat"] * row["n_tokens"] for row in rows.values() if row["group"] == group)


def m(rows, name):
    return rows[name]["weight"] * rows[name]["n_tokens"] if name in rows else 0.0


def vectors(run):
    """Unit direction, float64, of every sample of a run."""
    opened = cptsel.open_run(str(run))
    parts = list(opened.batches())
    found = np.concatenate([part for _, part in parts]).astype(np.float64)
    names = [name for rows, _ in parts for name in rows["sample_id"].to_pylist()]
    return dict(zip(names, found / np.linalg.norm(found, axis=1, keepdims=True), strict=True))


@pytest.mark.parametrize("held", [1, 1000, 1 << 30])
def test_distances_are_those_of_all_pairs(run, tmp_path, held):
    """Whatever part of the other selection is held at a time."""
    choose(run, tmp_path / "a", method="uniform", budget="20%")
    choose(run, tmp_path / "b", method="craig", budget="10%")
    of_sample, runs = vectors(run), open_runs([str(run)])
    a, b = (picks_of(load_manifest(str(tmp_path / name)), 0) for name in "ab")
    for mine, others in ((a, b), (b, a)):
        found = apart(runs, mine, others, 7, held)
        names, its = ([name for shard in picks.values() for name in shard.tolist()] for picks in (mine, others))
        distance = {
            name: min((float(np.linalg.norm(of_sample[name] - of_sample[other])), other) for other in its)
            for name in names
        }
        assert (found.picks, found.alone) == (len(names), len(set(names) - set(its)))
        assert found.mean == pytest.approx(np.mean([near for near, _ in distance.values()]), rel=1e-4)
        assert len(found.farthest) == 7
        ranked = sorted((near for near, _ in distance.values()), reverse=True)[:7]
        assert [far.distance for far in found.farthest] == pytest.approx(ranked, rel=1e-4)
        for far in found.farthest:
            assert far.sample_id in mine[far.path]
            assert np.linalg.norm(of_sample[far.sample_id] - of_sample[far.nearest]) == pytest.approx(
                far.distance, rel=1e-4
            )


def test_the_farthest_picks_are_told_with_their_texts(embedded, tmp_path):
    run, texts = embedded.replay.parent / "run", {}
    for name, seed in (("a", 1), ("b", 2)):
        choose(run, tmp_path / name, method="uniform", budget="30%", group_by=None, seed=seed)
        replay = cptsel.open_replay(str(tmp_path / name))
        texts |= {row["sample_id"]: text for row, text in replay.texts()}
    summary = side_by_side(tmp_path / "a", tmp_path / "b", run=(str(run),), farthest=3)
    json.dumps(summary.as_dict())
    assert summary.warnings == []
    for title in ("Picks of a farthest from b", "Picks of b farthest from a"):
        rows = table(summary, title)
        assert len(rows) == 3
        assert [row["distance"] for row in rows] == sorted((row["distance"] for row in rows), reverse=True)
        for row in rows:
            whole = " ".join(texts[row["sample_id"]].split())
            assert row["text"] == (whole if len(whole) <= 160 else whole[:160] + "[...]")
    means = table(summary, "Distances")
    assert [(row["selection"], row["to"]) for row in means] == [("a", "b"), ("b", "a")]
    assert 0 < means[0]["mean distance to the nearest"] <= rows[0]["distance"] * 2
    itself = side_by_side(tmp_path / "a", tmp_path / "a", run=(str(run),))
    assert [row["mean distance to the nearest"] for row in table(itself, "Distances")] == [0, 0]
    with pytest.raises(UsageError, match=r"--root .* is missing; name the directory"):
        side_by_side(tmp_path / "a", tmp_path / "b", run=(str(run),), root=str(tmp_path))


def test_runs_that_are_not_theirs_are_refused(run, tmp_path):
    choose(run, tmp_path / "a", method="uniform")
    choose(run, tmp_path / "b", method="craig")
    other = build_run(tmp_path / "other", rows=(40,))
    with pytest.raises(UsageError, match="was not selected from it"):
        side_by_side(tmp_path / "a", tmp_path / "b", run=(str(other),))
    with pytest.raises(UsageError, match="--farthest is read with --run; leave it out"):
        side_by_side(tmp_path / "a", tmp_path / "b", farthest=3)
    lost = {"000.jsonl": np.array(["0" * 32])}
    with pytest.raises(UsageError, match=r"lacks 1 sample that the selection has from 000\.jsonl"):
        apart(open_runs([str(run)]), lost, picks_of(load_manifest(str(tmp_path / "b")), 0), 1)
    summary = side_by_side(tmp_path / "a", tmp_path / "b", run=(str(run),))
    assert any("is missing, so its texts are left out" in warning for warning in summary.warnings)
    assert all(row["text"] is None for row in table(summary, "Picks of a"))


def test_a_selection_beside_itself(run, tmp_path):
    choose(run, tmp_path / "a", method="craig", phases=2, phase_budget="50%")
    summary = side_by_side(tmp_path / "a", tmp_path / "a", phase=1)
    (pair,) = table(summary, "Overlap")
    assert (pair["Jaccard"], pair["selection"], pair["and"]) == (1.0, "a (1)", "a (2)")
    assert pair["distance of masses"] == pytest.approx(0, abs=1e-12)


def test_what_is_refused(run, tmp_path):
    choose(run, tmp_path / "a", method="uniform")
    other = build_run(tmp_path / "other", rows=(40,), prefix="elsewhere/")
    choose(other, tmp_path / "b", method="uniform")
    with pytest.raises(UsageError, match="two manifests or more"):
        side_by_side(tmp_path / "a")
    differences = r"1 of its files are not in that corpus \(such as elsewhere/000.jsonl\), 4 files of that corpus are"
    with pytest.raises(UsageError, match=f"is not a selection from the corpus of .*: {differences}"):
        side_by_side(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UsageError, match=r"--phase 3: .* has the phases 0"):
        side_by_side(tmp_path / "a", tmp_path / "a", phase=3)
    with pytest.raises(UsageError, match="is not a replay manifest"):
        side_by_side(tmp_path / "a", other)
    next((tmp_path / "a" / "samples").iterdir()).write_bytes(b"damaged")
    with pytest.raises(VerificationError, match="is not the file that was written"):
        side_by_side(tmp_path / "a", tmp_path / "a")


@pytest.fixture
def grown(run, tmp_path):
    """Runs of files that the corpus got since, with a language of their own."""
    return [
        build_run(tmp_path / name, rows=(50, 30), prefix=f"{name}/", pool=True, languages=("de", "xx"))
        for name in ("more", "other")
    ]


@pytest.mark.parametrize("swapped", [False, True])
def test_a_corpus_that_grew(run, grown, tmp_path, swapped):
    """What is of its files alone is in no overlap, and shares of groups are those of the larger corpus."""
    choose(run, tmp_path / "a", method="uniform")
    choose((run, grown[0]), tmp_path / "b", method="uniform")
    names = "ba" if swapped else "ab"
    summary = side_by_side(tmp_path / names[0], tmp_path / names[1], run=(str(run), str(grown[0])))
    a, b = ({row["sample_id"] for row in read_samples(tmp_path / name).to_pylist()} for name in "ab")
    (pair,) = table(summary, "Overlap")
    assert pair["samples in both"] == len(a & b) > 0
    assert pair["by chance"] == pytest.approx(len(a) * len(b) / (sum(ROWS) + 80))
    header = load_manifest(str(tmp_path / "b")).header
    shares = {row["group"]: row["corpus"] for row in table(summary, "Groups")}
    assert shares == {
        group["group"]: pytest.approx(group["population_mass"] / header["totals"]["population_mass"])
        for group in header["groups"]
    }
    assert "xx" in shares
    alone = {row["selection"]: row["of these alone"] for row in table(summary, "Distances")}
    assert alone == {"a": len(a - b), "b": len(b - a)}
    told = {"a": f"a from 4 files with {sum(ROWS)} samples", "b": f"b from 6 files with {sum(ROWS) + 80} samples"}
    (warning,) = (sentence for sentence in summary.warnings if "has files" in sentence)
    assert f"{told[names[0]]}, {told[names[1]]}; so the selections can differ" in warning


def test_a_corpus_that_grew_in_two_ways_is_refused(run, grown, tmp_path):
    choose(run, tmp_path / "a", method="uniform")
    choose((run, grown[0]), tmp_path / "b", method="uniform")
    choose((run, grown[1]), tmp_path / "c", method="uniform")
    with pytest.raises(UsageError, match=r"c is not a selection from the corpus of .*b: 2 of its files are not in"):
        side_by_side(tmp_path / "a", tmp_path / "b", tmp_path / "c")


def test_the_command(run, tmp_path, capsys):
    for name, method in (("a", "uniform"), ("b", "gradmatch")):
        choose(run, tmp_path / name, method=method)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    (found, *_) = json.loads(capsys.readouterr().out)["tables"]
    assert found["title"] == "Selections"
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    assert [row["method"] for row in rows] == ["uniform", "gradmatch"]
    assert rows[1]["on validation"] < rows[0]["on validation"]
