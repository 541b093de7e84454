"""Groups are counted in the reading in which a file is hashed, in every format, and no byte is hashed twice."""

import hashlib
import io
import random
from collections import Counter

import pytest
from corpus_builders import every_format
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.corpus.forward import Followed
from cptsel.pipeline.corpus.shards import inventory
from cptsel.pipeline.corpus.text_bytes import TextBytes
from cptsel.pipeline.corpus.types import ReadOptions

ROWS = [
    {"id": str(row), "text": f"Zeile № {row} " * (row % 7 + 1), "lang": ("de", "fr")[row % 3 == 0]} for row in range(50)
]
FILES = every_format(ROWS)


@given(
    data=st.binary(max_size=300),
    steps=st.lists(st.tuples(st.sampled_from(["set", "on", "end", "read"]), st.integers(0, 320))),
)
def test_whatever_is_read_every_byte_is_handed_on_once_and_in_order(data, steps):
    plain, seen = io.BytesIO(data), []
    followed = Followed(io.BytesIO(data), [seen.append])
    for kind, number in steps:
        if kind == "read":
            assert followed.read(number) == plain.read(number)
        else:
            whence = {"set": io.SEEK_SET, "on": io.SEEK_CUR, "end": io.SEEK_END}[kind]
            offset = -min(number, len(data)) if kind == "end" else number
            assert followed.seek(offset, whence) == plain.seek(offset, whence)
        assert followed.tell() == plain.tell()
        assert b"".join(seen) == data[: followed.seen]
    followed.finish()
    assert b"".join(seen) == data
    assert followed.seen == len(data)


@pytest.mark.parametrize("name", FILES)
def test_bytes_of_text_by_group(tmp_path, name):
    expected = Counter()
    for row in ROWS:
        expected[row["lang"]] += len(row["text"].encode())
    path = tmp_path / name
    path.write_bytes(FILES[name])
    for block_bytes in (100, 1 << 20):
        sizes = TextBytes(ReadOptions(id_field=None, group_by=("lang",), block_bytes=block_bytes))
        shard = inventory(0, str(path), name, path.stat().st_size, block_bytes, sizes=sizes)
        assert sizes.listed() == sorted(expected.items())
        assert shard == inventory(0, str(path), name, path.stat().st_size, block_bytes)
        assert shard.sha256 == hashlib.sha256(FILES[name]).hexdigest()


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_hashed_whole(tmp_path, name):
    path = tmp_path / name
    for seed in range(10):
        data = bytearray(FILES[name])
        data[random.Random(seed).randrange(len(data))] ^= 4
        path.write_bytes(data)
        sizes = TextBytes(ReadOptions(id_field=None, group_by=("lang",), limit=30))
        shard = inventory(0, str(path), name, len(data), 500, sizes=sizes)
        assert shard == inventory(0, str(path), name, len(data), 500)


def test_a_group_that_stands_in_the_path(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(FILES["a.jsonl"])
    sizes = TextBytes(ReadOptions(group_by=("lang",)))
    inventory(0, str(path), "lang=uk/a.jsonl", path.stat().st_size, 1 << 20, sizes=sizes)
    assert [group for group, _ in sizes.listed()] == ["uk"]
