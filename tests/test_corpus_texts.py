"""Texts of known rows read again: from the right place, or an error that names file and row."""

import gzip
import re

import pytest
import zstandard

from cptsel.pipeline.corpus.documents import read_texts
from cptsel.pipeline.errors import BadInputError

LINES = [b'{"text": "zero"}', b"bad", b'{"text": "two"}', b"", b'{"text": "f\xc3\xbcnf", "n": 1}', b'{"text": "six"}']
PACK = {"none": bytes, "gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}


def locate(*rows):
    return [(row, sum(len(line) + 1 for line in LINES[:row]), len(LINES[row])) for row in rows]


@pytest.fixture(params=PACK)
def shard(request, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(PACK[request.param](b"\n".join(LINES)))
    return str(path), request.param


def read(shard, rows):
    return list(read_texts(shard[0], "jsonl", shard[1], "text", rows))


def test_rows_in_their_order_and_as_often_as_asked(shard):
    assert read(shard, locate(0, 2, 2, 5)) == [(0, "zero"), (2, "two"), (2, "two"), (5, "six")]
    assert read(shard, []) == []


def test_without_byte_offsets(shard):
    assert read(shard, [(2, None, None), (4, None, None)]) == [(2, "two"), (4, "fünf")]


def test_a_bad_row(shard):
    with pytest.raises(BadInputError, match=r"a\.jsonl: row 1 can't be read \(bad_json: .*\); restore the file"):
        read(shard, locate(0, 1))


def test_a_row_past_the_end(shard):
    for row in [(9, 10_000, 5), (9, None, None)]:
        with pytest.raises(BadInputError, match=r"a\.jsonl: row 9 can't be read \(the file "):
            read(shard, [*locate(0), row])


def test_a_missing_file(shard):
    with pytest.raises(BadInputError, match=r"none\.jsonl: can't be read \(.*\); restore the file"):
        read((shard[0].replace("a.jsonl", "none.jsonl"), shard[1]), locate(0))


def test_unsorted_rows_are_a_mistake_of_the_caller(shard):
    with pytest.raises(ValueError, match="sorted"):
        read(shard, locate(2, 0))


def test_a_stream_is_read_no_further_than_the_last_row(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(LINES) + b"\n" * 100_000)[:-8] + b"damaged!")
    assert read((str(path), "gzip"), locate(0, 5)) == [(0, "zero"), (5, "six")]


def test_a_truncated_stream(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(LINES))[:-1])
    assert read((str(path), "gzip"), locate(0, 4)) == [(0, "zero"), (4, "fünf")]
    with pytest.raises(BadInputError, match=re.escape("row 5 can't be read (truncated_stream")):
        read((str(path), "gzip"), locate(5))


def test_a_file_that_became_another_format(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(gzip.compress(b"\n".join(LINES)))
    with pytest.raises(BadInputError, match="row 0 can't be read"):
        read((str(path), "none"), locate(0))
    with pytest.raises(BadInputError, match=r"row 0 can't be read \(wrong_format: gzip, not text\)"):
        read((str(path), "none"), [(0, None, None)])
    with pytest.raises(BadInputError, match=r"row 3 can't be read \(wrong_format: not Parquet\)"):
        list(read_texts(str(path), "parquet", "none", "text", [(3, None, None)]))
