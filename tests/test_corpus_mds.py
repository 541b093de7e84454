"""MDS shards: whole, compressed, in blocks of any size, of a pool, and in every way in which they may be damaged."""

import json
import random
import struct

import pytest
from corpus_builders import PACK, mds_bytes, read_corpus

from cptsel.cli.main import main
from cptsel.pipeline.corpus.documents import read_texts
from cptsel.pipeline.corpus.formats import mds as mds_format
from cptsel.pipeline.corpus.formats.registry import file_format
from cptsel.pipeline.corpus.path_groups import stem_of
from cptsel.pipeline.corpus.pool import Pool, Range
from cptsel.pipeline.errors import BadInputError

COLUMNS = [("id", "str", None), ("meta", "json", None), ("number", "int64", 8), ("text", "str", None)]
ROWS = [
    {"id": f"d{i}", "meta": {"lang": "ab"[i % 2]}, "number": i, "text": f"rów {i} " * (i % 7 + 1)} for i in range(250)
]


def encoded(row):
    number = struct.pack("<q", row["number"])
    return [row["id"].encode(), json.dumps(row["meta"]).encode(), number, row["text"].encode()]


WHOLE = mds_bytes([encoded(row) for row in ROWS], COLUMNS)


def write(path, data=WHOLE):
    path.write_bytes(PACK[path.suffix](data))
    return path


def read(path, **options):
    return read_corpus(path, **{"group_by": ("meta.lang", "number"), **options})


def found(documents):
    return [(d.row_index, d.doc_id, d.content, d.groups) for d in documents]


def expected(rows=None):
    rows = range(len(ROWS)) if rows is None else rows
    return [(i, ROWS[i]["id"], ROWS[i]["text"], (ROWS[i]["meta"]["lang"], str(i))) for i in rows]


@pytest.mark.parametrize("name", ["a.mds", "a.mds.gz", "a.mds.zst", "a.mds.zstd"])
@pytest.mark.parametrize("block_bytes", [1, 500, 8 << 20])
def test_what_is_written_is_read(tmp_path, name, block_bytes):
    path = write(tmp_path / name)
    documents, rejects, _ = read(path, block_bytes=block_bytes)
    assert (found(documents), rejects) == (expected(), [])
    assert found(read(path, block_bytes=block_bytes, limit=50)[0]) == expected(range(50))
    assert stem_of(name) == "a"
    assert file_format(name)[0] == "mds"


@pytest.mark.parametrize("name", ["a.mds", "a.mds.zstd"])
def test_samples_outside_the_pool_are_not_decoded(tmp_path, name, monkeypatch):
    path, pool = write(tmp_path / name), Pool(1, Range(0.0, 0.1))
    decoded, real = [], mds_format._decoded
    monkeypatch.setattr(mds_format, "_decoded", lambda *args: decoded.append(args) or real(*args))
    documents, _, not_drawn = read(path, pool=pool, group_by=(), id_field=None)
    drawn = [i for i in range(len(ROWS)) if pool.place(name, i, None) is not None]
    assert [d.row_index for d in documents] == drawn
    assert (not_drawn, len(set(decoded))) == (len(ROWS) - len(drawn), len(drawn))


@pytest.mark.parametrize(("name", "compression"), [("a.mds", "none"), ("a.mds.zst", "zstd")])
def test_texts_are_read_again(tmp_path, name, compression):
    path = write(tmp_path / name)
    rows = [(3, None, None), (3, None, None), (41, None, None), (249, None, None)]
    assert list(read_texts(str(path), "mds", compression, "text", rows)) == [(i, ROWS[i]["text"]) for i, _, _ in rows]
    with pytest.raises(BadInputError, match=r"row 250 can't be read \(the file has only 250 rows\)"):
        list(read_texts(str(path), "mds", compression, "text", [(250, None, None)]))


@pytest.mark.parametrize("size", [0, 3, 4, 900, 1100, 2000, len(WHOLE) // 2, len(WHOLE) - 1])
@pytest.mark.parametrize("name", ["a.mds", "a.mds.zst"])
def test_a_truncated_shard_keeps_what_is_there(tmp_path, name, size):
    """Every lost sample is a reject, as the table counts them, and one more row says that the file breaks off."""
    path = write(tmp_path / name, WHOLE[:size])
    documents, rejects, _ = read(path)
    assert found(documents) == expected(range(len(documents)))
    if size <= 1100:  # inside the header
        assert [(r.row_index, r.reason, r.bytes_lost) for r in rejects] == [(0, "unreadable_mds", path.stat().st_size)]
        return
    assert [r.row_index for r in rejects] == list(range(len(documents), 251))
    assert {r.reason for r in rejects[:-1]} == {"unreadable_sample"}
    assert rejects[-1].reason == "truncated_stream"
    _, rejects, _ = read(path, pool=Pool(0, Range(0.0, 1e-9)))
    assert [(r.row_index, r.reason) for r in rejects] == [(250, "truncated_stream")]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_shard_that_breaks_off_keeps_what_comes_before(tmp_path, suffix):
    noise = random.Random(0)
    rows = [{**ROWS[0], "text": "".join(map(chr, noise.choices(range(97, 123), k=900)))} for _ in range(900)]
    packed = PACK[suffix](mds_bytes([encoded(row) for row in rows], COLUMNS))
    path = tmp_path / f"a.mds{suffix}"
    path.write_bytes(packed[: len(packed) // 2])
    documents, rejects, _ = read(path)
    assert [r.row_index for r in rejects] == list(range(len(documents), 901))
    assert 0 < len(documents) < 900
    assert [r.reason for r in rejects] == ["unreadable_sample"] * (len(rejects) - 1) + ["truncated_stream"]
    assert rejects[-1].bytes_lost == len(packed) // 2
    path.write_bytes(packed[:-1])  # all that is missing is the end of a checksum
    documents, (reject,), _ = read(path)
    assert (len(documents), reject.row_index, reject.reason) == (900, 900, "truncated_stream")
    _, (reject,), _ = read(path, pool=Pool(0, Range(0.0, 1e-9)))
    assert reject.reason == "truncated_stream"


@pytest.mark.parametrize("name", ["a.mds", "a.mds.zst"])
@pytest.mark.parametrize("lie", [0, 5, 1 << 31, -3, 3])
def test_an_offset_that_lies_costs_the_samples_that_it_parts(tmp_path, name, lie):
    data = bytearray(WHOLE)
    (true,) = struct.unpack_from("<I", data, 4 + 4 * 100)
    struct.pack_into("<I", data, 4 + 4 * 100, lie if lie in (0, 1 << 31) else true + lie)
    documents, rejects, _ = read(write(tmp_path / name, bytes(data)))
    assert found(documents) == expected([i for i in range(250) if i not in (99, 100)])
    assert [(r.row_index, r.reason) for r in rejects] == [(99, "unreadable_sample"), (100, "unreadable_sample")]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_an_offset_that_points_back_past_what_a_stream_keeps(tmp_path, suffix):
    noise = random.Random(0)
    texts = ["".join(map(chr, noise.choices(range(97, 123), k=5000))) for _ in range(400)]
    data = bytearray(mds_bytes([[text.encode()] for text in texts], [("text", "str", None)]))
    struct.pack_into("<I", data, 4 + 4 * 300, struct.unpack_from("<I", data, 4 + 4 * 2)[0])
    path = write(tmp_path / f"a.mds{suffix}", bytes(data))
    documents, rejects, _ = read_corpus(path)
    assert [d.content for d in documents] == [text for i, text in enumerate(texts) if i not in (299, 300)]
    assert [(r.row_index, r.reason) for r in rejects] == [(299, "unreadable_sample"), (300, "unreadable_sample")]


@pytest.mark.parametrize("suffix", ["", ".zst"])
def test_samples_of_no_bytes(tmp_path, suffix):
    data = mds_bytes([[b""]] * 5, [("text", "str", 0)])
    documents, rejects, _ = read_corpus(write(tmp_path / f"a.mds{suffix}", data))
    assert (documents, [r.reason for r in rejects]) == ([], ["empty_text"] * 5)


@pytest.mark.parametrize("size", ["Infinity", "1.5", "-1", '"8"', "[]", "1" + "0" * 30])
def test_columns_that_are_none(tmp_path, size):
    data = mds_bytes([[b"text"]], [("text", "str", None)])
    named = data.replace(b'"column_sizes": [null]', f'"column_sizes": [{size}]'.encode())
    shift = len(named) - len(data)
    offsets = [offset + shift for offset in struct.unpack_from("<2I", data, 4)]
    named = named[:4] + struct.pack("<2I", *offsets) + named[12:]
    documents, (reject,), _ = read_corpus(write(tmp_path / "a.mds", named))
    assert (documents, reject.reason) == ([], "unreadable_sample" if len(size) > 9 else "unreadable_mds")


@pytest.mark.parametrize("name", ["a.mds", "a.mds.zst"])
def test_bytes_behind_the_last_sample_are_told(tmp_path, name):
    documents, (reject,), _ = read(write(tmp_path / name, WHOLE + b"more"))
    assert found(documents) == expected()
    assert (reject.row_index, reject.reason, reject.bytes_lost) == (250, "trailing_garbage", 4)


@pytest.mark.parametrize(
    ("encoding", "values", "reasons"),
    [
        ("str", [b"b\xffd", b"\xed\xa0\x80"], ["bad_utf8"] * 2),
        ("bytes", [b"b\xffd", b""], ["bad_utf8", "empty_text"]),
        ("int64", [bytes(8)], ["non_string_text"]),
        ("float32", [bytes(4), bytes(3)], ["non_string_text", "unreadable_value"]),
        ("str_int", [b"7", b"x"], ["non_string_text", "unreadable_value"]),
        ("json", [b"null", b"[1]", b"{", b"[" * 100_000], ["null_text", "nested_text", *["unreadable_value"] * 2]),
        ("pkl", [b"cos\nsystem\n(S'true'\ntR."], ["unreadable_value"]),
        ("ndarray:int32:4", [bytes(16)], ["unreadable_value"]),
    ],
)
def test_values_that_are_no_text(tmp_path, encoding, values, reasons):
    path = write(tmp_path / "a.mds", mds_bytes([[value] for value in values], [("text", encoding, None)]))
    documents, rejects, _ = read(path)
    assert (documents, [r.reason for r in rejects]) == ([], reasons)


def test_columns_that_are_not_there_and_texts_over_the_cap(tmp_path):
    path = write(tmp_path / "a.mds")
    assert {r.reason for r in read(path, text_field="body")[1]} == {"missing_text"}
    rejects = read(path, max_line_bytes=20)[1]
    assert {(r.row_index, r.reason) for r in rejects} == {
        (i, "document_too_long") for i, row in enumerate(ROWS) if len(row["text"].encode()) > 20
    }
    assert [d.content for d in read(path, text_field="meta.lang")[0][:3]] == ["a", "b", "a"]


@pytest.mark.parametrize(
    "data", [b"{}" * 30, PACK[".gz"](WHOLE), b"PAR1" * 9, bytes(60), WHOLE.replace(b"mds", b"xyz")]
)
def test_what_is_no_shard_is_one_reject(tmp_path, data):
    (tmp_path / "a.mds").write_bytes(data)
    documents, (reject,), _ = read(tmp_path / "a.mds")
    assert (documents, reject.row_index, reject.bytes_lost) == ([], 0, len(data))
    assert reject.reason in ("unreadable_mds", "wrong_format")


def test_flipped_bits_never_lose_a_row_in_silence(tmp_path):
    """And a compressed shard is read like the same shard without compression."""
    rng, few = random.Random(0), mds_bytes([encoded(row) for row in ROWS[:60]], COLUMNS)
    for _ in range(300):
        data = bytearray(few)
        data[rng.randrange(len(data) if rng.random() < 0.5 else 600)] ^= 1 << rng.randrange(8)
        documents, rejects, _ = read(write(tmp_path / "a.mds", bytes(data)))
        indices = sorted([d.row_index for d in documents] + [r.row_index for r in rejects])
        assert indices == list(range(len(indices)))
        assert len(indices) >= 60 or [r.reason for r in rejects] == ["unreadable_mds"]
        stream = read(write(tmp_path / "a.mds.zst", bytes(data)))
        assert found(stream[0]) == found(documents)
        assert [(r.row_index, r.reason) for r in stream[1]] == [(r.row_index, r.reason) for r in rejects]


def test_shards_go_all_the_way_and_what_export_writes_is_embedded(tiny_lm, tmp_path, capsys):
    rows = [{**ROWS[i], "text": f"Weights and measures of sample {i}. " * 4} for i in range(24)]
    (tmp_path / "old").mkdir()
    write(tmp_path / "old" / "shard.00000.mds", mds_bytes([encoded(row) for row in rows[:12]], COLUMNS))
    packed = mds_bytes([encoded(row) for row in rows[12:]], COLUMNS)
    (tmp_path / "old" / "shard.00001.mds.zstd").write_bytes(PACK[".zstd"](packed))
    run, replay, out = (str(tmp_path / name) for name in ("run", "replay", "out"))
    options = ["--model", str(tiny_lm), "--max-tokens", "64"]
    assert main(["embed", f"{tmp_path}/old/*", "--group-by", "meta.lang", *options, "--out", run]) == 0
    assert main(["select", run, "--method", "uniform", "--budget", "50%", "--out", replay]) == 0
    assert main(["verify", replay, "--sources"]) == 0
    assert main(["export", replay, "--to", "mds", "--out", out]) == 0
    capsys.readouterr()
    (path,) = (tmp_path / "out" / "data").glob("*.mds")
    documents, rejects, _ = read_corpus(path, id_field="sample_id", group_by=("group", "repeat"))
    assert rejects == []
    assert {d.content for d in documents} <= {row["text"] for row in rows}
    assert {d.groups for d in documents} == {("all", "1")}
    assert len(documents) == 12
