"""``explain`` tells what is known of a sample, finds it by any of its names, and what lies near it in its run."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from manifest_builder import build_replay, change_samples, reseal
from run_builder import ROWS, build_run
from selection_builder import candidates, choose, read_samples

from cptsel.cli.main import main
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.explain import explain
from cptsel.pipeline.lookup import neighbours
from cptsel.pipeline.lookup.config import ExplainConfig
from cptsel.pipeline.lookup.texts import EXCERPT, GLANCE, excerpt, glance


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_replay(tmp_path_factory.mktemp("explain"), shards=6, phases=2)


@pytest.fixture(scope="module")
def replay(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("replay") / "replay"
    choose(run, out, method="craig", scope="shard", phases=2, phase_budget="50%")
    return out


def told(directory, sample=None, **options):
    summary = explain(ExplainConfig(replay=str(directory), sample=sample, **options))
    json.dumps(summary.as_dict(), allow_nan=False)
    assert all(len(row) == len(table.columns) for table in summary.tables for row in table.rows)
    return summary


def samples_of(summary):
    """(sample_id, phase) of what is explained, and what is told of it."""
    tables = [dict(table.rows) for table in summary.tables if table.title.startswith("Sample ")]
    return {(table["sample_id"], table["phase"]): table for table in tables}


def table_of(summary, title):
    (table,) = (table for table in summary.tables if table.title.startswith(title))
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_what_is_told_of_a_sample(built):
    sample = next(s for s in built.samples if s["shard_id"] == 1)
    summary = told(built.replay, sample["sample_id"])
    found = samples_of(summary)[sample["sample_id"], 0]
    (group,) = (g for g in built.header["groups"] if (g["group"], g["phase"]) == (sample["group"], 0))
    expected = {
        "sample_id": sample["sample_id"], "doc_key": sample["doc_key"], "doc_id": sample["doc_id"], "phase": 0,
        "group": sample["group"], "method": "uniform (draws at random)", "score": None, "probability": 0.5,
        "budget of its group": "1",
        "chosen from its group": f"{group['selected_samples']} of {group['population_samples']} samples",
        "tokens": sample["n_tokens"], "weight": sample["weight"],
        "stands for tokens": sample["weight"] * sample["n_tokens"], "repeat": sample["repeat"],
        "loss weight": sample["loss_weight"], "gradient norm": sample["grad_norm"], "shard": "part-01.jsonl.gz",
        "file": f"{built.corpus}/part-01.jsonl.gz", "row": sample["row_index"],
        "characters": f"{sample['char_start']}:{sample['char_end']}", "text": sample["text"],
    }  # fmt: skip
    assert found == expected
    assert summary.totals == {"manifest_id": built.header["manifest_id"], "found by": "sample_id", "samples": 1}
    assert (summary.command, summary.status, summary.warnings) == ("explain", "found", [])


def test_a_sample_of_several_phases_is_told_in_each(built):
    phases = {}
    for s in built.samples:
        phases.setdefault(s["sample_id"], {})[s["phase"]] = s
    name = next(name for name, mine in phases.items() if len(mine) == 2)
    found = samples_of(told(built.replay, name))
    assert list(found) == [(name, 0), (name, 1)]
    assert {phase: found[name, phase]["weight"] for phase in (0, 1)} == {
        p: s["weight"] for p, s in phases[name].items()
    }


@pytest.mark.parametrize("shard", range(6))
@pytest.mark.parametrize("column", ["doc_key", "doc_id"])
def test_all_chosen_samples_of_a_document_are_found(built, column, shard):
    document = next(s for s in reversed(built.samples) if s["shard_id"] == shard)[column]
    found = samples_of(told(built.replay, document))
    mine = {(s["sample_id"], s["phase"]): s["text"] for s in built.samples if s[column] == document}
    assert {key: table["text"] for key, table in found.items()} == mine
    places = [(row["sample_id"], row["phase"]) for row in table_of(told(built.replay, document), "Places")]
    assert len(places) == sum(s["repeat"] for s in built.samples if s[column] == document)


def test_a_doc_id_that_looks_like_a_hash_and_is_double_is_found(tmp_path):
    built = build_replay(tmp_path, shards=3)
    name = "0123456789abcdef" * 2
    for shard in (0, 2):
        change_samples(built.replay, shard, lambda rows: rows[1].update(doc_id=name))
    change_samples(built.replay, 1, lambda rows: rows[1].update(doc_id=None))
    reseal(built.replay)
    summary = told(built.replay, name)
    assert (summary.totals["found by"], summary.totals["samples"]) == ("doc_id", 2)
    summary = told(built.replay, name, most=1)
    assert (summary.totals["samples"], summary.totals["others"]) == (1, "1, raise --most")


def test_samples_are_found_by_a_phrase_of_their_text(built):
    phrase = next(s["text"] for s in built.samples if s["shard_id"] == 2)[3:12]
    mine = {(s["sample_id"], s["phase"]) for s in built.samples if phrase in s["text"]}
    summary = told(built.replay, text=phrase, most=1000)
    assert set(samples_of(summary)) == mine
    assert "others" not in summary.totals
    few = told(built.replay, text="a", most=3)
    assert len(samples_of(few)) == 3
    assert few.totals["others"] == "perhaps, raise --most"
    with pytest.raises(UsageError, match=r"--text 'no such words': no sample that .* chose has this text, letter by"):
        told(built.replay, text="no such words")
    assert main(["explain", str(built.replay), "--text", "no such words"]) == 2  # as for a sample that is not there


def test_a_long_text_is_shown_around_the_phrase():
    text = "x" * 1000 + " here " + "y" * 1000
    assert excerpt("short") == "short"
    assert excerpt(text) == "x" * EXCERPT + "[...]"
    shown = excerpt(text, "here")
    assert shown.startswith("[...]x")
    assert shown.endswith("y[...]")
    assert len(shown) == EXCERPT + 10
    assert abs(shown.index("here") - len(shown) // 2) < 5
    assert excerpt(text, "y" * 900).startswith("[...]")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("", "explain takes a SAMPLE or --text, and neither was given; name a sample_id, doc_key or doc_id"),
        ("x --text y", "explain takes a SAMPLE or --text, and both were given"),
        (
            "no-such",
            "no-such: no sample that REPLAY chose has this sample_id, doc_key or doc_id; name another, or look",
        ),
        ("0123456789abcdef0123456789abcdef", "look for a phrase by --text"),
        ("\udcff", "\\udcff: no sample that REPLAY chose"),
        ("x --most 0", "--most 0: must be between 1 and 10000"),
        ("x --neighbours 3", "--neighbours is read with --run; leave it out"),
        (
            "x --run REPLAY",
            "REPLAY is not an embedding run: it was written by cptsel select; name the output of cptsel",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(replay, capsys, argv, sentence):
    assert main(["explain", *f"REPLAY {argv}".replace("REPLAY", str(replay)).split()]) == 2
    out, err = capsys.readouterr()
    (error,) = [line for line in err.splitlines() if " INFO " not in line]  # of progress
    assert error.startswith("cptsel: error: ")
    assert sentence.replace("REPLAY", str(replay)) in error
    assert out == ""


def test_an_empty_phrase_and_a_lost_corpus_are_one_sentence(tmp_path):
    built = build_replay(tmp_path, shards=1)
    with pytest.raises(UsageError, match="--text: the phrase is empty; give at least a letter of the text"):
        told(built.replay, text="")
    shutil.move(built.corpus, tmp_path / "moved")
    with pytest.raises(UsageError, match=r"--text: .*part-00.jsonl is missing, and reading it .*; restore it, or pass"):
        told(built.replay, text="a")
    assert told(built.replay, text="a", root=str(tmp_path / "moved")).totals["samples"] > 0


def around(run, replay, sample, phase):
    """What lies around a chosen sample, found slowly: other samples of its cell by falling cosine, and those owned."""
    every = candidates(run)
    group, *_, shard = every[sample]
    cell = {name: row for name, row in every.items() if (row[0], row[-1]) == (group, shard)}
    unit = {name: row[4].astype(float) / np.linalg.norm(row[4].astype(float)) for name, row in cell.items()}
    picks = [row["sample_id"] for row in read_samples(replay).to_pylist() if row["phase"] == phase]
    picks = sorted(set(picks) & set(cell))
    near = {name: float(unit[name] @ unit[sample]) for name in cell if name != sample}
    owned = [n for n in cell if n not in picks and max(picks, key=lambda p: float(unit[n] @ unit[p])) == sample]
    tokens = sum(cell[name][2] for name in (*owned, sample))
    by_cosine = sorted(near, key=lambda name: -near[name])
    return near, by_cosine, [name for name in by_cosine if name in owned], tokens, set(picks)


def test_a_text_among_many_is_a_glance():
    assert glance(" def f():\n\n\treturn 1\n") == "def f(): return 1"
    assert glance("a\n" * 1000) == "a " * (GLANCE // 2) + "[...]"


@pytest.mark.parametrize("phase", [0, 1])
def test_neighbours_are_those_of_a_slow_search(run, replay, phase):
    rows = [row for row in read_samples(replay).to_pylist() if row["phase"] == phase]
    for row in rows[:: max(1, len(rows) // 6)]:
        name = row["sample_id"]
        near, by_cosine, owned, tokens, picks = around(run, replay, name, phase)
        summary = told(replay, name, run=(str(run),), neighbours=7)
        nearest = [r for r in table_of(summary, "Nearest") if r["phase"] == phase]
        assert "sample_id" not in nearest[0]
        assert [r["neighbour"] for r in nearest] == by_cosine[:7]
        assert [r["cosine"] for r in nearest] == pytest.approx([near[n] for n in by_cosine[:7]], abs=2e-3)
        assert [r["chosen"] for r in nearest] == [n in picks for n in by_cosine[:7]]
        assert [r["neighbour"] for r in table_of(summary, "Stands for") if r["phase"] == phase] == owned[:7]
        assert samples_of(summary)[name, phase]["nearest to it"] == (
            f"{len(owned) + 1:,} samples of its group in its shard, {tokens:,.0f} tokens"
        )


def test_what_coverage_found_is_what_is_nearest(run, replay):
    chosen = [row for row in read_samples(replay).to_pylist() if row["phase"] == 0]
    for row in chosen[::9]:
        mine = samples_of(told(replay, row["sample_id"], run=(str(run),)))[row["sample_id"], 0]
        assert mine["nearest to it"].endswith(f" {mine['stands for tokens']:,.0f} tokens")


def test_every_sample_of_a_cell_is_nearest_to_one_that_was_chosen(run, replay, monkeypatch):
    """Whatever is held in memory at a time, and of several samples at once."""
    chosen = [row for row in read_samples(replay).to_pylist() if row["phase"] == 0]
    cell = (chosen[0]["group"], chosen[0]["shard_id"])
    mine = [row for row in chosen if (row["group"], row["shard_id"]) == cell]
    whole = [row for row in candidates(run).values() if (row[0], row[-1]) == cell]

    def owned():
        said = [told(replay, row["sample_id"], run=(str(run),), neighbours=100) for row in mine]
        facts = [samples_of(summary)[row["sample_id"], 0] for row, summary in zip(mine, said, strict=True)]
        return [fact["nearest to it"] for fact in facts], [table_of(summary, "Stands for") for summary in said]

    counts, tables = owned()
    assert sum(int(text.split()[0]) for text in counts) == len(whole)
    monkeypatch.setattr(neighbours, "_CHOSEN", 1)
    assert owned() == (counts, tables)


def test_neighbours_of_runs_that_are_a_union_and_of_groups_without_a_name(tmp_path):
    runs = (build_run(tmp_path / "a", rows=(40, 0, 30), prefix="a/"), build_run(tmp_path / "b", prefix="b/"))
    choose(runs, tmp_path / "replay", method="uniform", budget="30%", group_by=None)
    last = read_samples(tmp_path / "replay").to_pylist()[-1]
    named = tuple(map(str, runs))
    summary = told(tmp_path / "replay", last["sample_id"], run=named)
    nearest = table_of(summary, "Nearest")
    assert len(nearest) == 5
    assert next(iter(nearest[0])) == "neighbour"  # of one sample in one phase, whose name is said above
    assert told(tmp_path / "replay", last["sample_id"], run=named[::-1]).tables == summary.tables
    with pytest.raises(UsageError, match="was selected from 2 runs, of which 1 is named; name all runs"):
        told(tmp_path / "replay", last["sample_id"], run=named[:1])


def test_neighbours_by_coarse_vectors_and_at_one_of_several_checkpoints(tmp_path, run, later):
    coarse = build_run(tmp_path / "coarse", storage="int8", group_by=("language", "source"))
    choose(coarse, tmp_path / "replay", group_by="source")
    name = read_samples(tmp_path / "replay")["sample_id"][0].as_py()
    assert len(table_of(told(tmp_path / "replay", name, run=(str(coarse),)), "Nearest")) == 5
    choose((run, later), tmp_path / "combined", method="gradmatch", combine="concat")
    name = read_samples(tmp_path / "combined")["sample_id"][0].as_py()
    for one in (run, later):
        assert len(table_of(told(tmp_path / "combined", name, run=(str(one),)), "Nearest")) == 5
    both = told(tmp_path / "combined", name, run=(str(later), str(run)))
    assert both.tables == told(tmp_path / "combined", name, run=(str(run),)).tables  # at the first


def test_another_run_is_refused(replay, later, tmp_path):
    name = read_samples(replay)["sample_id"][0].as_py()
    with pytest.raises(UsageError, match=r"was not selected from it .*; name the run that cptsel select was given"):
        told(replay, name, run=(str(later),))
    other = build_run(tmp_path / "other", rows=ROWS, seed=5)
    with pytest.raises(UsageError, match="was not selected from it"):
        told(replay, name, run=(str(other),))


def test_a_sample_that_the_run_has_not_is_named(replay, run, tmp_path):
    changed = shutil.copytree(replay, tmp_path / "replay")
    change_samples(changed, 0, lambda rows: [row.update(sample_id="f" * 32) for row in rows[:1]])
    reseal(changed)
    with pytest.raises(VerificationError, match=f"sample {'f' * 32} of shard 000.jsonl is none of the run's; run"):
        told(changed, "f" * 32, run=(str(run),))


def test_the_summary_is_printed(built, capsys):
    sample = built.samples[0]
    assert main(["explain", str(built.replay), sample["sample_id"]]) == 0
    out = capsys.readouterr().out
    assert "cptsel explain: found" in out
    assert f"Sample {sample['sample_id']}, phase 0" in out
    assert "Places in the order" in out
    assert main(["explain", str(built.replay), "--text", "replay", "--most", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["found by"] == "text"


def test_looking_up_loads_nothing_that_takes_longer_than_to_answer(built):
    replay, sample = str(built.replay), built.samples[0]["sample_id"]
    calls = [["explain", replay, sample], ["locate", replay, "--position", "0"]]
    calls += [["compare", replay, replay], ["inspect", replay]]
    code = (
        f"import sys; from cptsel.cli.main import main; codes = [main(call) for call in {calls!r}];"
        "print(codes, sorted({'apache_beam', 'faiss', 'torch', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[0, 0, 0, 0] []"
