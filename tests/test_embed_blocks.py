"""The blocks of ``cptsel embed``: how large they are with a pool, who keeps them, and what ``--grow`` takes over."""

import gzip
import json
import math
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from killing import tree

from cptsel.pipeline.corpus.shards import inventory
from cptsel.pipeline.corpus.types import BLOCK_BYTES, BLOCK_ROWS, ReadOptions
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding import blocks as blocks_module
from cptsel.pipeline.embedding.blocks import BlockSize, new_blocks
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.pool import block_size, lookahead_seconds
from cptsel.pipeline.embedding.probe import Probe
from cptsel.pipeline.embedding.units import Unit, read_unit
from cptsel.pipeline.errors import UsageError

MIB = 1 << 20


def config(**options):
    return EmbedConfig(inputs=("x",), model="m", out="/nowhere/run", **options)


@pytest.mark.parametrize("percent", [0.1, 1, 2, 3, 5, 12.5, 20, 49, 50, 51, 99, 100])
def test_a_block_of_a_pool_holds_as_much_of_it_as_one_of_the_whole_corpus(percent):
    found = new_blocks(config(pool=f"{percent}%"), None, percent / 100, 1 << 50)
    assert found.bytes <= 256 * MIB
    assert math.log2(found.bytes / BLOCK_BYTES).is_integer()
    assert found.bytes * percent / 100 <= BLOCK_BYTES
    assert found.bytes == 256 * MIB or found.bytes * percent / 100 > BLOCK_BYTES / 2
    assert found.rows / BLOCK_ROWS == found.bytes / BLOCK_BYTES


def test_what_else_decides_the_blocks():
    pool = config(pool="2%")
    assert new_blocks(pool, None, 0.02, 64 * 20 * MIB).bytes == 16 * MIB  # a corpus gives blocks for many workers
    assert new_blocks(pool, None, 0.02, 1).bytes == BLOCK_BYTES
    assert new_blocks(config(), None, 1.0, 1 << 50) == BlockSize(BLOCK_BYTES, BLOCK_ROWS)
    older = BlockSize(64 * MIB, BLOCK_ROWS)  # of a release whose blocks had no more rows
    assert new_blocks(pool, older, 0.02, 1 << 50) == older
    assert new_blocks(replace(pool, block_bytes=64 * MIB), older, 0.02, 1 << 50) == older
    assert new_blocks(replace(pool, block_bytes=32 * MIB), older, 0.02, 1 << 50) == BlockSize(32 * MIB, 4 * BLOCK_ROWS)
    assert new_blocks(config(block_bytes=32 * MIB), None, 1.0, 1) == BlockSize(32 * MIB, BLOCK_ROWS)


def test_where_groups_have_rates_of_their_own_the_largest_decides():
    files = [("u", "a/x.jsonl", 2**40), ("u", "b/x.jsonl", 2**50)]
    of_paths = config(pool="2%", pool_alpha=0.0, group_by=("path[0]",))
    assert block_size(of_paths, None, 0.02, files).bytes == BLOCK_BYTES  # all of a is drawn
    in_a_column = config(pool="2%", pool_alpha=0.9, group_by=("lang",))
    assert block_size(in_a_column, None, 0.02, files).bytes == BLOCK_BYTES
    assert block_size(config(pool="2%"), None, 0.02, files).bytes == 256 * MIB


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_blocks_of_any_format_end_after_so_many_rows(tmp_path, name):
    path, rows = tmp_path / name, [{"text": f"row {i}"} for i in range(100)]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(gzip.compress(data, mtime=0) if name.endswith("gz") else data)
    for most in (25, 40):
        options = ReadOptions(block_rows=most)
        shard = inventory(0, str(path), name, path.stat().st_size, 1 << 30, block_rows=most)
        units = [Unit(shard, None)] if shard.blocks is None else [Unit(shard, block) for block in shard.blocks]
        found = [block for unit in units for block in read_unit(unit, replace(options, block_bytes=1 << 30))]
        assert [block.rows_read for block in found] == [most] * (100 // most) + [100 % most] * (100 % most > 0)


@pytest.fixture
def run(tiny_lm, tmp_path, monkeypatch):
    """A function that embeds 600 documents as if 2 kB were the usual size of a block."""
    words = ["apple", "river", "stone", "cloud", "seven", "green"]
    lines = [{"text": " ".join(words[(i * k) % 6] for k in range(1, 9))} for i in range(1, 601)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 2_000)
    monkeypatch.setattr(blocks_module, "MOST_BYTES", 16_000)
    monkeypatch.setattr(blocks_module, "LEAST_BLOCKS", 1)

    def call(name, **options):
        settings = {"max_tokens": 32, "sketch_dim": 16, "validation_dim": 8, "tokens_per_batch": 64} | options
        return embed(
            EmbedConfig(inputs=(f"{tmp_path}/a.jsonl",), model=str(tiny_lm), out=str(tmp_path / name), **settings)
        )

    return call


def recorded(folder):
    options = json.loads((folder / "run.json").read_text())["options"]
    return options["block_bytes"], options.get("block_rows", BLOCK_ROWS)


def test_a_run_keeps_its_blocks_and_what_goes_on_from_it_has_them(run, tmp_path, monkeypatch):
    small = run("small", pool="20%")
    assert recorded(tmp_path / "small") == (8_000, 4 * BLOCK_ROWS)
    assert small.tokens_taken_over is None
    assert small.tokens_per_second > 0
    before = tree(tmp_path / "small")
    monkeypatch.setattr(blocks_module, "MOST_BYTES", 4_000)  # as a release with other blocks would have it
    for path in [tmp_path / "small" / "_SUCCESS", *sorted((tmp_path / "small" / "embeddings").iterdir())[:2]]:
        path.unlink()
    assert run("small", pool="20%").status == "resumed"
    (tmp_path / "small" / "_SUCCESS").unlink()
    resumed = run("small", pool="20%")
    assert resumed.status == "resumed"
    assert resumed.tokens_per_second is None  # nothing was embedded
    assert tree(tmp_path / "small") == before
    planned = run("grown", pool="60%", grow=str(tmp_path / "small"), dry_run=True)
    grown = run("grown", pool="60%", grow=str(tmp_path / "small"))
    run("large", pool="60%", block_bytes=8_000)
    assert recorded(tmp_path / "grown") == (8_000, 4 * BLOCK_ROWS)
    assert tree(tmp_path / "grown") == tree(tmp_path / "large")
    assert 0.5 * small.tokens < grown.tokens_taken_over < small.tokens
    assert planned.tokens_taken_over == pytest.approx(grown.tokens_taken_over, rel=0.1)
    assert planned.pool == grown.pool == "60.0000%"
    assert not planned.warnings
    run("after", pool="30%", after=str(tmp_path / "small"))
    assert recorded(tmp_path / "after") == (8_000, 4 * BLOCK_ROWS)


def test_a_dry_run_tells_that_little_is_taken_over(run, tmp_path):
    small = run("small", pool="20%", block_bytes=2_000, tokens_per_batch=512)
    settings = {"pool": "60%", "grow": str(tmp_path / "small"), "tokens_per_batch": 512}
    planned = run("grown", dry_run=True, **settings)
    assert planned.tokens_taken_over == 0
    assert f"of its {small.tokens:,} tokens about 0 are taken over" in planned.warnings[0]
    assert run("grown", **settings).tokens_taken_over == 0


def test_ranges_share_the_blocks_that_the_first_has_settled(run, tmp_path, monkeypatch):
    run("run", pool="20%", shard_range="0/2")
    (tmp_path / "run" / "run.json").unlink()  # as if the second came before it was written
    monkeypatch.setattr(blocks_module, "MOST_BYTES", 4_000)
    assert run("run", pool="20%", shard_range="1/2").status == "done"
    assert recorded(tmp_path / "run") == (8_000, 4 * BLOCK_ROWS)


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({}, 2),
        ({"skip_base_loss": True}, 1),
        ({"gradient": "body"}, 4),
        ({"gradient": "body", "skip_base_loss": True}, 3),
    ],
)
def test_the_steps_of_a_lookahead_take_their_time(options, passes):
    found = Probe(documents=10, tokens=1000, samples=10, blocks=1, seconds=50)
    assert lookahead_seconds(config(), found) == 0
    steps = config(lookahead=("new",), lookahead_steps=7, lookahead_tokens=100, **options)
    assert lookahead_seconds(steps, found) * passes == pytest.approx(3 * 7 * 100 * 0.05)


def test_a_dry_run_and_a_time_budget_count_the_lookahead(run, tmp_path):
    new = {"lookahead": (f"{tmp_path}/a.jsonl",), "lookahead_tokens": 1_000_000}
    without = run("x", dry_run=True)
    planned = run("x", dry_run=True, **new)
    assert planned.hours > 10 * without.hours
    with pytest.raises(
        UsageError, match=r"--time-budget 1s: the steps of --lookahead take about .* hours by themselves"
    ):
        run("x", time_budget="1s", **new)
