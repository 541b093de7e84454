"""Every bit of a Parquet footer, flipped: no row is lost without a reject, and no reader crashes."""

import io
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cptsel.pipeline.corpus.documents import ReadOptions, read_block
from cptsel.pipeline.corpus.shards import inventory

OPTIONS = ReadOptions(group_by=("lang",))
ROWS = 40


def texts(seed):
    words = random.Random(seed)
    return [f"{n} " + " ".join(words.choices(["weigh", "measure", "count", "ünïcödé"], k=9)) for n in range(ROWS)]


def files():
    """Three small files: several row groups, a nested column beside the others, and one group that is plain."""
    table = pa.table(
        {"id": [f"d{n}" for n in range(ROWS)], "text": texts(0), "lang": ["ab"[n % 2] for n in range(ROWS)]}
    )
    nested = table.append_column("tags", pa.array([["x"] * (n % 3) for n in range(ROWS)]))
    for name, data, options in (
        ("groups", table, {"row_group_size": 15, "compression": "zstd"}),
        ("nested", nested, {"row_group_size": 25, "use_dictionary": True, "compression": "snappy"}),
        ("plain", table, {"compression": "none", "use_dictionary": False}),
    ):
        sink = io.BytesIO()
        pq.write_table(data, sink, write_page_checksum=True, **options)
        yield name, sink.getvalue()


FILES = dict(files())


def read(path):
    """Rows read, their texts by number, and the rejects."""
    shard = inventory(0, str(path), path.name, path.stat().st_size, 1 << 20)
    blocks = [read_block(shard, block, OPTIONS) for block in shard.blocks]
    return (
        sum(block.rows_read for block in blocks),
        {document.row_index: document.content for block in blocks for document in block.documents},
        [reject for block in blocks for reject in block.rejects],
    )


def flips(name, step):
    """Every ``step``-th bit of a file's footer."""
    data = FILES[name]
    length = int.from_bytes(data[-8:-4], "little")
    bits = range(8 * (len(data) - 8 - length), 8 * len(data), step)
    return [(place // 8, 1 << (place % 8)) for place in bits]


def check(tmp_path, name, step):
    expected = dict(enumerate(texts(0)))
    lost = []
    for place, bit in flips(name, step):
        data = bytearray(FILES[name])
        data[place] ^= bit
        path = tmp_path / "a.parquet"
        path.write_bytes(data)
        rows, found, rejects = read(path)
        if found != expected and not rejects:
            lost.append((place, bit, rows, len(found)))
        assert rows == len(found) + len(rejects)
    assert lost == []


@pytest.mark.parametrize("name", FILES)
def test_some_bits_of_a_footer(tmp_path, name):
    check(tmp_path, name, 37)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_bit_of_a_footer(tmp_path, name):
    check(tmp_path, name, 1)


@pytest.mark.parametrize("name", FILES)
def test_the_files_as_they_are(tmp_path, name):
    path = tmp_path / "a.parquet"
    path.write_bytes(FILES[name])
    assert read(path) == (ROWS, dict(enumerate(texts(0))), [])
