"""Arrow IPC shards: as Hugging Face datasets writes them, and every way in which they may be damaged."""

import random

import datasets
import pyarrow as pa
import pyarrow.feather as feather
import pytest

from cptsel.cli.main import main
from cptsel.pipeline.corpus.documents import ReadOptions, read_block, read_texts
from cptsel.pipeline.corpus.formats import arrow as arrow_format
from cptsel.pipeline.corpus.pool import Pool, Range
from cptsel.pipeline.corpus.shards import inventory
from cptsel.pipeline.errors import BadInputError

ROWS = [{"id": f"d{i}", "text": f"row {i} " * (i % 7 + 1), "meta": {"lang": "ab"[i % 2]}} for i in range(250)]


def read(path, **options):
    """All blocks of a file: documents, rejects, rows that were not drawn."""
    settings = ReadOptions(group_by=("meta.lang",), **options)
    shard = inventory(0, str(path), path.name, path.stat().st_size, settings.block_bytes)
    blocks = [read_block(shard, block, settings) for block in shard.blocks]
    for block in blocks:
        assert block.rows_read == len(block.documents) + len(block.rejects) + block.rows_not_drawn
    return (
        [d for block in blocks for d in block.documents],
        [r for block in blocks for r in block.rejects],
        sum(block.rows_not_drawn for block in blocks),
    )


def write(path, rows=ROWS, batch=40, kind="stream", compression=None, schema=None):
    table = pa.Table.from_pylist(rows, schema)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    opened = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    with opened(str(path), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=batch)
    return path


def expected(rows=ROWS):
    return [(i, row["id"], row["text"], (row["meta"]["lang"],)) for i, row in enumerate(rows)]


def found(documents):
    return [(d.row_index, d.doc_id, d.content, d.groups) for d in documents]


def test_what_datasets_saves_is_read(tmp_path):
    made = datasets.Dataset.from_list(ROWS)
    made.save_to_disk(str(tmp_path / "saved"), num_shards=2)
    paths = sorted((tmp_path / "saved").glob("*.arrow"))
    assert len(paths) == 2
    both = [found(read(path)[0]) for path in paths]
    assert [row[1:] for part in both for row in part] == [row[1:] for row in expected()]


def test_what_datasets_caches_is_read(tmp_path):
    made = datasets.Dataset.from_generator(lambda: iter(ROWS), cache_dir=str(tmp_path))
    (path,) = {file["filename"] for file in made.cache_files}
    assert found(read(type(tmp_path)(path))[0]) == expected()


@pytest.mark.parametrize("kind", ["stream", "file"])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("block_bytes", [500, 8 << 20])
def test_streams_and_files_compressed_or_not(tmp_path, kind, compression, block_bytes):
    path = write(tmp_path / "a.arrow", kind=kind, compression=compression)
    documents, rejects, _ = read(path, block_bytes=block_bytes)
    assert (found(documents), rejects) == (expected(), [])
    assert found(read(path, limit=50)[0]) == expected()[:50]


def test_feather_is_read(tmp_path):
    feather.write_feather(pa.Table.from_pylist(ROWS), tmp_path / "a.feather")
    assert found(read(tmp_path / "a.feather")[0]) == expected()


def test_only_batches_with_drawn_rows_are_read(tmp_path, monkeypatch):
    path = write(tmp_path / "a.arrow", batch=5)
    pool = Pool(1, Range(0.0, 0.03))
    read_bytes, real = [], arrow_format.ArrowShard._read

    def count(self, message):
        if message.kind == 3:
            read_bytes.append(message.start)
        return real(self, message)

    monkeypatch.setattr(arrow_format.ArrowShard, "_read", count)
    documents, _, not_drawn = read(path, pool=pool)
    drawn = [i for i in range(len(ROWS)) if pool.place("a.arrow", i, None) is not None]
    assert [d.row_index for d in documents] == drawn
    assert not_drawn == len(ROWS) - len(drawn)
    assert len(set(read_bytes)) == len({i // 5 for i in drawn})


def test_texts_are_read_again(tmp_path):
    path = write(tmp_path / "a.arrow")
    rows = [(3, None, None), (3, None, None), (41, None, None), (249, None, None)]
    texts = list(read_texts(str(path), "arrow", "none", "text", rows))
    assert texts == [(i, ROWS[i]["text"]) for i, _, _ in rows]
    with pytest.raises(BadInputError, match="row 250 can't be read"):
        list(read_texts(str(path), "arrow", "none", "text", [(250, None, None)]))


@pytest.mark.parametrize("cut", [1, 4, 8, 9, 500, 5000])
def test_a_stream_that_breaks_off_keeps_what_comes_before(tmp_path, cut):
    whole = write(tmp_path / "whole.arrow").read_bytes()
    path = tmp_path / "a.arrow"
    path.write_bytes(whole[:-cut])
    documents, rejects, _ = read(path)
    assert found(documents) == expected()[: len(documents)]
    (reject,) = rejects
    assert (reject.reason, reject.row_index) == ("truncated_stream", len(documents))
    assert reject.bytes_lost >= 0
    assert len(documents) % 40 in (0, 10)
    _, rejects, _ = read(path, pool=Pool(0, Range(0.0, 1e-9)))
    assert [r.reason for r in rejects] == ["truncated_stream"]


def test_damage_costs_what_it_must(tmp_path):
    binary = pa.array([b"good", b"b\xffd", b"fine"])
    text = pa.Array.from_buffers(pa.string(), 3, binary.buffers())
    table = pa.table({"text": text, "id": ["a", "b", "c"], "meta": [{"lang": "a"}] * 3})
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    documents, rejects, _ = read(tmp_path / "a.arrow")
    assert [d.content for d in documents] == ["good", "fine"]
    assert [(r.row_index, r.reason) for r in rejects] == [(1, "bad_utf8")]
    (tmp_path / "b.arrow").write_bytes(b"{}" * 30)
    assert [r.reason for r in read(tmp_path / "b.arrow")[1]] == ["wrong_format"]
    coded = pa.table({"text": pa.array(["a", "b"]).dictionary_encode()})
    with pa.ipc.new_stream(str(tmp_path / "c.arrow"), coded.schema) as writer:
        writer.write_table(coded)
    (reject,) = read(tmp_path / "c.arrow")[1]
    assert (reject.reason, reject.detail) == ("unreadable_arrow", "it has dictionaries; write it with plain columns")


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_flipped_bits_never_lose_a_row_in_silence(tmp_path, kind):
    """Rows are documents, rejects, or behind a break that is told; what is read is what a reader may say of it."""
    whole = bytearray(write(tmp_path / "whole.arrow", ROWS[:60], batch=20, kind=kind).read_bytes())
    rng = random.Random(0)
    path = tmp_path / "a.arrow"
    for _ in range(400):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        documents, rejects, _ = read(path)
        indices = sorted([d.row_index for d in documents] + [r.row_index for r in rejects])
        assert indices == list(range(len(indices)))
        broken = {r.reason for r in rejects} & {"truncated_stream", "unreadable_arrow", "wrong_format"}
        assert len(indices) == 60 or broken


def test_a_batch_that_would_decode_to_too_much_is_named(tmp_path, monkeypatch):
    path = write(
        tmp_path / "a.arrow", [{"id": "a", "text": "x" * 100_000, "meta": {"lang": "a"}}] * 9, compression="zstd"
    )
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(arrow_format, "_MOST_DECODED", 500_000)
    documents, rejects, _ = read(path)
    assert documents == []
    assert {r.reason for r in rejects} == {"unreadable_row_group"}
    assert "it decodes to 900," in rejects[0].detail


def test_a_dataset_goes_all_the_way(tiny_lm, tmp_path, capsys):
    rows = [{"id": f"d{i}", "text": f"Weights and measures of sample {i}. " * 4} for i in range(24)]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "old"))
    run, replay = str(tmp_path / "run"), str(tmp_path / "replay")
    pattern = str(tmp_path / "old" / "*.arrow")
    assert main(["embed", pattern, "--model", str(tiny_lm), "--max-tokens", "32", "--out", run]) == 0
    assert main(["select", run, "--method", "uniform", "--budget", "50%", "--out", replay]) == 0
    assert main(["verify", replay, "--sources"]) == 0
    assert main(["export", replay, "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
