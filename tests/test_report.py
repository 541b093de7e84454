"""A report says what manifests and runs say, escapes all that is not its own, and asks the network for nothing."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import types
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifest_builder import build_replay
from page_reader import Page, columns_of
from run_builder import ROWS, build_run
from selection_builder import choose, header_of, ids, losses, population, read_samples

import cptsel
from cptsel.cli.main import main
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.report import report
from cptsel.pipeline.reporting import population as populations
from cptsel.pipeline.reporting import texts as reading
from cptsel.pipeline.reporting.config import ReportConfig
from cptsel.pipeline.reporting.contents import HOVER_BYTES
from cptsel.pipeline.reporting.facts import facts_of, read_picks
from cptsel.pipeline.reporting.html import percent
from cptsel.pipeline.reporting.map import Points, map_item
from cptsel.pipeline.reporting.population import read_population
from cptsel.pipeline.reporting.sections import asked
from cptsel.pipeline.reporting.texts import shorten

HOSTILE = "</script><img src=x onerror=alert(1)>"

ELEMENTS = """html head meta title style body a header h1 bdi p nav ul li main section h2 h3 h4 div dl dt dd b i span
    table caption thead tbody tr th td details summary figure figcaption svg polygon polyline line text blockquote code
    fieldset legend label input noscript footer script"""


def make(*replays, out, **options):
    """Write a report; returns the page and the summary."""
    replay, other = (*map(str, replays), None)[:2]
    options["run"] = tuple(str(path) for path in options.get("run", ()))
    summary = report(ReportConfig(replay=replay, other=other, out=str(out), **options))
    return Page(out.read_bytes()), summary


@pytest.fixture(scope="module")
def selections(run, tmp_path_factory):
    """One selection by craig, and one by a draw with repeats."""
    folder = tmp_path_factory.mktemp("selections")
    choose(run, folder / "a", method="craig")
    choose(run, folder / "b", method="uniform", group_alpha=0.3, realisation="repeat", replay_tokens="3K", seed=3)
    return folder


def test_a_page_of_one_selection_says_what_the_manifest_says(selections, tmp_path):
    page, summary = make(selections / "a", out=tmp_path / "a.html")
    header = header_of(selections / "a")
    assert header["manifest_id"] in page.text
    assert f"{header['totals']['selected_samples']:,} samples with" in page.text
    for group in header["groups"]:
        assert group["group"] in page.text
        assert percent(group["replay_tokens"] / header["totals"]["replay_tokens"]) in page.text
    report_ = header["selection"]["report"]
    assert f"{report_['mean_distance']:.4g} chosen" in page.text
    assert f"{report_['random_distance']:.4g} random" in page.text
    assert f"{header['phases'][0]['random_validation_residual']:.4g} random" in page.text
    assert page.scripts == {}, "a page without a map needs no script"
    assert summary.totals["points of the map"] == 0
    assert summary.totals["bytes"] == (tmp_path / "a.html").stat().st_size < 200_000


def test_the_page_can_be_walked_by_keyboard_and_asks_for_nothing(run, selections, tmp_path):
    page, _ = make(selections / "a", selections / "b", run=[run], out=tmp_path / "ab.html")
    names = [name for name, _ in page.elements]
    levels = [int(name[1]) for name in names if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    links = [attributes["href"] for name, attributes in page.elements if name == "a"]
    assert links[0] == "#content"
    assert all(link.startswith("#") and link[1:] in page.ids() for link in links)
    assert len(page.ids()) == len(set(page.ids()))
    assert page.count("details") == page.count("summary") > 0
    for _, attributes in page.elements:
        assert not {"src", "srcset", "action", "data", "poster"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
    (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    assert len(re.findall("'sha256-[^']+'", policy)) == len(page.scripts[""]) == 2
    html = dict(page.elements[:1])["html"]
    assert html == {"lang": "en"}


def test_the_map_has_all_picks_and_a_sample_of_the_rest(run, selections, tmp_path):
    page, summary = make(selections / "a", run=[run], out=tmp_path / "a.html", points=100)
    points = columns_of(page.data("map-data"))
    picks = ids(selections / "a")
    assert summary.totals["points of the map"] == 100 == len(points["x"])
    assert (points["mark"] == 1).sum() == len(picks)
    assert np.isfinite(points["x"]).all()
    rows = {row["sample_id"]: row for row in read_samples(selections / "a").to_pylist()}
    played = sorted(row["n_tokens"] for row in rows.values())
    assert sorted(points["tokens"][points["mark"] == 1].tolist()) == played
    assert sorted(points["plays"].tolist())[-len(picks) :] == sorted(row["repeat"] for row in rows.values())
    loss = losses(run)
    expected = sorted(loss[name] for name in picks)
    np.testing.assert_allclose(sorted(points["loss"][points["mark"] == 1]), expected, rtol=1e-5)
    everything, _ = make(selections / "a", run=[run], out=tmp_path / "all.html")
    assert len(columns_of(everything.data("map-data"))["x"]) == sum(ROWS)
    few, _ = make(selections / "a", run=[run], out=tmp_path / "few.html", points=10)
    assert (columns_of(few.data("map-data"))["mark"] == 1).sum() == 5
    assert f"10 samples: 5 of the {len(picks)} that were chosen" in few.text
    again, _ = make(selections / "a", run=[run], out=tmp_path / "again.html", points=100, seed=1)
    assert columns_of(again.data("map-data"))["loss"].tolist() != points["loss"].tolist()


def test_the_random_sample_is_the_same_however_little_is_held(run, selections, monkeypatch):
    manifest = load_manifest(str(selections / "a"))
    picks = read_picks(manifest, manifest.header["phases"][0])
    runs = open_runs([str(run)])
    whole = read_population(runs, "language", [picks], 10, seed=0)
    assert whole.samples == whole.rows.num_rows == sum(ROWS)
    monkeypatch.setattr(populations, "SAMPLE", 12)
    few = read_population(runs, "language", [picks], 10, seed=0)
    assert few.samples == whole.samples
    assert few.mass == whole.mass
    assert few.column("sampled").sum() == 12
    names = [table.rows["sample_id"].to_pylist() for table in (whole, few)]
    assert [name for name, kept in zip(names[1], few.column("sampled"), strict=True) if kept] == names[0][:12]
    assert set(names[1]) == {*names[0][:12], *ids(selections / "a")}


def test_chosen_rows_are_not_gone_through_for_every_shard(tmp_path, monkeypatch):
    """However many there are: all rows of 40 shards are chosen, and two are wanted."""
    run = build_run(tmp_path / "run", rows=(5,) * 40)
    rows = pa.concat_tables([pq.read_table(path) for path in sorted(run.glob("embeddings/*.parquet"))])
    gone_through = []
    least = populations._least
    monkeypatch.setattr(populations, "_least", lambda rows, count: gone_through.append(len(rows)) or least(rows, count))
    monkeypatch.setattr(populations, "SAMPLE", 2)
    found = read_population(open_runs([str(run)]), "language", [rows.select(["shard_id", "sample_id"])], 2, seed=0)
    assert found.rows.num_rows == 200
    assert sum(gone_through) <= 5 * 200


def test_groups_of_the_run_take_the_place_of_one_of_all(run, tmp_path):
    choose(run, tmp_path / "a", method="uniform", group_by=None)
    page, _ = make(tmp_path / "a", run=[run], out=tmp_path / "a.html")
    everything = population(run)
    picks = ids(tmp_path / "a")
    chosen = np.array([name in picks for name in everything["id"]])
    assert "Groups are by language." in page.text
    for name in set(everything["group"].tolist()):
        mine = everything["group"] == name
        assert f"{percent(everything['mass'][mine].sum() / everything['mass'].sum())} of the corpus" in page.text
        tokens = everything["n_tokens"]
        assert f"{percent(tokens[mine & chosen].sum() / tokens[chosen].sum())} of the replay" in page.text


def test_two_selections_stand_beside_each_other(run, selections, tmp_path):
    page, summary = make(selections / "a", selections / "b", run=[run], out=tmp_path / "ab.html")
    a, b = ids(selections / "a"), ids(selections / "b")
    points = columns_of(page.data("map-data"))
    marks = [int((points["mark"] == mark).sum()) for mark in range(4)]
    assert marks == [sum(ROWS) - len(a | b), len(a - b), len(b - a), len(a & b)]
    assert page.data("map-facts")["marks"][1] == "chosen by a alone"
    assert page.ids().count("differences") == 1
    assert "Jaccard" in page.text
    for words in ("craig", "uniform", "group_alpha", header_of(selections / "b")["manifest_id"]):
        assert words in page.text
    (warning,) = [text for text in summary.warnings if "another target" in text]
    assert warning[1:] in page.text
    plain, _ = make(selections / "a", selections / "b", out=tmp_path / "plain.html")
    assert "differences" in plain.ids()
    assert plain.scripts == {}


def test_groups_that_are_not_the_same_are_not_held_against_each_other(run, selections, tmp_path):
    choose(run, tmp_path / "whole", method="craig", group_by=None)
    page, _ = make(tmp_path / "whole", selections / "b", out=tmp_path / "apart.html")
    assert "whole has no groups: all its samples are one." in page.text
    assert "b are by language. With --run, both are shown by the same groups." in page.text
    assert "Shares of the replay" not in page.text
    page, _ = make(tmp_path / "whole", selections / "b", run=[run], out=tmp_path / "together.html")
    assert "Groups are by language." in page.text
    assert "Shares of the replay" in page.text


def test_a_random_choice_is_not_praised_and_a_useless_sum_is_explained(run, selections, tmp_path):
    page, _ = make(selections / "a", selections / "b", out=tmp_path / "ab.html")
    assert page.text.count("This choice is itself random, so the difference is chance.") == 1
    header = header_of(selections / "a")
    assert ("More than 100% means" in page.text) == (header["phases"][0]["validation_residual"] > 1)


def test_the_second_may_be_of_another_checkpoint(run, later, selections, tmp_path):
    choose(later, tmp_path / "b", method="craig")
    page, summary = make(selections / "a", tmp_path / "b", run=[run], out=tmp_path / "ab.html")
    assert any("was selected from other embedding runs" in text for text in summary.warnings)
    marks = columns_of(page.data("map-data"))["mark"]
    assert ((marks == 2) | (marks == 3)).sum() == len(ids(tmp_path / "b"))


def test_an_ordered_manifest_shows_its_order(selections, run, tmp_path):
    order(OrderConfig(replay=str(selections / "a"), out=str(tmp_path / "o"), epochs=2, world_size=2))
    page, _ = make(tmp_path / "o", out=tmp_path / "o.html")
    assert "2 epochs for 2 ranks" in page.text
    assert "The first 3 of 3 visits of epoch 0" in page.text
    assert header_of(selections / "a")["manifest_id"] in page.text, "the parent"
    plain, _ = make(selections / "a", out=tmp_path / "a.html")
    assert "There is no schedule" in plain.text


def test_ranks_without_a_visit_are_shown(selections, tmp_path):
    order(OrderConfig(replay=str(selections / "a"), out=str(tmp_path / "o"), world_size=18))
    page, _ = make(tmp_path / "o", out=tmp_path / "o.html")
    assert all(f"rank {rank}0 tokens" in page.text for rank in range(3, 16))
    assert "Each of 2 more ranks has 0 to 0 tokens." in page.text


def test_groups_without_a_visible_name_are_told_apart(tmp_path):
    run = build_run(tmp_path / "run", languages=("", " ", "en", "uk"))
    choose(run, tmp_path / "a", method="uniform")
    page, _ = make(tmp_path / "a", run=[run], out=tmp_path / "a.html")
    blank = [name for name in re.findall("<bdi>([^<]*)</bdi>", (tmp_path / "a.html").read_text()) if not name.strip()]
    assert blank == []
    assert '""' in page.text
    assert '" "' in page.text


def test_a_column_of_groups_is_named_as_it_is(selections):
    manifest = load_manifest(str(selections / "a"))
    manifest.header["selection"]["options"]["group_by"] = "Meta.Lang"
    phase = manifest.header["phases"][0]
    told = asked(facts_of("a", manifest, phase, "", read_picks(manifest, phase)))
    assert "Each group by Meta.Lang gets its own share" in told


@pytest.mark.parametrize("realisation", ["repeat", "loss", "sampling", "none"])
def test_every_realisation_and_phase(tmp_path, realisation):
    built = build_replay(tmp_path, phases=2, realisation=realisation)
    for phase in (0, 1):
        page, summary = make(built.replay, out=tmp_path / f"{phase}.html", phase=phase)
        chosen = [sample for sample in built.samples if sample["phase"] == phase]
        assert f"{len(chosen)} samples with" in page.text
        assert summary.warnings == []
        shown = [sample for sample in built.samples if shorten(sample["text"], 400) in page.text]
        assert len(shown) >= 4
    with pytest.raises(UsageError, match=r"--phase 2: .* has the phases 0, 1"):
        make(built.replay, out=tmp_path / "2.html", phase=2)


def test_texts_come_from_the_corpus_where_it_is_at_hand(tmp_path, monkeypatch):
    built = build_replay(tmp_path)
    page, _ = make(built.replay, out=tmp_path / "a.html")
    assert "Chosen: " in page.text
    moved = tmp_path / "moved"
    shutil.move(built.corpus, moved)
    gone, summary = make(built.replay, out=tmp_path / "b.html")
    assert "The texts are not available." in gone.text
    assert any("give the corpus's directory with --root" in text for text in summary.warnings)
    again, summary = make(built.replay, out=tmp_path / "c.html", root=str(moved))
    assert summary.warnings == []
    assert again.text == page.text
    for path in moved.iterdir():
        if path.suffix == ".jsonl":
            path.write_bytes(path.read_bytes().replace(b"gradient", b"GRADIENT"))
    changed, summary = make(built.replay, out=tmp_path / "d.html", root=str(moved))
    assert any("the corpus has changed" in text for text in summary.warnings)
    assert "GRADIENT" not in changed.text
    monkeypatch.setattr(reading, "ROW_BYTES", 0)
    _, summary = make(built.replay, out=tmp_path / "e.html", root=str(moved))
    assert any("read front to back" in text for text in summary.warnings)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, tiny_lm):
    """A corpus of hostile texts and groups, embedded and chosen from; and its page."""
    folder = tmp_path_factory.mktemp("hostile")
    names = [HOSTILE, '" onmouseover="alert(2)', "{{x}} ${y} @text{safe} <!--<script>"]
    lines = [
        {"text": f"{HOSTILE} <b>{n}</b> & ' \" \u202e\u2028 @{{text}}{{safe}} " * 3, "kind": names[n % 3]}
        for n in range(24)
    ]
    (folder / "corpus").mkdir()
    (folder / "corpus" / f"{HOSTILE.replace('/', '')}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    argv = ["embed", f"{folder}/corpus/*.jsonl", "--model", str(tiny_lm), "--group-by", "kind", "--max-tokens", "32"]
    assert main([*argv, "--out", f"{folder}/run"]) == 0
    for name, method in (("a", "craig"), ("<b>b", "uniform")):
        argv = ["select", f"{folder}/run", "--method", method, "--budget", "20%", "--group-by", "kind"]
        assert main([*argv, "--out", f"{folder}/{name}"]) == 0
    assert main(["order", f"{folder}/a", "--out", f"{folder}/o"]) == 0
    page, _ = make(folder / "o", folder / "<b>b", run=[folder / "run"], out=folder / "page.html")
    return page


def test_nothing_of_a_corpus_becomes_markup(hostile):
    assert {name for name, _ in hostile.elements} <= set(ELEMENTS.split())
    assert set(hostile.scripts) == {"", "map-data", "map-facts"}
    assert len(hostile.scripts[""]) == 2
    for name in ("map-data", "map-facts"):
        (text,) = hostile.scripts[name]
        assert not set(text) & set("<>&\u2028\u2029\u202e")
    for _, attributes in hostile.elements:
        assert not any(name.startswith("on") for name in attributes)
    assert HOSTILE in hostile.text
    assert hostile.text.count("\u202e") == 0


def test_hostile_texts_reach_the_map_as_they_are(hostile):
    points = columns_of(hostile.data("map-data"))
    assert HOSTILE in points["group"]
    assert any(text.startswith(HOSTILE) for text in points["text"])
    assert "tooltips" not in hostile.scripts["map-data"][0] or '"tooltips":null' in hostile.scripts["map-data"][0]
    assert "innerHTML" not in hostile.scripts[""][1]


def test_equal_input_gives_equal_bytes(run, selections, tmp_path):
    for name in ("1", "2"):
        make(selections / "a", selections / "b", run=[run], out=tmp_path / name)
    first = (tmp_path / "1").read_bytes()
    assert first == (tmp_path / "2").read_bytes(), "ids of Bokeh do not count on"
    code = "import sys; from cptsel.cli.main import main; sys.exit(main(sys.argv[1:]))"
    argv = ["report", selections / "a", selections / "b", "--run", run, "--out", tmp_path / "3"]
    subprocess.run([sys.executable, "-c", code, *argv], check=True, capture_output=True)
    assert hashlib.sha256(first).hexdigest() == hashlib.sha256((tmp_path / "3").read_bytes()).hexdigest()


def test_ten_thousand_points_take_three_megabytes_with_all_of_bokeh(run, selections, tmp_path):
    make(selections / "a", run=[run], out=tmp_path / "a.html", points=10)
    rng = np.random.default_rng(0)
    n, letters = 10_000, np.array(list("abcdefghijklmnopqrstuvwxyz äöü"))
    points = Points(
        xy=rng.normal(size=(n, 2)),
        group=["a group's name"] * n,
        code=rng.integers(0, 9, n),
        mark=rng.integers(0, 2, n),
        text=[shorten("".join(rng.choice(letters, 300)), HOVER_BYTES) for _ in range(n)],
        figures={name: rng.integers(0, 300, n) for name in ("tokens", "plays")} | {"loss": rng.normal(size=n)},
    )
    data = len(json.dumps(map_item(points), ensure_ascii=False).encode())
    assert data + (tmp_path / "a.html").stat().st_size < 3_000_000


def test_without_bokeh_there_is_no_map(run, selections, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bokeh", None)
    with pytest.raises(UsageError, match=r"the map of --run needs Bokeh: pip install 'cptsel\[report\]'"):
        make(selections / "a", run=[run], out=tmp_path / "a.html")
    make(selections / "a", out=tmp_path / "a.html")


def test_opentsne_draws_the_map_where_it_is_installed(run, selections, tmp_path, monkeypatch):
    class Fake:
        def __init__(self, **settings):
            self.start = settings["initialization"]

        def fit(self, x):
            assert len(x) == len(self.start) == sum(ROWS)
            return self.start * 5

    monkeypatch.setitem(sys.modules, "openTSNE", types.SimpleNamespace(TSNE=Fake))
    page, _ = make(selections / "a", run=[run], out=tmp_path / "a.html")
    assert "t-SNE" in page.text


def test_runs_that_are_not_those_of_the_manifest_are_refused(run, later, selections, tmp_path):
    with pytest.raises(UsageError, match=r"was not selected from it .*; name the run that cptsel select was given"):
        make(selections / "a", run=[later], out=tmp_path / "a.html")
    parts = [build_run(tmp_path / name, rows=(40, 30), prefix=f"{name}/") for name in ("x", "y")]
    choose(tuple(parts), tmp_path / "both", method="uniform")
    with pytest.raises(UsageError, match="was selected from 2 runs, of which 1 is named; name all runs"):
        make(tmp_path / "both", run=parts[:1], out=tmp_path / "a.html")
    page, _ = make(tmp_path / "both", run=parts, out=tmp_path / "a.html")
    make(tmp_path / "both", run=parts[::-1], out=tmp_path / "b.html")
    assert (tmp_path / "b.html").read_bytes() == (tmp_path / "a.html").read_bytes()
    assert len(columns_of(page.data("map-data"))["x"]) == 140
    with pytest.raises(UsageError, match="is not a selection from the corpus of"):
        make(selections / "a", tmp_path / "both", out=tmp_path / "b.html")


def test_several_checkpoints(run, later, tmp_path):
    choose((run, later), tmp_path / "a", method="craig", combine="concat")
    page, _ = make(tmp_path / "a", run=[run, later], out=tmp_path / "a.html")
    assert len(columns_of(page.data("map-data"))["x"]) == sum(ROWS)
    make(tmp_path / "a", run=[later], out=tmp_path / "b.html")


def test_a_pick_that_the_run_has_not_is_an_error(run, selections, tmp_path, monkeypatch):
    from cptsel.pipeline import report as module

    read = module.read_picks

    def renamed(*args):
        picks = read(*args)
        column = picks.schema.get_field_index("sample_id")
        return picks.set_column(column, "sample_id", [["0" * 32, *picks["sample_id"].to_pylist()[1:]]])

    monkeypatch.setattr(module, "read_picks", renamed)
    with pytest.raises(VerificationError, match="1 of the chosen samples are not among the rows"):
        make(selections / "a", run=[run], out=tmp_path / "a.html")


def test_an_output_in_the_way_stays(selections, tmp_path):
    make(selections / "a", out=tmp_path / "a.html")
    with pytest.raises(UsageError, match="exists; pass --overwrite"):
        make(selections / "a", out=tmp_path / "a.html")
    make(selections / "b", out=tmp_path / "a.html", overwrite=True)
    (tmp_path / "mine.html").write_text("<p>mine")
    with pytest.raises(UsageError, match="was not written by cptsel report"):
        make(selections / "a", out=tmp_path / "mine.html", overwrite=True)
    assert (tmp_path / "mine.html").read_text() == "<p>mine"
    with pytest.raises(UsageError, match="is a directory; name a file"):
        make(selections / "a", out=tmp_path)
    with pytest.raises(UsageError, match="lies inside the input"):
        make(selections / "a", out=selections / "a" / "report.html")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["{a}"], "missing: --out"),
        (["{out}", "--out", "{out}.html"], "is not a replay manifest"),
        (["{a}", "--out", "{out}.html", "--points", "9"], "--points 9: must be between 10 and 200000"),
        (["{a}", "--out", "{out}.html", "--root", "{out}/nowhere"], "there is no such directory"),
        (["{a}", "--out", "{out}.html", "--run", "{out}"], "is not"),
        (["{a}", "{b}", "{b}", "--out", "{out}.html"], "unexpected extra argument"),
    ],
)
def test_what_can_be_mended_is_one_sentence(selections, tmp_path, capsys, argv, words):
    places = {"a": selections / "a", "b": selections / "b", "out": tmp_path}
    assert main(["report", *(part.format(**places) for part in argv)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1


def test_the_command(run, selections, tmp_path, capsys):
    assert main(["report", str(selections / "a"), "--run", str(run), "--out", str(tmp_path / "a.html"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["totals"]["chosen samples"] == len(ids(selections / "a"))
    assert cptsel.report is report
    assert cptsel.ReportConfig is ReportConfig


def test_shortened_texts():
    assert shorten("a\n\tb", 10) == "a b"
    assert shorten("äöü" * 9, 7) == "äöü…"
    assert shorten("x" * 7, 7) == "x" * 7
    assert shorten("\x1b[2J\ud800\u202e", 99) == "\ufffd[2J\ufffd\ufffd"
    assert shorten(" " * 10_000 + "far", 9) == "…"
