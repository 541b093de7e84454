"""What ``compare`` tells equals sets and sums made by hand."""

import json

import pytest
from run_builder import ROWS, build_run
from selection_builder import choose, read_samples

from cptsel.cli.main import main
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.compare import compare
from cptsel.pipeline.config import CompareConfig
from cptsel.pipeline.errors import UsageError, VerificationError


def table(summary, title):
    (found,) = [table for table in summary["tables"] if table["title"].startswith(title)]
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


def side_by_side(*paths, **options):
    return compare(CompareConfig(replays=tuple(str(path) for path in paths), **options))


def test_residuals_against_other_targets_are_named(run, tmp_path):
    choose(run, tmp_path / "a", method="uniform")
    choose(run, tmp_path / "b", method="gradmatch")
    choose(run, tmp_path / "c", method="uniform", group_alpha=0.3, realisation="sampling", replay_tokens="9K")
    assert side_by_side(tmp_path / "a", tmp_path / "b")["warnings"] == []
    summary = side_by_side(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    (warning,) = summary["warnings"]
    assert warning.startswith("residuals of c are against another target than that of a")
    assert table(summary, "Selections")[2]["played tokens"] == 9000
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
    for row in table(summary, "Groups"):
        tokens = sum(r["repeat"] * r["n_tokens"] for r in a.values() if r["group"] == row["group"])
        assert row["a"] == pytest.approx(tokens / played)


def m(rows, name):
    return rows[name]["weight"] * rows[name]["n_tokens"] if name in rows else 0.0


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
    with pytest.raises(UsageError, match="is not a selection from the corpus of"):
        side_by_side(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UsageError, match=r"--phase 3: .* has the phases 0"):
        side_by_side(tmp_path / "a", tmp_path / "a", phase=3)
    with pytest.raises(UsageError, match="is not a replay manifest"):
        side_by_side(tmp_path / "a", other)
    next((tmp_path / "a" / "samples").iterdir()).write_bytes(b"damaged")
    with pytest.raises(VerificationError, match="is not the file that was written"):
        side_by_side(tmp_path / "a", tmp_path / "a")


def test_the_command(run, tmp_path, capsys):
    for name, method in (("a", "uniform"), ("b", "gradmatch")):
        choose(run, tmp_path / name, method=method)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    rows = table(summary, "Selections")
    assert [row["method"] for row in rows] == ["uniform", "gradmatch"]
    assert rows[1]["on validation"] < rows[0]["on validation"]
