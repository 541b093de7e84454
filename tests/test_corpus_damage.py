"""One test for each kind of damage: it costs one row, says why, and the rest is read."""

import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from cptsel.pipeline.corpus import streams
from cptsel.pipeline.corpus.documents import REASONS, ReadOptions, read_block, read_stream
from cptsel.pipeline.corpus.shards import inventory

GOOD = b'{"text": "good"}'
PACK = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
}


def read(path, **options):
    """All blocks of a file: {row: text}, [Reject]."""
    settings = ReadOptions(**options)
    shard = inventory(0, str(path), path.name, path.stat().st_size, settings.block_bytes)
    if shard.blocks is None:
        blocks = list(read_stream(shard, settings))
    else:
        blocks = [read_block(shard, block, settings) for block in shard.blocks]
    for block in blocks:
        assert block.rows_read == len(block.documents) + len(block.rejects)
        assert all(reject.reason in REASONS for reject in block.rejects)
    assert [block.last for block in blocks] == [False] * (len(blocks) - 1) + [True]
    documents = {document.row_index: document for block in blocks for document in block.documents}
    rejects = [reject for block in blocks for reject in block.rejects]
    return documents, rejects


LINES = {
    "bad_json": [b"{", b'{"text": "x"', b"{'text': 'x'}", b'{"text": "a\tb"}', b'{"text": "x"} {}', b"\xef\xbb\xbf{}"],
    "bad_json, deep": [b"[" * 100_000],
    "bad_json, long number": [b'{"text": "x", "n": ' + b"9" * 5000 + b"}"],
    "not_an_object": [b"[]", b'"text"', b"null", b"17", b"true"],
    "bad_utf8": [b'{"text": "\xff"}', b'{"text": "\xc3"}', b'{"text": "\xed\xa0\x80"}'],
    "nul_character": [b'{"text": "a\\u0000b"}', b'{"text": "a\0b"}', b"\0" * 20],
    "lone_surrogate": [b'{"text": "\\ud83d"}', b'{"text": "x", "id": "\\ud83d"}', b'{"text": "x", "lang": "\\udc00"}'],
    "missing_text": [b"{}", b'{"body": "x"}'],
    "null_text": [b'{"text": null}'],
    "nested_text": [b'{"text": {"en": "x"}}', b'{"text": ["x"]}'],
    "non_string_text": [b'{"text": 5}', b'{"text": true}', b'{"text": 1.5}'],
    "empty_text": [b'{"text": ""}', b'{"text": " \\n\\u3000 "}'],
    "bad_id": [b'{"text": "x", "id": [1]}', b'{"text": "x", "id": {}}'],
    "nested_group": [b'{"text": "x", "lang": {}}', b'{"text": "x", "lang": ["en"]}'],
    "blank_line": [b"", b" ", b"\t\r"],
}


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize(("kind", "line"), [(kind, line) for kind, lines in LINES.items() for line in lines])
def test_a_bad_line(tmp_path, suffix, kind, line):
    path = tmp_path / ("a.jsonl" + suffix)
    path.write_bytes(PACK[suffix](GOOD + b"\n" + line + b"\n" + GOOD))
    documents, (reject,) = read(path, group_by=("lang",))
    assert sorted(documents) == [0, 2]
    assert (reject.row_index, reject.window, reject.byte_offset) == (1, None, len(GOOD) + 1)
    assert reject.reason == kind.split(",")[0]
    assert reject.first_bytes == line[:64]


@pytest.mark.parametrize("suffix", PACK)
def test_byte_order_mark(tmp_path, suffix):
    path = tmp_path / ("a.jsonl" + suffix)
    path.write_bytes(PACK[suffix](b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD + b"\n"))
    documents, (reject,) = read(path)
    assert (sorted(documents), reject.row_index, reject.reason) == ([1], 0, "byte_order_mark")


def test_utf16_is_never_guessed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"text": "x"}\n{"text": "y"}\n'.encode("utf-16"))
    documents, rejects = read(path)
    assert documents == {}
    assert [reject.reason for reject in rejects] == ["byte_order_mark", "nul_character", "nul_character"]


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("length", [101, 5000, 3 << 20])
def test_line_too_long(tmp_path, suffix, length):
    long = b'{"text": "' + b"x" * (length - 12) + b'"}'
    path = tmp_path / ("a.jsonl" + suffix)
    path.write_bytes(PACK[suffix](GOOD + b"\n" + long + b"\n" + GOOD + b"\n" + long))
    documents, rejects = read(path, max_line_bytes=100)
    assert sorted(documents) == [0, 2]
    assert documents[2].byte_offset == 17 + length + 1
    assert [(reject.row_index, reject.reason, reject.first_bytes) for reject in rejects] == [
        (1, "line_too_long", long[:64]),
        (3, "line_too_long", long[:64]),
    ]
    assert rejects[0].detail == f"{length} bytes; the cap is 100"


def test_a_line_of_just_the_cap_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD)
    assert read(path, max_line_bytes=len(GOOD))[0]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated_stream(tmp_path, suffix):
    whole = PACK[suffix](GOOD + b"\n") + PACK[suffix](b"".join(b'{"text": "%d"}\n' % i for i in range(1000)))
    path = tmp_path / ("a.jsonl" + suffix)
    path.write_bytes(whole[:-1])
    documents, rejects = read(path)
    assert len(documents) == 1001  # all was there but the end of the trailer: the reject has the next row number
    assert [(reject.row_index, reject.reason) for reject in rejects] == [(1001, "truncated_stream")]
    first = len(PACK[suffix](GOOD + b"\n"))
    assert rejects[0].bytes_lost == len(whole) - 1 - first  # the member without an end; the one before it is whole
    path.write_bytes(whole[: len(PACK[suffix](GOOD + b"\n")) + 40])
    documents, rejects = read(path)
    assert documents[0].content == "good"
    assert [(reject.row_index, reject.reason) for reject in rejects] == [(len(documents), "truncated_stream")]


def test_the_partial_last_line_is_the_reject(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD + b"\n" + GOOD)[:-8])
    documents, (reject,) = read(path)
    assert sorted(documents) == [0]
    assert (reject.row_index, reject.reason, reject.first_bytes) == (1, "truncated_stream", GOOD)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_an_empty_compressed_file_and_half_a_header_are_truncated(tmp_path, suffix):
    for data in [b"", PACK[suffix](GOOD)[:1], PACK[suffix](GOOD)[:3]]:
        path = tmp_path / ("a.jsonl" + suffix)
        path.write_bytes(data)
        documents, (reject,) = read(path)
        assert (documents, reject.row_index, reject.reason) == ({}, 0, "truncated_stream")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_wrong_checksum_costs_one_row(tmp_path, suffix):
    packed = bytearray(PACK[suffix]((GOOD + b"\n") * 5))
    packed[-1 if suffix == ".zst" else -8] ^= 1
    path = tmp_path / ("a.jsonl" + suffix)
    path.write_bytes(packed + PACK[suffix](GOOD))
    documents, (reject,) = read(path)
    assert sorted(documents) == [0, 1, 2, 3, 4]
    assert (reject.row_index, reject.reason) == (5, "corrupt_stream")
    assert reject.detail
    assert 0 < reject.bytes_lost <= path.stat().st_size


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_corruption_keeps_what_came_before_it(tmp_path, suffix):
    first = PACK[suffix]((GOOD + b"\n") * 20_000)
    second = PACK[suffix](b"".join(b'{"text": "%d"}\n' % (i * i) for i in range(20_000)))
    packed = bytearray(first + second)
    packed[len(first) + 20 : len(first) + 60] = b"\xff" * 40
    path = tmp_path / ("a.jsonl" + suffix)
    path.write_bytes(packed)
    documents, rejects = read(path)
    assert len(documents) >= 20_000
    assert rejects[-1].reason == "corrupt_stream"
    assert rejects[-1].row_index == len(documents) + len(rejects) - 1


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_trailing_garbage(tmp_path, suffix):
    path = tmp_path / ("a.jsonl" + suffix)
    path.write_bytes(PACK[suffix](GOOD) + b"garbage")  # the last line has no newline, but its member is whole
    documents, (reject,) = read(path)
    assert sorted(documents) == [0]
    assert (reject.row_index, reject.reason, reject.first_bytes) == (1, "trailing_garbage", b"garbage")


def test_zeros_after_gzip_are_padding(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(PACK[".gz"](GOOD) + bytes(10_000))
    assert read(path)[1] == []
    path.write_bytes(PACK[".gz"](GOOD) + bytes(10_000) + b"x")
    assert [reject.reason for reject in read(path)[1]] == ["trailing_garbage"]


def test_members_frames_and_skippable_frames_are_one_stream(tmp_path):
    skippable = b"\x5a\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    zstd, gz = PACK[".zst"], PACK[".gz"]
    for suffix, data in {
        ".zst": skippable + zstd(GOOD + b"\n" + GOOD[:5]) + skippable + zstd(b"") + zstd(GOOD[5:]) + skippable,
        ".gz": gz(GOOD + b"\n" + GOOD[:5]) + gz(b"") + gz(GOOD[5:]),
    }.items():
        path = tmp_path / ("a.jsonl" + suffix)
        path.write_bytes(data)
        documents, rejects = read(path)
        assert ([document.content for document in documents.values()], rejects) == (["good", "good"], [])


def test_zstd_with_a_window_of_512_mib(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=29)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()  # size unknown: keeps the window
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(compressor.compress(GOOD) + compressor.flush())
    documents, rejects = read(path)
    assert (len(documents), rejects) == (1, [])


def parquet_bytes(tmp_path):
    path = tmp_path / "source.parquet"
    pq.write_table(pa.table({"text": ["good"]}), path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".jsonl", "gzip"),
        (".jsonl", "zstd"),
        (".jsonl", "parquet"),
        (".jsonl.gz", "plain"),
        (".jsonl.gz", "zstd"),
        (".jsonl.zst", "plain"),
        (".jsonl.zst", "gzip"),
        (".parquet", "plain"),
        (".parquet", "gzip"),
    ],
)
def test_a_suffix_that_lies_is_one_reject(tmp_path, suffix, content):
    lines = (GOOD + b"\n") * 50
    data = {
        "plain": lines,
        "gzip": PACK[".gz"](lines),
        "zstd": PACK[".zst"](lines),
        "parquet": parquet_bytes(tmp_path),
    }[content]
    path = tmp_path / ("a" + suffix)
    path.write_bytes(data)
    documents, (reject,) = read(path, block_bytes=16)
    assert (documents, reject.row_index, reject.reason) == ({}, 0, "wrong_format")
    assert reject.first_bytes == data[:64]


def test_empty_plain_and_empty_members_have_no_rows(tmp_path):
    for suffix, pack in PACK.items():
        path = tmp_path / ("a.jsonl" + suffix)
        path.write_bytes(pack(b""))
        assert read(path) == ({}, [])


def test_a_plain_file_that_changed_is_an_error_not_a_reject(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b"\n" + GOOD)
    shard = inventory(0, str(path), path.name, path.stat().st_size, 1 << 20)
    path.write_bytes(GOOD + b"x" + GOOD)
    with pytest.raises(OSError, match=r"a\.jsonl: has changed since it was listed \(block 0 had 2 rows\)"):
        read_block(shard, shard.blocks[0], ReadOptions())
    path.write_bytes(GOOD)
    with pytest.raises(OSError, match="16 bytes now, 33 then"):
        read_block(shard, shard.blocks[0], ReadOptions())


def test_ids_and_groups(tmp_path):
    rows = [
        {"id": 7, "meta": {"lang": "de", "year": 2020}, "meta.year": 1.5, "ok": True},
        {"id": "7", "meta": {"lang": None}},
        {"id": 1.5, "meta": "flat", "ok": "yes"},
        {"id": None},
        {"id": True, "meta": {"year": {}}},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": "x", **row}) for row in rows))
    documents, (reject,) = read(path, group_by=("meta.lang", "meta.year", "ok"))
    assert {row: document.doc_id for row, document in documents.items()} == {0: "7", 1: "7", 2: "1.5", 3: None}
    assert [document.groups for document in documents.values()] == [
        ("de", "1.5", "true"),
        (None, None, None),
        (None, None, "yes"),
        (None, None, None),
    ]
    assert (reject.reason, reject.detail) == ("nested_group", "meta.year is an object")


def test_bombs_are_read_in_bounded_pieces(tmp_path):
    for suffix in [".gz", ".zst"]:
        path = tmp_path / ("a.jsonl" + suffix)
        path.write_bytes(PACK[suffix](b" " * (64 << 20)))
        with open(path, "rb") as handle:
            sizes = [len(piece) for piece in streams.decompress(handle, {".gz": "gzip", ".zst": "zstd"}[suffix])]
        assert sum(sizes) == 64 << 20
        assert max(sizes) <= 128 << 20
        assert [reject.reason for reject in read(path, max_line_bytes=1000)[1]] == ["line_too_long"]


def test_every_reason_is_explained_and_every_explained_one_is_given():
    source = "".join(path.read_text() for path in Path(streams.__file__).parent.rglob("*.py"))
    given = set(re.findall(r'Damage\(\s*"(\w+)"', source)) | set(re.findall(r'_scalar\(.*"(\w+)"\)', source))
    assert given == set(REASONS)
