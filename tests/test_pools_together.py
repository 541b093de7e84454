"""Two pools of one corpus, taken together: every command works on them, and their numbers are those of the corpus."""

import gzip
import json
import math
import shutil
from collections import Counter

import pytest
from selection_builder import choose, header_of, ids, read_samples

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.artifacts.visits import read_visits
from cptsel.pipeline.compare import compare
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.explain import explain
from cptsel.pipeline.export import export
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.exports.plan import plan_export
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.inspect import inspect
from cptsel.pipeline.locate import locate
from cptsel.pipeline.lookup.config import CompareConfig, ExplainConfig, LocateConfig
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.report import report
from cptsel.pipeline.reporting.config import ReportConfig
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify

FILES = ("lang=de/0.jsonl", "lang=en/0.jsonl", "lang=en/1.jsonl.gz")
METHODS = {
    "uniform": {"method": "uniform"},
    "by-shard": {"method": "craig", "scope": "shard"},
    "global": {"method": "craig", "scope": "global"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_lm):
    """A corpus with a file that breaks off; FIRST and NEXT are pools of it, GROWN holds both; REPLAYs of each kind."""
    folder = tmp_path_factory.mktemp("pools")
    for name in FILES:
        rows = [{"text": f"Document {i} of {name}: {'some more words ' * (i % 5 + 1)}", "id": i} for i in range(20)]
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        data = gzip.compress(data, mtime=0)[:-40] if name.endswith(".gz") else data
        io.write_bytes(str(folder / "corpus" / name), data)
    options = {"inputs": (f"{folder}/corpus/*/*",), "model": str(tiny_lm), "group_by": ("lang",), "max_tokens": 16}
    options |= {"sketch_dim": 32, "validation_dim": 16, "max_bad_fraction": 1.0}
    embed(EmbedConfig(**options, pool="30%", out=str(folder / "first")))
    embed(EmbedConfig(**options, pool="30%", after=str(folder / "first"), out=str(folder / "next")))
    embed(EmbedConfig(**options, pool="60%", grow=str(folder / "first"), out=str(folder / "grown")))
    for name, method in METHODS.items():
        choose((folder / "first", folder / "next"), folder / name, **method, group_by="lang")
    choose(folder / "first", folder / "of-first", method="uniform", group_by="lang")
    choose(folder / "grown", folder / "of-grown", method="uniform", group_by="lang", seed=1)
    return folder


@pytest.fixture(scope="module")
def ordered(folder):
    order(OrderConfig(replay=str(folder / "uniform"), epochs=2, world_size=2, out=str(folder / "ordered")))
    return folder / "ordered"


def both(folder):
    """The two pools, in the other order than ``select`` had them."""
    return str(folder / "next"), str(folder / "first")


@pytest.mark.parametrize("name", METHODS)
def test_a_selection_counts_what_the_larger_pool_does(folder, name):
    """Two pools and the one that holds both are the same samples of the same corpus: all figures of it agree."""
    totals, corpus = header_of(folder / name)["totals"], header_of(folder / name)["corpus"]
    grown, its = header_of(folder / "of-grown")["totals"], header_of(folder / "of-grown")["corpus"]
    assert totals["shards"] == grown["shards"] == len(FILES)
    assert load_manifest(str(folder / name)).shards().num_rows == 2 * len(FILES)
    for key in ("population_samples", "population_tokens"):
        assert totals[key] == grown[key] == sum(of_runs(folder, key))
    assert totals["population_mass"] == pytest.approx(grown["population_mass"])
    assert corpus["damage"] == its["damage"]
    assert corpus["damage"]["shards"] == 1
    rows = read_samples(folder / name).to_pylist()
    assert {row["doc_key"] for row in rows} > {row["doc_key"] for row in rows if row["shard_id"] < len(FILES)}
    mass = math.fsum(row["weight"] * row["n_tokens"] for row in rows)
    assert mass == pytest.approx(totals["population_mass"])


def of_runs(folder, key):
    column = {"population_samples": "windows_embedded", "population_tokens": "n_tokens"}[key]
    return [
        sum(io.read_parquet(str(folder / run / "units.parquet"), [column])[column].to_pylist())
        for run in ("first", "next")
    ]


def test_a_file_of_several_pools_is_looked_at_once(folder, tmp_path, monkeypatch):
    """Each is hashed once and a missing one is told once, and the samples of both pools are held against it."""
    shutil.copytree(folder / "corpus", tmp_path / "corpus")
    config = VerifyConfig(directory=str(folder / "uniform"), sources=True, root=str(tmp_path / "corpus"))
    hashed, hash_file = [], outputs.hash_file
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "hash_file", lambda path: hashed.append(path) or hash_file(path))
        verify(config)
    assert sorted(path for path in hashed if "/corpus/" in path) == sorted(f"{tmp_path}/corpus/{f}" for f in FILES)
    path = tmp_path / "corpus" / FILES[0]
    path.write_text(path.read_text().replace("Document", "document"))
    with pytest.raises(VerificationError) as raised:
        verify(config)
    found = [(file, row) for file, row, _ in raised.value.summary.table("Problems").rows]
    assert found.count((str(path), None)) == 1
    shards = {row["shard_id"] for row in read_samples(folder / "uniform").to_pylist()} & {0, len(FILES)}
    assert shards == {0, len(FILES)}
    assert {file for file, row in found if row is not None} == {f"samples/{shard:06d}.parquet" for shard in shards}
    path.unlink()
    with pytest.raises(VerificationError, match=r"1 problem: .*0\.jsonl: is missing"):
        verify(config)


def test_summaries_and_dry_runs_count_files(folder, tmp_path):
    runs = (folder / "first", folder / "next")
    for dry_run in (True, False):
        summary = choose(runs, tmp_path / "replay", method="uniform", group_by="lang", dry_run=dry_run)
        assert summary.totals["shards"] == len(FILES)
        assert summary.totals["samples"] == header_of(folder / "of-grown")["totals"]["population_samples"]


def test_a_round_of_one_pool_counts_in_both(folder, tmp_path):
    runs = (folder / "first", folder / "next")
    history = tuple(str(folder / name) for name in ("of-first", "uniform", "of-grown"))
    for method in METHODS.values():
        choose(runs, tmp_path / method["method"], **method, group_by="lang", history=history, overwrite=True)
        played = ids(tmp_path / method["method"])
        assert not played & set().union(*(ids(path) for path in history))


@pytest.mark.parametrize("name", [*METHODS, "ordered"])
def test_verify_takes_the_runs_in_any_order(folder, ordered, name):
    for runs in (both(folder), both(folder)[::-1]):
        summary = verify(VerifyConfig(directory=str(folder / name), run=runs, sources=name == "uniform"))
        assert summary.status == "verified"
        extents = {what: extent for what, extent, _ in summary.tables[0].rows}
        count = header_of(folder / name)["totals"]["selected_samples"]
        assert extents["embedding runs"] == f"{count} samples, 3 shards"
        assert extents["samples, weights and totals"] == f"{count} samples of 3 shards"
        assert name != "uniform" or extents["corpus"].startswith("3 files, ")


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (("first",), "was selected from 2 runs, of which 1 is named; name all runs that cptsel select was given"),
        (("grown",), "was not selected from it"),
        (("first", "next", "grown"), "grown: .* was not selected from it"),
    ],
)
def test_runs_that_are_not_its_own_are_refused_alike(folder, tmp_path, runs, words):
    """Of the wrong runs every command says the same, as a usage error."""
    name, runs = str(folder / "uniform"), tuple(str(folder / run) for run in runs)
    sample = read_samples(name)["sample_id"][0].as_py()
    said = set()
    for command in (
        lambda: verify(VerifyConfig(directory=name, run=runs)),
        lambda: explain(ExplainConfig(replay=name, sample=sample, run=runs)),
        lambda: compare(CompareConfig(replays=(name, name), run=runs)),
        lambda: report(ReportConfig(replay=name, run=runs, out=str(tmp_path / "report.html"))),
    ):
        with pytest.raises(UsageError, match=words) as error:
            command()
        said.add(str(error.value))
    assert len(said) == 1


def test_order_and_export_play_every_pick_once(folder, ordered, tmp_path):
    samples = read_samples(ordered)
    out = str(tmp_path / "export")
    dry = export(ExportConfig(replay=str(ordered), to="parquet", out=out, dry_run=True))
    assert [row["shard"] for row in dry.table("Shards that are read").records()] == list(FILES)
    summary = export(ExportConfig(replay=str(ordered), to="parquet", out=out))
    assert summary.totals["lines"] == 2 * samples.num_rows
    assert summary.totals["tokens"] == 2 * sum(samples["n_tokens"].to_pylist())
    assert verify(VerifyConfig(directory=out, replay=str(ordered))).status == "verified"
    played = [
        name
        for path in (tmp_path / "export" / "data").rglob("*.parquet")
        for name in io.read_parquet(str(path), ["sample_id"])["sample_id"].to_pylist()
    ]
    assert Counter(played) == Counter(samples["sample_id"].to_pylist() * 2)


def test_shards_of_one_file_draw_by_themselves(ordered):
    """Priorities q / u of a priority sample have independent u, also where two pools have a shard of a file."""
    manifest = load_manifest(str(ordered))
    paths = dict(zip(*(manifest.shards()[name].to_pylist() for name in ("shard_id", "path")), strict=True))
    for name in manifest.schedule_files().values():
        rows = manifest.table(name).to_pylist()
        drawn = [round(row["q"] / row["priority"], 9) for row in rows]
        assert len({paths[row["shard_id"]] for row in rows}) < len(rows) == len(set(drawn))


def test_rows_of_the_corpus_are_counted_once(folder):
    """An index of hf-indices counts rows through the files by path, whichever pool a sample is from."""
    manifest = load_manifest(str(folder / "uniform"))
    rows = {shard["path"]: shard["rows"] for shard in manifest.shards().to_pylist()}
    before = {path: sum(rows[other] for other in FILES if other < path) for path in FILES}
    tasks = plan_export(manifest, read_visits(manifest), None, EXPORTS["hf-indices"])
    assert len(tasks) > len(FILES)
    assert all(task.first == before[task.shard["path"]] for task in tasks)


def test_locate_and_explain_find_the_samples_of_both(folder, ordered):
    for position in (0, 3):
        found = locate(LocateConfig(replay=str(ordered), rank=1, position=position))
        assert found.text is not None
        told = explain(ExplainConfig(replay=str(ordered), sample=found.sample_id, run=both(folder)))
        assert told.samples == 1
        places = [(row["epoch"], row["rank"], row["position"]) for row in told.tables[1].records()]
        assert (0, 1, position) in places
        assert len(places) == 2
    document = read_samples(ordered)["doc_key"][-1].as_py()
    assert explain(ExplainConfig(replay=str(ordered), sample=document, run=both(folder))).samples >= 1
    found = explain(ExplainConfig(replay=str(ordered), text="Document", most=99))
    texts = [row for row in read_samples(ordered).to_pylist() if row["window"] == 0]
    assert found.samples == len({row["sample_id"] for row in texts})


def test_inspect_counts_as_select_does(folder, ordered):
    totals = header_of(ordered)["totals"]
    found = inspect(str(ordered))
    assert found.totals["shards"] == len(FILES)
    assert found.totals["population samples"] == totals["population_samples"]
    assert found.totals["runs"] == 2


@pytest.mark.parametrize(
    ("pair", "runs"),
    [
        (("of-grown", "uniform"), ("grown",)),
        (("uniform", "of-grown"), ("grown",)),
        (("of-first", "uniform"), ("next", "first")),
        (("by-shard", "of-first"), ("first", "next")),
        (("by-shard", "global"), ("next", "first")),
    ],
)
def test_selections_from_other_pools_lie_beside_each_other(folder, tmp_path, pair, runs):
    a, b = ({row["sample_id"]: row for row in read_samples(folder / name).to_pylist()} for name in pair)
    totals = [header_of(folder / name)["totals"] for name in pair]
    common, named = a.keys() & b.keys(), tuple(str(folder / run) for run in runs)
    replays = tuple(str(folder / name) for name in pair)
    summary = compare(CompareConfig(replays=replays, run=named))
    (overlap,) = summary.table("Overlap").records()
    assert overlap["samples in both"] == len(common)
    assert overlap["tokens in both"] == sum(a[name]["n_tokens"] for name in common)
    if "of-first" in pair or "global" in pair:
        expected = len(a) * len(b) / max(one["population_samples"] for one in totals)
        assert overlap["by chance"] == pytest.approx(expected)
    shares = [
        {name: row["weight"] * row["n_tokens"] / one["population_mass"] for name, row in rows.items()}
        for rows, one in zip((a, b), totals, strict=True)
    ]
    apart = sum(abs(shares[0].get(name, 0) - shares[1].get(name, 0)) for name in a.keys() | b.keys()) / 2
    assert overlap["distance of masses"] == pytest.approx(apart)
    distances = summary.table("Distances").records()
    assert [(row["samples"], row["of these alone"]) for row in distances] == [
        (len(a), len(a.keys() - b.keys())),
        (len(b), len(b.keys() - a.keys())),
    ]
    assert summary.samples == max(one["population_samples"] for one in totals)
    assert any("different samples of the corpus" in text for text in summary.warnings) == ("of-first" in pair)
    out = str(tmp_path / "report.html")
    told = report(ReportConfig(replay=replays[0], other=replays[1], out=out))
    assert told.chosen_samples == len(a) + len(b)
    assert told.texts > 0


def test_a_selection_of_one_pool_is_not_held_against_vectors_that_it_has_not(folder):
    replays = (str(folder / "of-first"), str(folder / "uniform"))
    with pytest.raises(UsageError, match=r"lacks \d+ samples? that the selection has from lang=.*; name the runs"):
        compare(CompareConfig(replays=replays, run=(str(folder / "first"),)))


def test_the_map_marks_the_picks_of_both(folder, tmp_path):
    pytest.importorskip("bokeh")
    pages = []
    for replays, runs in (
        (("uniform", "of-grown"), ("grown",)),
        (("of-first", "uniform"), ("first", "next")),
        (("of-first", "uniform"), ("next", "first")),
    ):
        paths = [str(folder / name) for name in replays]
        out = tmp_path / f"{len(pages)}.html"
        named = tuple(str(folder / run) for run in runs)
        summary = report(ReportConfig(replay=paths[0], other=paths[1], run=named, out=str(out), map=f"{out}.parquet"))
        rows = io.read_parquet(f"{out}.parquet").to_pylist()
        assert summary.points == len(rows) == sum(shard.samples for shard in open_runs(list(named)).shards)
        assert summary.texts == len({row["sample_id"] for row in rows})
        pages.append(out.read_bytes())
        assert any("other embedding runs" in text for text in summary.warnings) == ("of-grown" in replays)
    assert pages[1] == pages[2]


def test_another_corpus_is_told_from_another_pool(folder, run, tmp_path):
    choose(run, tmp_path / "other", method="uniform")
    header = header_of(folder / "uniform")
    assert header["corpus"]["max_tokens"] != header_of(tmp_path / "other")["corpus"]["max_tokens"]
    with pytest.raises(UsageError, match=r"is not a selection from the corpus of .*: its tokenizer is"):
        compare(CompareConfig(replays=(str(folder / "uniform"), str(tmp_path / "other"))))
