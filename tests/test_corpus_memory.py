"""Small files that decode to much: memory stays within bounds, and every row is counted.

Each is read in a process of its own, whose memory is measured.
"""

import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from cptsel.pipeline.corpus.types import BLOCK_ROWS

READ = """
import json, resource, sys
from cptsel.pipeline.corpus.documents import ReadOptions, read_block, read_stream
from cptsel.pipeline.corpus.shards import inventory
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
path, size, cap = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
shard = inventory(0, path, path.rsplit("/", 1)[1], size, 8 << 20)
options = ReadOptions(max_line_bytes=cap)
blocks = read_stream(shard, options) if shard.blocks is None else (read_block(shard, b, options) for b in shard.blocks)
rows, reasons, most, texts = 0, {}, 0, 0
for block in blocks:
    rows, most = rows + block.rows_read, max(most, block.rows_read)
    texts += len(block.documents)
    for reject in block.rejects:
        reasons[reject.reason] = reasons.get(reject.reason, 0) + 1
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"rows": rows, "reasons": reasons, "texts": texts, "block": most, "mib": grown >> 10}))
"""


def read(path, cap=16 << 20):
    call = [sys.executable, "-c", READ, str(path), str(path.stat().st_size), str(cap)]
    return json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)


def test_a_dictionary_of_one_long_text(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": pa.array(["x" * (4 << 20)] * 400)})
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=1 << 30)
    assert path.stat().st_size < 100_000
    found = read(path)
    assert found["rows"] == 400
    assert found["texts"] == 64
    assert found["reasons"] == {"decoded_too_large": 336}
    assert found["mib"] < 900


def test_one_text_beyond_the_cap(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["short", "y" * (200 << 20), "short"]}), path, compression="zstd")
    found = read(path)
    assert (found["texts"], found["reasons"]) == (2, {"document_too_long": 1})
    assert found["mib"] < 900


def test_rows_of_nothing(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.nulls(200_000, pa.string())}), path, compression="zstd")
    found = read(path)
    assert found["rows"] == 200_000
    assert found["reasons"] == {"null_text": 200_000}
    assert found["block"] <= BLOCK_ROWS
    assert found["mib"] < 300


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst"])
def test_line_ends_alone(tmp_path, name):
    data = b"\n" * (1 << 19)
    path = tmp_path / name
    path.write_bytes(zstandard.ZstdCompressor().compress(data) if name.endswith(".zst") else data)
    found = read(path)
    assert found["reasons"] == {"blank_line": 1 << 19}
    assert found["block"] == BLOCK_ROWS
    assert found["mib"] < 300


def test_a_footer_that_says_many_rows(tmp_path):
    path = tmp_path / "a.parquet"
    rows = 1 << 25
    pq.write_table(pa.table({"text": pa.nulls(rows, pa.string())}), path, row_group_size=rows)
    assert path.stat().st_size < 100_000
    found = read(path)
    assert (found["rows"], found["reasons"]) == (1, {"unreadable_parquet": 1})
    assert found["mib"] < 300
