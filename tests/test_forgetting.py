"""The benchmark of forgetting: what its trainer plays, its losses, tries and tables, against plain references."""

import importlib
import json
import math
import sys
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from selection_builder import choose
from transformers import AutoModelForCausalLM, AutoTokenizer

from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding.config import EmbedConfig


@pytest.fixture(autouse=True)
def benchmarks(repository, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(repository / "benchmarks")])  # last: a select.py lies there


def load(name):
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def run(tiny_lm, sample_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    corpus = (str(sample_data / "old" / "docs_*" / "*0.jsonl.gz"),)
    embed(EmbedConfig(inputs=corpus, model=str(tiny_lm), max_tokens=32, limit=4, group_by=("source",), out=str(out)))
    return out


def test_the_trainer_plays_what_the_manifest_says(run, tiny_lm, tmp_path):
    continual = load("continual")
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    for realisation, played in (("none", 1), ("repeat", 3)):
        out = tmp_path / realisation
        tokens = {"replay_tokens": "3K"} if realisation == "repeat" else {}
        choose((run,), out, group_by=None, method="uniform", realisation=realisation, **tokens)
        header = json.loads((out / "manifest.json").read_text())
        replay = continual.read_manifest(str(out), continual.Texts(tokenizer))
        assert len(replay.windows) == header["totals"]["plays"]
        assert max(map(len, replay.windows)) <= 32
        texts = {tokenizer.decode(ids) for ids in replay.windows}
        assert len(texts) > 10
        assert (len(replay.windows) > len(texts)) == (played > 1)
        uris = pq.read_table(run / "shards.parquet")["uri"].to_pylist()
        everything = "\n".join(text for uri in uris for text in continual.read_texts(uri))
        assert all(text in everything for text in texts)


def test_bits_per_byte_against_one_window_at_a_time(tiny_lm, sample_data):
    continual = load("continual")
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    model = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32).eval()
    texts = continual.Texts(tokenizer)
    held = continual.read_held_out(str(sample_data / "heldout/old/docs_*.jsonl.gz"), texts, 0, 16, 2_000)
    found = continual.bits_per_byte(model, held)
    assert list(found) == held.names == ["docs_de", "docs_en", "docs_fr", "docs_ru"]
    for number, name in enumerate(held.names):
        nats = 0.0
        for row, domain in zip(held.rows, held.domain, strict=True):
            if domain == number:
                ids = torch.from_numpy(row)[None]
                nats += model(input_ids=ids, labels=ids).loss.item() * (len(row) - 1)
        assert found[name] == pytest.approx(nats / math.log(2) / held.bytes[number], rel=1e-4)


def test_replay_is_dealt_out_evenly_or_more_of_it_late():
    continual = load("continual")
    even, late = (continual.played_before(94, continual.Recipe(steps=100, late=power)) for power in (1.0, 2.0))
    assert even == [94 * step // 100 for step in range(101)]
    assert late == [94 * step * step // 10_000 for step in range(101)]


def test_the_rate_warms_up_and_falls_where_it_is_to():
    continual = load("continual")
    constant = [continual.rate(continual.Recipe(steps=20), step) for step in range(20)]
    cosine = [continual.rate(continual.Recipe(steps=20, cosine=True), step) for step in range(20)]
    assert constant == [0.5] + [1.0] * 19
    assert cosine[:2] == constant[:2]
    assert all(before > after for before, after in pairwise(cosine[1:]))
    assert cosine[-1] == pytest.approx(0.1)


def test_training_is_the_same_again_and_learns(tiny_lm):
    continual = load("continual")
    rows = continual.pack([np.arange(1, 200) % 50 + 1] * 8, 0, 16)
    replay = continual.Replay([np.arange(5), np.arange(3, 12)], [1.0, 2.0])
    losses = []
    for _ in range(2):
        model = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32)
        losses.append(continual.train(model, rows, replay, 0, continual.Recipe(steps=12, rows=4, lr=1e-3), seed=3))
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]


def pool(seed=0, n=40):
    tries, rng = load("forgetting_tries"), np.random.default_rng(seed)
    n_tokens = rng.integers(20, 60, n)
    base = rng.random(n) * n_tokens
    rows = {"n_tokens": n_tokens, "base_loss_sum": base, "loss_sum": base + rng.normal(size=n)}
    rows |= {"source": rng.choice(["a", "b", "c"], n), "doc_key": rng.choice(list("defghijk"), n)}
    x = rng.normal(size=(n, 6)).astype(np.float32)
    windows = [rng.integers(0, 30, size) for size in n_tokens]
    return tries.Pool(rows, [lambda: x, lambda: x[::-1]], lambda: windows, lambda: [rng.integers(0, 30, 99)])


def test_every_try_stays_within_the_budget_and_uses_it():
    for name, (pick, _) in load("forgetting_tries").TRIES.items():
        if "clusters-100" in name or "clusters-400" in name:
            continue  # more clusters than samples
        there = pool()
        picks = pick(there, 200, np.random.default_rng(1))
        assert len(set(picks)) == len(picks) > 0, name
        used = there.n_tokens[list(picks)].sum()
        assert 120 < used <= 200, name


def test_coverage_of_tries_is_greedy_facility_location():
    tries, there = load("forgetting_tries"), pool()
    picks = tries.cover(tries.last, demand=1.0)(there, 200, np.random.default_rng(0))
    x = tries.unit(there.gradients[-1]())
    mass = there.n_tokens * np.maximum(there.rows["loss_sum"] - there.rows["base_loss_sum"], 0) / there.n_tokens

    def value(chosen):
        return sum(m * max(0.0, max(float(x[i] @ x[j]) for j in chosen)) for i, m in enumerate(mass))

    chosen: list[int] = []
    left = 200
    while left >= tries.LEAST:
        fits = [j for j in range(len(x)) if j not in chosen and there.n_tokens[j] <= left]
        if not fits:
            break
        chosen.append(max(fits, key=lambda j: value([*chosen, j])))
        left -= there.n_tokens[chosen[-1]]
    assert picks == chosen


def lines(folder, rises):
    path = folder / "results.jsonl"
    setting = {"new": "x", "model": "m", "pool": "9 tokens", "share": 0.05, "steps": 2, "rows": 3, "length": 4}
    with path.open("w") as file:
        for arm, rise in rises.items():
            for seed in range(3):
                before = {"a": 1.0, "b": 2.0}
                after = {"a": 1.0 + rise + 0.01 * seed, "b": 2.0 + 3 * rise}
                run = {"arm": arm, "seed": seed, "setting": setting, "before": before, "after": after}
                run |= {"new_before": 2.0, "new_after": 1.5, "corpus_bytes": {"a": 3, "b": 1}}
                file.write(json.dumps(run) + "\n")
    return str(path)


def test_tables_say_what_the_lines_say(tmp_path):
    report = load("forgetting_report")
    rises = {"random-half": 0.4, "random": 0.3, "random-2": 0.2, "random-4": 0.1, "none": 0.9, "better": 0.2}
    (found,) = report.read([lines(tmp_path, rises | {"between": 0.25})])
    assert found.share.tolist() == [0.75, 0.25]
    assert report.interval(found, "better", "domains")[0] == pytest.approx(2.0)
    assert report.interval(found, "between", "bytes") == pytest.approx([2**0.5] * 3)
    assert report.interval(found, "none", "bytes")[0] == 0.5
    table = report.table(found)
    assert [row.split("`")[1] for row in table.splitlines()[4:]] == [
        "random-4", "better", "random-2", "between", "random", "random-half", "none",
    ]  # fmt: skip
    mean = (0.25 + 0.01 + 3 * 0.25) / 2
    assert f"| `between` | 3 | {mean:.4f} |" in table


def test_the_choice_inside_a_split_is_held_against_draws_under_it(tmp_path):
    report = load("forgetting_report")
    rises = {"random": 0.3, "demand-root": 0.2, "random-root": 0.25}
    (found,) = report.read([lines(tmp_path, rises)])
    assert "| `demand-root` | `random-root` | 3 | -0.1000 ± 0.0000 | -0.0750 ± 0.0000 |" in report.split_table(found)
    (alone,) = report.read([lines(tmp_path, {"random": 0.3})])
    assert report.split_table(alone) == ""


def test_arms_without_a_line_of_random_replay_have_a_table_too(tmp_path):
    report = load("forgetting_report")
    (found,) = report.read([lines(tmp_path, {"random": 0.3, "demand": 0.2})])
    rows = report.short_table(found).splitlines()[4:]
    assert rows == [
        "| `demand` | 3 | 0.4050 | 0.3075 | 0.6000 | 0.5000 |",
        "| `random` | 3 | 0.6050 | 0.4575 | 0.9000 | 0.5000 |",
    ]


def test_what_is_foretold_of_a_budget_is_fitted_to_the_others(tmp_path, monkeypatch, capsys):
    plan = load("forgetting_plan")
    rises = {"none": 0.9, "random-half": 0.4, "random": 0.3, "random-2": 0.2, "random-4": 0.1}
    path = lines(tmp_path, rises)
    monkeypatch.setattr(sys, "argv", ["plan", path])
    plan.main()
    over_domains, over_bytes = map(json.loads, capsys.readouterr().out.splitlines())
    assert over_domains["budgets"]["0"] == {"runs": 3, "measured": pytest.approx(1.805)}
    assert over_bytes["budgets"]["2"]["foretold"] == pytest.approx(1.5 * 0.2 + 0.0075, abs=0.01)
    monkeypatch.setattr(sys, "argv", ["plan", path, "--arm", "random", "--csv", str(tmp_path / "trainings.csv")])
    plan.main()
    rows = (tmp_path / "trainings.csv").read_text().splitlines()
    assert rows[0] == "seed,replay_tokens,rise"
    assert len(rows) == 1 + 15
