"""``cptsel plan``: how much replay a tolerated rise needs, and when it will not say."""

import json
import math

import pytest

from cptsel.cli.main import main
from cptsel.pipeline.errors import BadInputError, UsageError
from cptsel.pipeline.kernels.replay_law import ReplayLaw
from cptsel.pipeline.plan import plan
from cptsel.pipeline.planning.config import PlanConfig

LAW = ReplayLaw(0.2, 0.03, 400.0)
BUDGETS = (0, 10_000, 20_000, 40_000)


def write(path, rows, head="seed,replay_tokens,rise"):
    path.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return str(path)


@pytest.fixture
def trainings(tmp_path):
    rows = [
        (seed, b + seed * (b > 0), float(LAW.rise(b)) + off) for b in BUDGETS for seed, off in ((0, 0.001), (1, -0.001))
    ]
    return write(tmp_path / "trainings.csv", rows)


def test_the_needed_replay_keeps_to_the_tolerated_rise(trainings):
    summary = plan(PlanConfig(trainings=trainings, rise=0.08, tokens=("30K",)))
    needed = summary.tokens_needed
    assert float(LAW.rise(needed)) == pytest.approx(0.08, abs=2e-3)
    assert summary.tokens_at_least <= needed <= summary.tokens_at_most
    assert summary.table("Foretold").rows[0][1] == pytest.approx(float(LAW.rise(30_000)), abs=2e-3)
    rows = summary.table("Trainings").rows
    assert [row[1] for row in rows] == [2] * 4
    assert [row[0] for row in rows] == pytest.approx(BUDGETS, abs=1)


def test_a_rise_that_no_replay_exceeds_needs_none(trainings):
    assert plan(PlanConfig(trainings=trainings, rise=0.5)).tokens_needed == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [({"rise": 0.001}, "--rise 0.001: .* tokens leave a rise of .*"), ({"tokens": ("1M",)}, "--tokens 1,000,000: ")],
)
def test_nothing_is_told_far_beyond_what_was_tried(trainings, options, words):
    with pytest.raises(UsageError, match=f"{words}the law is not trusted beyond 80,00") as error:
        plan(PlanConfig(trainings=trainings, **options))
    told = error.value.summary  # what the law says of the trainings, by which to see how far it reaches
    assert (told.status, told.tables[0].title) == ("too far", "Trainings by replay")


def test_an_answer_is_not_lost_with_one_that_can_not_be_told(trainings):
    with pytest.raises(UsageError, match="--rise") as error:
        plan(PlanConfig(trainings=trainings, rise=0.001, tokens=("20K",)))
    assert [row[0] for row in error.value.summary.table("Foretold").rows] == [20_000]


def test_doubling_is_that_of_the_largest_replay(tmp_path):
    """Where replay saves in proportion, as much more again; and nowhere what would be saved beyond all bounds."""
    found = plan(PlanConfig(trainings=write(tmp_path / "a.csv", [(0, b, 1 - b / 1e5) for b in BUDGETS])))
    assert found.saved_by_doubling == pytest.approx(found.saved_by_the_largest, rel=0.02)
    assert found.saved_by_the_largest == pytest.approx(0.4, rel=0.02)


@pytest.mark.parametrize("rise", ["nan", "inf"])
def test_a_rise_that_is_no_number_is_refused(trainings, capsys, rise):
    assert main(["plan", trainings, "--rise", rise]) == 2
    assert f"--rise {rise}: must be a finite number" in capsys.readouterr().err


def test_runs_that_follow_no_law_are_shown_and_refused(tmp_path, capsys):
    path = write(tmp_path / "noise.csv", [(0, b, rise) for b, rise in zip(BUDGETS, (1, 0.5, 0.9, 0.2), strict=True)])
    assert main(["plan", path, "--rise", "0.1", "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["status"] == "no law"
    assert "too much to plan by" in said.err


@pytest.mark.parametrize("rises", [(0.1, 0.1, 0.1, 0.1), (0.1, 0.2, 0.3, 0.4)])
def test_rises_that_do_not_fall_with_replay_are_refused(tmp_path, rises):
    path = write(tmp_path / "flat.csv", [(0, b, rise) for b, rise in zip(BUDGETS, rises, strict=True)])
    with pytest.raises(UsageError, match="rise does not fall with replay_tokens"):
        plan(PlanConfig(trainings=path, rise=0.05))


@pytest.mark.parametrize("rise", [math.nan, math.inf])
def test_a_tolerated_rise_is_a_number(trainings, rise):
    with pytest.raises(UsageError, match=f"--rise {rise}: must be a finite number"):
        plan(PlanConfig(trainings=trainings, rise=rise))


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", UsageError, "is empty"),
        ("tokens,rise\n1,2\n", UsageError, "replay_tokens is not there"),
        ("replay_tokens;rise\n1;2\n", UsageError, "separated by commas"),
        ("rise,replay_tokens,rise\n1,2,1\n", UsageError, "rise stands there more than once"),
        ("replay_tokens,rise\n0,1\n5,.5\n", UsageError, "2 different amounts"),
        ("replay_tokens,rise\n0,1\n5\n", BadInputError, "line 3"),
        ("replay_tokens,rise\n0,1\n-5,1\n", BadInputError, "line 3"),
        ("replay_tokens,rise\n0,nan\n", BadInputError, "line 2"),
        ("replay_tokens,rise\n1e303,1\n", BadInputError, "line 2"),
        ("replay_tokens,rise\n0,1e300\n", BadInputError, "line 2"),
        ("replay_tokens,rise\n0.5,1\n", BadInputError, "line 2"),
        ('replay_tokens,rise\n0,"1\n', UsageError, "no CSV file"),
        ("\x00\udcff", UsageError, "no CSV file"),
    ],
)
def test_bad_files_are_named(tmp_path, text, error, words):
    path = tmp_path / "trainings.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(error, match=words):
        plan(PlanConfig(trainings=str(path)))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="can't be read"):
        plan(PlanConfig(trainings=str(tmp_path / "none.csv")))
