"""``cptsel embed`` of a pool: sizes, growing, disjoint pools, rates by group, and what is chosen from it."""

import gzip
import json
import math
from collections import Counter

import numpy as np
import pytest
from killing import tree
from selection_builder import choose, ids, read_samples

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.embeddings import read_rows
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.corpus.documents import ReadOptions, read_block, read_stream
from cptsel.pipeline.corpus.shards import inventory, list_inputs
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding import pool as pool_module
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.cutting import cut_block
from cptsel.pipeline.embedding.pool_size import parse_duration, parse_pool
from cptsel.pipeline.errors import BadInputError, UsageError
from cptsel.pipeline.model.tokenizer import load_tokenizer, prefix_of

LIMIT = 16
SMALL = {"max_tokens": 128, "sketch_dim": 64, "validation_dim": 32, "limit": LIMIT}


@pytest.fixture(scope="module")
def corpus(sample_data):
    return str(sample_data / "old" / "docs_*" / "*-00000.jsonl.gz")


@pytest.fixture
def run(corpus, tiny_lm, tmp_path):
    def call(name, **options):
        settings = SMALL | {"group_by": ("path[0]",), "tokens_per_batch": 512} | options
        embed(EmbedConfig(inputs=(corpus,), model=str(tiny_lm), out=str(tmp_path / name), **settings))
        return tmp_path / name

    return call


def documents(directory):
    runs = open_runs([str(directory)])
    rows = [read_rows(shard, runs.schema, ["doc_key", "pool_prob"]) for shard in runs.shards]
    return {key: p for table in rows for key, p in zip(*table.to_pydict().values(), strict=True)}


def test_a_grown_pool_has_the_bytes_of_the_larger_one(run, monkeypatch):
    for number, alpha in enumerate((1.0, 0.3)):
        small = run(f"small{number}", pool="20%", pool_alpha=alpha)
        before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
        large = run(f"large{number}", pool="50%", pool_alpha=alpha)
        grown = run(f"grown{number}", pool="50%", pool_alpha=alpha, grow=str(small))
        assert tree(grown) == tree(large)
        assert documents(small).keys() < documents(large).keys()
        assert before == {path: path.stat().st_mtime_ns for path in small.rglob("*")}


def test_growing_embeds_little_twice(run, monkeypatch):
    from cptsel.pipeline.embedding import block

    small = run("small", pool="40%")
    embedded = []
    real = block.BlockEmbedder._gradients

    def count(self, samples, chunked):
        embedded.append(sum(map(len, chunked)))
        return real(self, samples, chunked)

    monkeypatch.setattr(block.BlockEmbedder, "_gradients", count)
    grown = run("grown", pool="60%", grow=str(small))
    there, all_samples = (open_runs([str(path)]) for path in (small, grown))
    new = sum(s.samples for s in all_samples.shards) - sum(s.samples for s in there.shards)
    again = sum(embedded) - new
    assert 0 <= again < 0.5 * sum(s.samples for s in there.shards)


def test_pools_side_by_side_are_one_sample_of_the_corpus(run, tmp_path):
    first = run("first", pool="25%")
    second = run("second", pool="30%", after=str(first))
    assert not documents(first).keys() & documents(second).keys()
    both = open_runs([str(first), str(second)])
    probs = np.concatenate([read_rows(s, both.schema, ["pool_prob"])["pool_prob"].to_numpy() for s in both.shards])
    assert set(probs) == {0.25 + 0.3}
    choose((first, second), tmp_path / "replay", group_by="path[0]", method="uniform")
    history = (str(tmp_path / "replay"),)
    choose((first, second), tmp_path / "again", group_by="path[0]", method="uniform", history=history)
    assert documents(first).keys() & set(read_samples(tmp_path / "replay")["doc_key"].to_pylist())
    assert not ids(tmp_path / "again") & ids(tmp_path / "replay")  # of the first pool either
    large = run("large", pool="55%")
    assert {**documents(first), **documents(second)}.keys() == documents(large).keys()
    with pytest.raises(UsageError, match="may hold the same documents"):
        open_runs([str(first), str(large)])
    with pytest.raises(UsageError, match=r"80\.0000% of the documents are asked for, and 75\.0000% come after it"):
        run("third", pool="80%", after=str(first))


def test_a_rerun_that_asks_for_other_documents_is_refused(run):
    first = run("first", pool="25%")
    run("second", pool="30%", after=str(first))
    with pytest.raises(UsageError, match=r"--pool 30% after 25\.0000%, now 30%"):
        run("second", pool="30%")
    with pytest.raises(UsageError, match=r"--pool 25%, now 25% after 25\.0000%"):
        run("first", pool="25%", after=str(run("copy", pool="25%")))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pool": "5 tokens"}, "the corpus has about 0 tokens"),
        ({"time_budget": "1h"}, "no sample was embedded"),
        ({"gradient": "head+body"}, "the documents looked at gave no sample"),
        ({"lookahead": ("EMPTY",)}, "the new corpus has 0 tokens"),
    ],
)
def test_an_empty_corpus_is_named(tiny_lm, tmp_path, options, words):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    if "lookahead" in options:
        options = {"lookahead": (str(empty),)}
    config = {"inputs": (str(empty),), "model": str(tiny_lm), "out": str(tmp_path / "run")} | SMALL | options
    with pytest.raises((UsageError, BadInputError), match=words):
        embed(EmbedConfig(**config))
    if "pool" not in options:
        assert embed(EmbedConfig(**config | {"dry_run": True})).status == "dry-run"


def test_a_pool_by_group_evens_them_out(run):
    rates = json.loads((run("even", pool="30%", pool_alpha=0.0) / "run.json").read_text())["options"]["pool"]
    assert rates["by"] == "path[0]"
    sizes = {}
    for group, _, rate in rates["groups"]:
        sizes[group] = rate
    assert len(sizes) > 2
    assert max(sizes.values()) > 1.5 * min(sizes.values())


def test_group_sizes_in_a_column_are_counted_while_files_are_listed(tiny_lm, tmp_path, monkeypatch):
    lines = [{"text": "some words " * 5, "kind": "rare" if i % 10 == 0 else "often"} for i in range(100)]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    for name, stored in {"a.jsonl": data, "b.jsonl.gz": gzip.compress(data, mtime=0)}.items():
        (tmp_path / name).write_bytes(stored)
    config = EmbedConfig(
        inputs=(f"{tmp_path}/*.jsonl*",),
        model=str(tiny_lm),
        out=str(tmp_path / "run"),
        group_by=("kind",),
        pool="20%",
        pool_alpha=0.0,
        **SMALL | {"limit": None},
    )
    opened, openings = io.open_read, Counter()

    def count(path):
        openings[path] += 1
        return opened(path)

    monkeypatch.setattr(io, "open_read", count)
    embed(config)
    assert {name: openings[str(tmp_path / name)] for name in ("a.jsonl", "b.jsonl.gz")} == {
        "a.jsonl": 2,
        "b.jsonl.gz": 2,
    }
    pool = json.loads((tmp_path / "run" / "run.json").read_text())["options"]["pool"]
    rates = {group: rate for group, _, rate in pool["groups"]}
    assert rates["rare"] == pytest.approx(9 * rates["often"])
    assert rates["rare"] == 1.0 or rates["rare"] * 10 + rates["often"] * 90 == pytest.approx(20)


def test_a_choice_from_a_pool_stands_for_the_corpus(run, corpus, tiny_lm, tmp_path):
    """Σ weight · n of every group is within 5 of its standard errors of the tokens of the whole corpus."""
    pool = run("pool", pool="10%", limit=150)
    choose(pool, tmp_path / "replay", group_by="path[0]", method="craig", budget="20%", scope="global")
    samples = read_samples(tmp_path / "replay")
    mass = {}
    for group, weight, n in zip(*(samples[c].to_pylist() for c in ("group", "weight", "n_tokens")), strict=True):
        mass[group] = mass.get(group, 0.0) + weight * n
    truth = {}
    tokenizer = load_tokenizer(str(tiny_lm))
    prefix = prefix_of(tokenizer)
    for number, (uri, path, size) in enumerate(list_inputs((corpus,), None)[1]):
        shard = inventory(number, uri, path, size, 8 << 20)
        read = ReadOptions(limit=150)
        found = read_stream(shard, read) if shard.blocks is None else [read_block(shard, b, read) for b in shard.blocks]
        for block in found:
            cut = cut_block(path, block, tokenizer, prefix, 128)
            group = path.split("/")[0]
            truth[group] = truth.get(group, 0) + sum(sample.n_tokens for sample in cut.samples)
    header = load_manifest(str(tmp_path / "replay")).header
    errors = {group["group"]: group["population_mass_error"] for group in header["groups"]}
    assert mass.keys() == truth.keys() == errors.keys()
    for group in truth:
        assert 0 < errors[group] < truth[group]
        assert abs(mass[group] - truth[group]) < 5 * errors[group]


@pytest.mark.parametrize("size", ["6000 tokens", "30 documents"])
def test_a_size_is_about_met(run, size):
    totals = json.loads((run("sized", pool=size, limit=None, max_tokens=64) / "run.json").read_text())["totals"]
    wanted, unit = size.split()
    found = totals["tokens"] if unit == "tokens" else totals["rows_kept"]
    assert 0.4 * int(wanted) < found < 2 * int(wanted)  # a random sample, of few documents


def test_the_rate_of_a_time_budget_is_kept(run, monkeypatch):
    out = run("timed", time_budget="1s", limit=None)
    rate = json.loads((out / "run.json").read_text())["options"]["pool"]["rate"]
    assert 0 < rate < 1
    (out / "_SUCCESS").unlink()
    for path in list((out / "embeddings").iterdir())[:2]:
        path.unlink()

    def looked(*args, **options):
        raise AssertionError("the rate was found anew")

    monkeypatch.setattr(pool_module, "look", looked)
    run("timed", time_budget="1s", limit=None)
    assert json.loads((out / "run.json").read_text())["options"]["pool"]["rate"] == rate
    assert io.exists(str(out / "_SUCCESS"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pool": "2"}, "has no unit|is not the size of a pool"),
        ({"pool": "0%"}, "must be above 0"),
        ({"pool": "101%"}, "at most 100%"),
        ({"pool": "9T tokens"}, "the corpus has about"),
        ({"time_budget": "soon"}, "is no time: write 90m, 6h or 2d"),
        ({"pool": "2%", "time_budget": "1h"}, "give one of them"),
        ({"pool_alpha": 0.5}, "is read with --pool or --time-budget"),
        ({"pool": "2%", "pool_alpha": 0.5, "group_by": ()}, "say what they are by --group-by"),
        ({"grow": "x"}, "is read with --pool or --time-budget"),
        ({"pool": "2%", "grow": "/nowhere"}, "is not an embedding run"),
    ],
)
def test_pools_that_can_not_be_are_named(run, tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        run("run", **options)
    assert not (tmp_path / "run" / "_SUCCESS").exists()


def test_a_pool_of_nothing_asks_for_more(run):
    with pytest.raises(BadInputError, match=r"the pool drew none of .* rows; ask for a larger one"):
        run("empty", pool="0.00001%")


def test_a_run_in_other_terms_does_not_grow(run):
    small = str(run("small", pool="20%"))
    for options, words in (
        ({"pool": "10%"}, r"has 20\.0000% of the documents, and 10\.0000% are asked for"),
        ({"pool": "30%", "max_tokens": 64}, "--max-tokens 128, now 64"),
        ({"pool": "30%", "seed": 1}, "--seed 0, which draws another pool"),
        ({"pool": "30%", "pool_alpha": 0.5}, r"rates by no group, the new one by path\[0\]"),
        ({"pool": "30%", "after": small}, "give one of them"),
    ):
        with pytest.raises(UsageError, match=words):
            run("new", grow=small, **options)
    with pytest.raises(UsageError, match=r"--pool 20%, now 30%"):
        run("small", pool="30%")


def test_sizes_are_read():
    assert (parse_pool("2%").kind, parse_pool("2%").value) == ("share", 0.02)
    assert parse_pool("50B tokens").value == 5e10
    assert parse_pool("200_000 documents").kind == "documents"
    assert math.isclose(parse_duration("1.5 h").value, 5400)
