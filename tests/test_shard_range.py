"""``embed --shard-range``: commands that share a run write the bytes of one, whoever is killed, whoever comes last."""

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from apache_beam.pvalue import TaggedOutput
from hypothesis import given
from hypothesis import strategies as st
from killing import killed, tree

from cptsel.cli.main import main
from cptsel.pipeline.artifacts import outputs, ranges
from cptsel.pipeline.artifacts.ranges import Ledger, sharing
from cptsel.pipeline.artifacts.run import open_runs, run_fingerprint
from cptsel.pipeline.artifacts.shard_range import ShardRange, listed, parse_range, range_bounds
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding.block import BlockEmbedder, RowOptions
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.inventory import units_of
from cptsel.pipeline.embedding.pool import read_options
from cptsel.pipeline.embedding.results import gather
from cptsel.pipeline.embedding.transforms import _ReadBlocksDoFn, _WriteBlockDoFn
from cptsel.pipeline.errors import BadInputError, PartialError, UsageError
from cptsel.pipeline.inspect import inspect
from cptsel.pipeline.model.naming import weights_fingerprint
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify

SHARDS = 5


@dataclass(frozen=True)
class Place:
    """A corpus of five shards, one compressed and one with a damaged row, and its run by one command."""

    corpus: Path
    model: Path
    reference: Path

    def config(self, out: Path, part: str | None = None, **options: object) -> EmbedConfig:
        settings = {
            "max_tokens": 32,
            "sketch_dim": 16,
            "validation_dim": 8,
            "block_bytes": 400,
            "max_bad_fraction": 0.1,
        }
        settings |= {"inputs": (f"{self.corpus}/*",), "model": str(self.model), "out": str(out), "shard_range": part}
        return EmbedConfig(**(settings | options))

    def run(self, out: Path, part: str | None = None, **options: object) -> str:
        return embed(self.config(out, part, **options)).status


@pytest.fixture(scope="module")
def place(tmp_path_factory, sample_data, tiny_lm):
    folder = tmp_path_factory.mktemp("ranges")
    corpus = folder / "corpus"
    corpus.mkdir()
    with gzip.open(sample_data / "old" / "docs_en" / "shard-00000.jsonl.gz", "rt") as handle:
        rows = [json.loads(next(handle)) for _ in range(4 * SHARDS)]
    lines = [json.dumps({"id": row["id"], "text": row["text"][:120], "lang": row["lang"]}) for row in rows]
    for number in range(SHARDS):
        some = lines[4 * number : 4 * number + 4] + ["{damaged"] * (number == 1)
        data = ("\n".join(some) + "\n").encode()
        if number == 2:
            (corpus / "2.jsonl.gz").write_bytes(gzip.compress(data))
        else:
            (corpus / f"{number}.jsonl").write_bytes(data)
    made = Place(corpus, tiny_lm, folder / "reference")
    assert made.run(made.reference) == "done"
    return made


@pytest.fixture
def inline(monkeypatch):
    """Without Beam and its second of start: what a worker does, done here. Those who wait look often."""

    def call_on_tasks(options, folder, function, tasks):
        return map(function, tasks)

    monkeypatch.setattr("cptsel.pipeline.embedding.inventory.call_on_tasks", call_on_tasks)
    monkeypatch.setattr("cptsel.pipeline.embed._run", _run_here)
    monkeypatch.setattr("os.fsync", lambda handle: None)  # no loss of power here
    monkeypatch.setattr("cptsel.pipeline.embedding.plan.weights_fingerprint", cache(weights_fingerprint))
    for module in ("artifacts.ranges", "embedding.inventory"):
        monkeypatch.setattr(f"cptsel.pipeline.{module}.POLL_S", 0.01)


@cache
def _embedder(spec, rows):
    return BlockEmbedder(spec, rows)


def _run_here(call, plan, shards, work):
    config, model = call.config, plan.model
    embedder = _embedder(model.spec, RowOptions(model.max_tokens, model.tokens_per_batch, "float16", ()))
    run = run_fingerprint(plan.header)
    reads = _ReadBlocksDoFn(config.out, run, SimpleNamespace(value=read_options(config, model, plan.pool)))
    writes = _WriteBlockDoFn(config.out, run)
    found = []
    for unit in units_of(shards):
        for item in reads.process(unit):
            found += [item.value] if isinstance(item, TaggedOutput) else writes.process(embedder.embed(*item))
    return gather(found)


@given(st.lists(st.integers(0, 10**13), max_size=40), st.integers(1, 50))
def test_ranges_hold_every_shard_once_and_about_as_many_bytes(sizes, count):
    bounds = range_bounds(sizes, count)
    assert (bounds[0], bounds[-1], len(bounds)) == (0, len(sizes), count + 1)
    assert bounds == sorted(bounds)
    weights = [max(size, 1) for size in sizes]
    for first, end in pairwise(bounds):
        assert sum(weights[first:end]) <= sum(weights) / count + max(weights, default=0)


def test_ranges_of_equal_shards_are_as_equal_as_they_can_be():
    for shards in range(30):
        for count in range(1, 40):
            bounds = range_bounds([7] * shards, count)
            held = [end - first for first, end in pairwise(bounds)]
            assert max(held) - min(held) <= 1


@given(st.sets(st.integers(0, 60)))
def test_lists_of_ranges_are_those_that_slurm_takes(numbers):
    text = listed(sorted(numbers))
    parts = [list(map(int, part.split("-"))) for part in text.split(",")] if text else []
    assert {number for part in parts for number in range(part[0], part[-1] + 1)} == numbers
    assert listed([2, 6, 7, 8]) == "2,6-8"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("3", "'3' is not of the form I/N"),
        ("-1/4", "is not of the form I/N"),
        ("1/4/5", "is not of the form I/N"),
        ("4/4", "4/4: ranges count from 0 to 3 (with Slurm, --array=0-3)"),
        ("0/0", "there must be a range at least"),
    ],
)
def test_what_is_no_range_is_refused_in_a_sentence(place, tmp_path, capsys, text, sentence):
    code = main(["embed", str(place.corpus), "--model", "m", f"--out={tmp_path}/run", f"--shard-range={text}"])
    error = capsys.readouterr().err
    assert code == 2
    assert sentence in error
    assert error.count("\n") == 1
    assert parse_range("3/4") == ShardRange(3, 4)


@pytest.mark.parametrize("pool", [None, "40%"])
def test_the_counts_of_a_range_add_up(place, tmp_path, inline, pool):
    totals = embed(place.config(tmp_path / "run", "1/2", pool=pool)).totals
    fates = ("rows kept", "rows rejected", "rows excluded", "rows not drawn")
    assert totals["rows read"] == sum(totals.get(fate, 0) for fate in fates) > 0
    assert ("rows not drawn" in totals) == (pool is not None)


def test_two_commands_on_beam(place, tmp_path):
    out = tmp_path / "run"
    summary = embed(place.config(out, "1/2"))
    assert summary.status == "range 1/2 done"
    assert summary.totals["shards"] == 3
    assert summary.totals["ranges not done"] == "0 (of 0-1)"
    assert not (out / "_SUCCESS").exists()
    whole = embed(place.config(out, "0/2"))
    assert whole.status == "done"
    assert whole.totals["rows read"] == 21
    assert tree(out) == tree(place.reference)
    assert verify(VerifyConfig(directory=str(out))).status == "verified"


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_bytes_of_one_command_in_any_order(place, tmp_path, inline, count):
    out = tmp_path / "run"
    parts = [f"{index}/{count}" for index in range(count)]
    random.Random(count).shuffle(parts)
    found = [place.run(out, part) for part in parts]
    assert found == [*(f"range {part} done" for part in parts[:-1]), "done"]
    assert tree(out) == tree(place.reference)
    assert outputs.list_tree(str(out)) == outputs.list_tree(str(place.reference))


def _fork(run) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run()
            code = 0
        finally:
            os._exit(code)
    return child


@pytest.mark.parametrize("count", [2, 7])
def test_all_at_once(place, tmp_path, inline, count):
    place.run(tmp_path / "warm")  # the model is loaded before processes part
    for attempt in range(2):
        out = tmp_path / f"run-{attempt}"
        children = [_fork(lambda: place.run(out, f"{index}/{count}")) for index in range(count)]  # noqa: B023
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * count
        assert tree(out) == tree(place.reference)
        assert {name for name in os.listdir(out) if name.startswith(".")} == set()


@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.long)])
def test_a_killed_command_is_run_again_and_one_that_was_done_can_finish(place, tmp_path, inline, stride):
    """The last of two commands dies at each of its file operations; where its range is done, the other one finishes."""
    begun, out = tmp_path / "begun", tmp_path / "run"
    place.run(begun, "1/2")
    step = finished_by_other = 0
    while True:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(begun, out)
        if not killed(lambda: place.run(out, "0/2"), step, out):
            break
        ledger = Ledger(str(out))
        if (out / "_SUCCESS").exists() or not ledger.missing(2):
            finished_by_other += 1
            assert place.run(out, "1/2") in ("done", "already done")
        else:
            assert place.run(out, "1/2") == "range 1/2 done"
            assert place.run(out, "0/2") == "done"
        assert tree(out) == tree(place.reference), f"step {step}"
        step += stride
    assert tree(out) == tree(place.reference)
    assert finished_by_other * stride > 10
    assert step > 50


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 9))])
def test_commands_that_are_killed_again_and_again_get_there(place, tmp_path, inline, seed):
    out, draw = tmp_path / "run", random.Random(seed)
    kills = 0
    for _ in range(200):
        if (out / "_SUCCESS").exists():
            break
        kills += killed(lambda: place.run(out, f"{draw.randrange(3)}/3"), draw.randrange(60), out)
    for index in range(3):
        place.run(out, f"{index}/3")
    assert kills > 2
    assert tree(out) == tree(place.reference)


def test_blocks_of_a_killed_command_are_not_embedded_again(place, tmp_path, inline):
    out = tmp_path / "run"
    assert killed(lambda: place.run(out, "0/2"), 60, out)
    kept = {path: path.stat().st_ino for path in (out / "embeddings").glob("0*.parquet")}
    assert kept
    assert [place.run(out, "0/2"), place.run(out, "1/2")] == ["range 0/2 done", "done"]
    assert {path: path.stat().st_ino for path in kept} == kept


def test_two_at_the_same_range_and_other_commands(place, tmp_path, inline):
    out = tmp_path / "run"
    with sharing(str(out), ShardRange(0, 2), ""):
        with pytest.raises(UsageError, match=r"range 0/2 is being embedded by cptsel embed --shard-range 0/2 \("):
            place.run(out, "0/2")
        with pytest.raises(UsageError, match=r"is being written by cptsel embed --shard-range 0/2 \(process"):
            place.run(out)
        assert place.run(out, "1/2") == "range 1/2 done"
    with ranges.locked(str(out), "embed"), pytest.raises(UsageError, match="is being written by cptsel embed"):
        place.run(out, "0/2")
    assert place.run(out, "0/2") == "done"


@pytest.mark.parametrize(
    ("part", "options", "sentence"),
    [
        ("0/3", {}, "was begun in 2 ranges, and --shard-range asks for 3; ask for 2, or finish it by one command"),
        ("0/2", {"seed": 1}, "was begun with --seed 0, now 1; give all commands the same options"),
        ("0/2", {"block_bytes": 401}, "was begun with --block-bytes 400, now 401; give what it was begun with"),
        ("0/2", {"storage": "int8"}, "was begun with --storage float16, now int8; give all commands"),
        ("0/2", {"pool": "50%"}, "was begun with --pool not set, now 50%"),
        ("0/2", {"limit": 3}, "was begun with --limit not set, now 3"),
        ("0/2", {"overwrite": True}, "--overwrite with --shard-range: each command would delete what the others write"),
    ],
)
def test_a_command_with_other_options_is_refused(place, tmp_path, inline, part, options, sentence):
    out = tmp_path / "run"
    place.run(out, "1/2")
    before = tree(out)
    with pytest.raises(UsageError) as error:
        place.run(out, part, **options)
    assert sentence in str(error.value)
    assert tree(out) == before
    assert place.run(out, "0/2") == "done"
    if part == "0/2" and "overwrite" not in options:
        with pytest.raises(UsageError, match="was begun with"):
            place.run(out, part, **options)


def test_a_corpus_that_changes_meanwhile(place, tmp_path, inline):
    corpus, out = shutil.copytree(place.corpus, tmp_path / "corpus"), tmp_path / "run"
    inputs = (f"{corpus}/*",)
    place.run(out, "1/2", inputs=inputs)
    data = (corpus / "0.jsonl").read_bytes()
    (corpus / "0.jsonl").write_bytes(data + data)
    changed = r"run: the corpus \(0\.jsonl\) changed since this run was begun; give what it was begun with, or"
    with pytest.raises(UsageError, match=changed):
        place.run(out, "0/2", inputs=inputs)
    (corpus / "0.jsonl").write_bytes(data.replace(b"e", b"E", 1))
    with pytest.raises(PartialError, match=r"0\.jsonl: has changed since it was listed"):
        place.run(out, "0/2", inputs=inputs)
    (corpus / "0.jsonl").write_bytes(data)
    assert place.run(out, "0/2", inputs=inputs) == "done"
    assert tree(out)["units.parquet"] == tree(place.reference)["units.parquet"]
    (corpus / "0.jsonl").unlink()
    with pytest.raises(UsageError, match=changed):
        place.run(out, "0/2", inputs=inputs)


def test_a_corpus_that_changes_before_the_run_is_planned(place, tmp_path, inline, monkeypatch):
    corpus, out = shutil.copytree(place.corpus, tmp_path / "corpus"), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("cptsel.pipeline.embed.share_inventory", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            place.run(out, "0/2", inputs=(f"{corpus}/*",))
    (corpus / "0.jsonl").unlink()
    with pytest.raises(UsageError, match="other files, or files of other sizes, are listed than when"):
        place.run(out, "0/2", inputs=(f"{corpus}/*",))


def test_too_much_damage_is_told_at_the_end_and_can_be_allowed(place, tmp_path, inline):
    out = tmp_path / "run"
    assert place.run(out, "0/2", max_bad_fraction=0.0) == "range 0/2 done"
    with pytest.raises(BadInputError, match="1 of 21 rows were rejected"):
        place.run(out, "1/2", max_bad_fraction=0.0)
    assert "all are done, one is to finish it" in inspect(str(out)).warnings[0]
    assert place.run(out, "0/2") == "done"
    assert tree(out) == tree(place.reference)


def test_one_command_goes_on_with_what_ranges_have_and_ranges_with_what_it_has(place, tmp_path, inline):
    out = tmp_path / "run"
    place.run(out, "2/3")
    assert place.run(out) == "resumed"
    assert tree(out) == tree(place.reference)
    assert place.run(out, "1/4") == "already done"  # whatever the number: the bytes are the same
    (out / "_SUCCESS").unlink()
    assert [place.run(out, "0/2"), place.run(out, "1/2")] == ["range 0/2 done", "done"]
    assert outputs.list_tree(str(out)) == outputs.list_tree(str(place.reference))


def test_inspect_says_which_ranges_are_missing(place, tmp_path, inline, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("cptsel.pipeline.embed.share_inventory", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            place.run(out, "0/7")
    found = inspect(str(out))
    assert found.status == "begun by cptsel embed, nothing finished"
    assert found.totals["ranges not done"] == "0-6"
    for index in (1, 3, 4):
        place.run(out, f"{index}/7")
    found = inspect(str(out))
    assert found.status == "embedding run, unfinished"
    assert {name: found.totals[name] for name in ("ranges", "ranges done", "ranges not done")} == {
        "ranges": 7,
        "ranges done": "1,3-4",
        "ranges not done": "0,2,5-6",
    }
    assert "run cptsel embed again with --shard-range I/7 for I = 0,2,5-6" in found.warnings[0]
    with pytest.raises(UsageError, match="with --shard-range, cptsel inspect says which"):
        open_runs([str(out)])
    (shards,) = found.tables
    assert list(shards.columns) == ["path", "format", "compression", "bytes"]  # rows and tokens are not counted yet


def test_pool_and_lookahead_are_settled_once(place, tmp_path, inline, sample_data, monkeypatch):
    options = {
        "pool": "600 tokens",
        "lookahead": (str(sample_data / "new" / "*" / "*"),),
        "lookahead_tokens": 100,
        "lookahead_steps": 1,
    }
    whole, out = tmp_path / "whole", tmp_path / "run"
    place.run(whole, **options)
    place.run(out, "0/2", **options)

    def no_more(*args, **kwargs):
        raise AssertionError("this was settled before")

    monkeypatch.setattr("cptsel.pipeline.embedding.pool.probe", no_more)
    monkeypatch.setattr("cptsel.pipeline.embedding.lookahead.make_lookahead", no_more)
    with pytest.raises(UsageError, match=r"was begun with --lookahead 1 step of adamw at .* tokens each, now 2"):
        place.run(out, "1/2", **(options | {"lookahead_steps": 2}))
    assert place.run(out, "1/2", **options) == "done"
    assert tree(out) == tree(whole)


def test_a_remote_store_and_a_disk_without_locks_are_refused(place, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="gs://b/run has no locks"), sharing("gs://b/run", ShardRange(0, 2), ""):
        pass

    def refuse(handle, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UsageError, match="its filesystem has no locks, by which several commands write one directory"):
        place.run(tmp_path / "run", "0/2")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_processes_that_are_killed_from_outside(place, tmp_path):
    """Real commands at once, of which one is killed with SIGKILL when it embeds."""
    out, config = tmp_path / "run", place.config(tmp_path / "run")
    names = ("max_tokens", "sketch_dim", "validation_dim", "block_bytes", "max_bad_fraction", "out", "model")
    flags = [f"--{name.replace('_', '-')}={getattr(config, name)}" for name in names]

    @contextmanager
    def started(index):
        command = [sys.executable, "-m", "cptsel", "embed", *config.inputs, *flags, f"--shard-range={index}/3"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            yield process

    with started(0) as first, started(1) as second, started(2) as third:
        while not (out / "embeddings").exists() and second.poll() is None:
            pass
        second.kill()
        assert [process.wait() for process in (first, third)] == [0, 0]
    with started(1) as second:
        assert second.wait() == 0, second.stderr.read()
    assert tree(out) == tree(place.reference)
