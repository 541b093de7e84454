"""What a pass returns: attributes, and how it shows itself; and what a dry run tells."""

import dataclasses
import inspect

import pytest

import cptsel
from cptsel.pipeline.select import select
from cptsel.pipeline.selection.config import SelectConfig
from cptsel.pipeline.summary import Summary, Table

HOSTILE = "<img src=x>\x1b[2J\u202e"


def test_a_dry_run_of_every_family(run, tmp_path):
    for method in ("uniform", "craig", "gradmatch", "full"):
        options = {"budget": "100%"} if method == "full" else {"budget": "20%"}
        config = SelectConfig(runs=(str(run),), out=str(tmp_path / "x"), method=method, dry_run=True, **options)
        assert select(config).status == "dry-run"
    assert not (tmp_path / "x").exists()


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


def test_every_command_of_the_package_returns_one():
    calls = [getattr(cptsel, name) for name in cptsel.__all__ if name[0].islower() and not name.startswith("open_")]
    assert len(calls) == 13
    assert {inspect.signature(call).return_annotation for call in calls} <= {Summary, "Summary"}
