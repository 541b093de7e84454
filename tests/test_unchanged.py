"""A file that is edited while it is read is an error, whatever its size; one that is not reads as it is."""

import gzip
import io
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.corpus.documents import ReadOptions, read_block, read_stream
from cptsel.pipeline.corpus.shards import inventory
from cptsel.pipeline.corpus.unchanged import CHUNK, ChunkDigests, checked
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding import inventory as taking
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.errors import PartialError


def digests_of(data: bytes, pieces: int = 1 << 16) -> bytes:
    found = ChunkDigests()
    for start in range(0, len(data), pieces):
        found.feed(data[start : start + pieces])
    return found.finish()


def test_digests_do_not_depend_on_the_pieces():
    data = os.urandom(2 * CHUNK + 77)
    assert digests_of(data) == digests_of(data, 4 * CHUNK) == digests_of(data, 999_983)
    assert len(digests_of(data)) == 3 * 16
    assert digests_of(b"") == b""


@given(st.lists(st.tuples(st.integers(0, 3 * CHUNK), st.integers(0, CHUNK + 5)), max_size=8))
def test_reads_are_those_of_the_file(places):
    data = bytes(range(256)) * ((2 * CHUNK + 512) // 256)
    handle = checked(io.BytesIO(data), digests_of(data), "x")
    for start, size in places:
        handle.seek(start)
        assert handle.read(size) == data[start : start + size]
        assert handle.tell() == start + min(size, max(0, len(data) - start))
    handle.seek(-5, io.SEEK_END)
    assert handle.read() == data[-5:]


def test_every_changed_byte_is_noticed_where_it_is_read():
    data = os.urandom(3 * CHUNK)
    changed = bytearray(data)
    changed[CHUNK + 5] ^= 1
    handle = checked(io.BytesIO(bytes(changed)), digests_of(data), "corpus/a.jsonl")
    assert handle.read(CHUNK) == data[:CHUNK]
    with pytest.raises(OSError, match=r"corpus/a\.jsonl: has changed since it was listed"):
        handle.read(1)
    handle.seek(2 * CHUNK)
    assert handle.read() == data[2 * CHUNK :]


ROWS = [{"text": f"text number {i} of the corpus"} for i in range(300)]


def write(path):
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=100, compression="none")
    else:
        path.write_bytes(gzip.compress(lines, compresslevel=0) if path.name.endswith(".gz") else lines)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_an_edit_of_the_same_size_after_the_listing_is_an_error(tmp_path, name):
    path = tmp_path / name
    write(path)
    shard = inventory(0, str(path), name, path.stat().st_size, 1 << 20, None, str(tmp_path / "digests"))

    def read():
        options = ReadOptions()
        if shard.blocks is None:
            return [document.content for block in read_stream(shard, options) for document in block.documents]
        blocks = [read_block(shard, block, options) for block in shard.blocks]
        return [document.content for block in blocks for document in block.documents]

    assert read() == [row["text"] for row in ROWS]
    data = path.read_bytes()
    assert data.count(b"number 123 ") >= 1
    path.write_bytes(data.replace(b"number 123 ", b"number 321 "))
    with pytest.raises(OSError, match="has changed since it was listed"):
        read()


def test_embed_names_a_shard_that_is_edited_under_it(tiny_lm, tmp_path, monkeypatch):
    """The edit falls between the listing and the reading; the other shard is embedded, and a rerun refuses."""
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps({"text": f"{name} holds text {i}"}) + "\n" for i in range(20)))
    take = taking.take_inventory

    def edit_after(*args, **options):
        shards = take(*args, **options)
        (tmp_path / "b.jsonl").write_text((tmp_path / "b.jsonl").read_text().replace("text 7", "test 7"))
        return shards

    monkeypatch.setattr("cptsel.pipeline.embed.take_inventory", edit_after)
    config = EmbedConfig(inputs=(f"{tmp_path}/*.jsonl",), model=str(tiny_lm), out=str(tmp_path / "run"), max_tokens=32)
    with pytest.raises(PartialError, match=r"^\S+b\.jsonl: has changed since it was listed"):  # named once
        embed(config)
    assert not (tmp_path / "run" / "_SUCCESS").exists()
    assert [path.name for path in (tmp_path / "run" / "embeddings").iterdir()] == ["000000-00000.parquet"]
