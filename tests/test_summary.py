"""What a pass returns: attributes, and how it shows itself; and what a dry run tells."""

import dataclasses
import inspect
import re

import pytest

import cptsel
from cptsel.pipeline import results
from cptsel.pipeline.results import Residuals
from cptsel.pipeline.select import select
from cptsel.pipeline.selection.config import SelectConfig
from cptsel.pipeline.summary import Summary, Table, counted

OF_ALL = {field.name for field in dataclasses.fields(Summary)}
HOSTILE = "<img src=x>\x1b[2J\u202e"


def test_a_dry_run_of_every_family(run, tmp_path):
    for method in ("uniform", "craig", "gradmatch", "full"):
        options = {"budget": "100%"} if method == "full" else {"budget": "20%"}
        config = SelectConfig(runs=(str(run),), out=str(tmp_path / "x"), method=method, dry_run=True, **options)
        assert select(config).status == "dry-run"
    assert not (tmp_path / "x").exists()


def test_a_number_agrees_with_its_noun():
    assert [counted(n, "row") for n in (0, 1, 2, 12_345)] == ["0 rows", "1 row", "2 rows", "12,345 rows"]


@pytest.fixture
def summary():
    rows = [[f"{HOSTILE}{number}", 1234 * number, 0.5, None] for number in range(30)]
    tables = [Table("Groups", ["group", "tokens", "share", "none"], rows), Table("Others", ["a"], [])]
    totals = {HOSTILE: True, "tokens": 1_234_567}
    return Summary(command="select", out="/out", status="done", totals=totals, tables=tables, warnings=[HOSTILE])


def test_it_shows_itself_and_nothing_in_it_acts(summary):
    shown = repr(summary)
    assert shown.splitlines()[0] == "cptsel select: done"
    assert "  tokens: 1,234,567" in shown
    assert "  out: /out" in shown
    assert "  and 10 more" in shown
    assert not {"\x1b", "\u202e"} & set(shown)
    page = summary._repr_html_()
    assert "<img" not in page
    assert page.count("&lt;img src=x&gt;") == 1 + 1 + 20
    assert page.count("<tr>") == 3 + 1 + 20 + 1  # totals and out; a head and its rows; a head alone
    assert not {"\x1b", "\u202e"} & set(page)


def test_it_can_not_be_changed_and_is_found_by_name(summary):
    with pytest.raises(dataclasses.FrozenInstanceError):
        summary.status = "failed"
    assert summary.table("Gr") is summary.tables[0]
    with pytest.raises(KeyError, match="Groups"):
        summary.table("Shards")
    assert summary.tables[0].records()[2] == {"group": f"{HOSTILE}2", "tokens": 2468, "share": 0.5, "none": None}
    found = summary.as_dict()
    assert list(found) == ["command", "out", "status", "totals", "tables", "warnings"]
    assert found["tables"][1] == {"title": "Others", "columns": ["a"], "rows": []}


COMMANDS = [name for name in cptsel.__all__ if name[0].islower() and not name.startswith("open_")]


def test_every_command_of_the_package_returns_one_of_its_own():
    assert len(COMMANDS) == 14
    for name in COMMANDS:
        kind = inspect.signature(getattr(cptsel, name)).return_annotation
        if name == "inspect":  # whose figures are those of the directory
            assert kind is Summary
        else:
            assert kind is getattr(cptsel, f"{name.title()}Result")
            assert kind.command == name


KINDS = [*(kind for _, kind in inspect.getmembers(results, dataclasses.is_dataclass) if kind is not Summary)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_figure_is_described(kind):
    described = re.findall(r"^ {4}(\w+(?:, \w+)*): ", inspect.cleandoc(kind.__doc__), re.M)
    figures = [field.name for field in dataclasses.fields(kind) if field.name not in OF_ALL]
    assert sorted(", ".join(described).split(", ")) == sorted(figures or [""])


def test_figures_are_printed_by_their_names_and_in_the_order_of_their_fields():
    chosen = cptsel.SelectResult(
        out="o",
        status="done",
        residuals=Residuals(residual=0.5, residual_on_the_validation_sketch=None, residual_of_random_picks=0.75),
        peak_memory=7,
        method="craig",
        shards=0,
        samples=4,
        tokens=9,
    )
    assert list(chosen.totals.items()) == [
        ("method", "craig"),
        ("shards", 0),
        ("samples", 4),
        ("tokens", 9),
        ("residual", 0.5),
        ("residual on the validation sketch", None),  # measured, and there is nothing to measure by
        ("residual of random picks, on average", 0.75),
        ("peak memory, bytes", 7),
    ]
    assert chosen.selected_samples is None
    assert chosen.as_dict()["totals"] == chosen.totals
    assert "  peak memory, bytes: 7" in repr(chosen).splitlines()
    assert dataclasses.replace(chosen, tokens=8).totals["tokens"] == 8


def test_figures_of_a_dry_run_are_called_estimates():
    told = {"shards": 1, "samples": 2, "tokens": 3, "bytes_lost": 0}
    assert cptsel.EmbedResult(out="o", status="done", **told).totals == {"shards": 1, "samples": 2, "tokens": 3}
    dry = {"shards": 1, "samples (estimate)": 2, "tokens (estimate)": 3}
    assert cptsel.EmbedResult(out="o", status="dry-run", **told).totals == dry
