"""Parquet: types of columns, damage to values, row groups and footers."""

import datetime
import decimal
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cptsel.pipeline.corpus.documents import ReadOptions, read_block, read_texts
from cptsel.pipeline.corpus.formats.parquet import ParquetShard
from cptsel.pipeline.corpus.shards import inventory
from cptsel.pipeline.errors import BadInputError

STRING = pa.string()


def read(path, **options):
    """All blocks of a file: ([Document], [Reject])."""
    settings = ReadOptions(**options)
    shard = inventory(0, str(path), path.name, path.stat().st_size, settings.block_bytes)
    blocks = [read_block(shard, block, settings) for block in shard.blocks]
    for block, read_rows in zip(shard.blocks, blocks, strict=True):
        assert read_rows.rows_read == len(read_rows.documents) + len(read_rows.rejects)
        assert options.get("limit") is not None or read_rows.rows_read == block.rows
    return [d for block in blocks for d in block.documents], [r for block in blocks for r in block.rejects]


def broken_strings(values: list[bytes | None], type: pa.DataType = STRING) -> pa.Array:
    """A string column with bytes that are not UTF-8, as careless writers make them."""
    array = pa.array(values, pa.large_binary() if pa.types.is_large_string(type) else pa.binary())
    return pa.Array.from_buffers(type, len(array), array.buffers(), array.null_count)


@pytest.mark.parametrize(
    "type",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.binary(),
        pa.large_binary(),
    ],
    ids=str,
)
def test_every_kind_of_string_is_text(tmp_path, type):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array(["one", None, "größe", ""], pa.string()).cast(type)}), path)
    documents, rejects = read(path)
    assert [(d.row_index, d.content, d.byte_offset, d.byte_length) for d in documents] == [
        (0, "one", None, None),
        (2, "größe", None, None),
    ]
    assert [(r.row_index, r.reason, r.byte_offset) for r in rejects] == [
        (1, "null_text", None),
        (3, "empty_text", None),
    ]


@pytest.mark.parametrize(
    ("array", "reason", "first_bytes"),
    [
        (pa.array([b"ab\xff"]), "bad_utf8", b"ab\xff"),
        (pa.array([b"ab\xffc"], pa.large_binary()), "bad_utf8", b"ab\xffc"),
        (pa.array([b"a\0b"]), "nul_character", b"a\0b"),
        (pa.array([7]), "non_string_text", b""),
        (pa.array([True]), "non_string_text", b""),
        (pa.array([["a"]]), "nested_text", b""),
        (pa.array([{"en": "a"}]), "nested_text", b""),
        (pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string())), "nested_text", b""),
        (pa.nulls(1), "null_text", b""),
        (pa.array(["a\0b"]), "nul_character", b"a\0b"),
        (pa.array([" \n"]), "empty_text", b" \n"),
        (broken_strings([b"ab\xffc"]), "bad_utf8", b"ab\xffc"),
    ],
    ids=str,
)
def test_a_bad_text(tmp_path, array, reason, first_bytes):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": array}), path)
    documents, (reject,) = read(path)
    assert (documents, reject.reason, reject.first_bytes) == ([], reason, first_bytes)


@pytest.mark.parametrize("type", [pa.string(), pa.large_string()], ids=str)
def test_bad_utf8_costs_its_own_row_only(tmp_path, type):
    path = tmp_path / "a.parquet"
    texts = broken_strings([b"one", b"\xc3(", None, "größe".encode()], type)
    pq.write_table(pa.table({"text": texts, "lang": broken_strings([b"\xff", b"de", b"de", b"de"])}), path)
    documents, rejects = read(path)
    assert [d.content for d in documents] == ["one", "größe"]
    assert [(r.row_index, r.reason) for r in rejects] == [(1, "bad_utf8"), (2, "null_text")]
    documents, rejects = read(path, group_by=("lang",))
    assert [d.groups for d in documents] == [("de",)]
    assert [(r.row_index, r.reason) for r in rejects] == [(0, "bad_utf8"), (1, "bad_utf8"), (2, "null_text")]


def test_no_text_column(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x", "y"]}), path)
    documents, rejects = read(path)
    assert (documents, [(r.row_index, r.reason) for r in rejects]) == ([], [(0, "missing_text"), (1, "missing_text")])


def test_ids_and_groups(tmp_path):
    path = tmp_path / "a.parquet"
    meta = [{"lang": "de", "tags": ["a"], "at": datetime.datetime(2020, 1, 2)}] * 2
    columns = {
        "text": ["x", "y"],
        "id": [7, 8],
        "meta": meta,
        "meta.lang": ["en", None],
        "day": pa.array([datetime.date(2020, 1, 2), None]),
        "far": pa.array([2**60, 0], pa.timestamp("ms")),  # beyond Python's dates
        "ok": [True, False],
        "price": [decimal.Decimal("1.50"), None],
        "code": [b"abc", None],
    }
    pq.write_table(pa.table(columns), path)
    names = ("meta.lang", "meta.none", "day", "ok", "price", "code")
    documents, rejects = read(path, group_by=names)
    assert rejects == []
    assert [(d.doc_id, d.groups) for d in documents] == [
        ("7", ("en", None, "2020-01-02", "true", "1.50", "abc")),
        ("8", (None, None, None, "false", None, None)),
    ]
    documents, rejects = read(path, group_by=("far", "meta.at"))
    assert rejects == []
    assert [d.groups[1] for d in documents] == ["2020-01-02 00:00:00"] * 2
    assert documents[1].groups[0] == "1970-01-01 00:00:00.000"
    _, rejects = read(path, group_by=("meta",))
    assert {(r.reason, r.detail) for r in rejects} == {("nested_group", "meta is an object")}
    _, rejects = read(path, group_by=("meta.tags",))
    assert {(r.reason, r.detail) for r in rejects} == {("nested_group", "meta.tags is a list")}
    _, rejects = read(path, id_field="meta")
    assert {r.reason for r in rejects} == {"bad_id"}


def test_a_value_without_text_form(tmp_path):
    path = tmp_path / "a.parquet"
    meta = pa.StructArray.from_arrays([pa.array([2**60, 0], pa.timestamp("ms"))], ["at"])
    pq.write_table(pa.table({"text": ["x", "y"], "meta": meta}), path)
    documents, rejects = read(path, group_by=("meta.at",))
    assert [(d.row_index, d.groups) for d in documents] == [(1, ("1970-01-01 00:00:00",))]
    assert [(r.row_index, r.reason) for r in rejects] == [(0, "unreadable_value")]


def test_nested_text_by_its_dots(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"meta": [{"body": "x"}, {"body": None}, None], "other": [1, 2, 3]}), path)
    documents, rejects = read(path, text_field="meta.body")
    assert [d.content for d in documents] == ["x"]
    assert [r.reason for r in rejects] == ["null_text", "missing_text"]
    assert list(read_texts(str(path), "parquet", "none", "meta.body", [(0, None, None)])) == [(0, "x")]


def test_no_rows(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert read(path) == ([], [])


@pytest.mark.parametrize("keep", [0, 3, 4, 8, 100, -1, -8])
def test_a_truncated_file_is_one_reject(tmp_path, keep):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["x" * 500, "y"]}), path)
    data = path.read_bytes()[:keep]
    path.write_bytes(data)
    documents, (reject,) = read(path)
    assert (documents, reject.row_index, reject.reason) == ([], 0, "unreadable_parquet")
    assert reject.first_bytes == data[:64]
    assert read(path, limit=0) == ([], [])


def test_a_damaged_row_group_makes_each_of_its_rows_a_reject(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"text {i}" * 50 for i in range(6)]}), path, row_group_size=2, compression="zstd")
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    documents, rejects = read(path, block_bytes=1 << 30)
    assert [d.row_index for d in documents] == [0, 1, 4, 5]
    assert [(r.row_index, r.reason) for r in rejects] == [(2, "unreadable_row_group"), (3, "unreadable_row_group")]
    assert rejects[0].detail.startswith("row group 1: ")
    assert [d.row_index for d in read(path, limit=3, block_bytes=1)[0]] == [0, 1]
    assert [r.row_index for r in read(path, limit=3, block_bytes=1)[1]] == [2]
    good = [(4, None, None)]
    assert list(read_texts(str(path), "parquet", "none", "text", good)) == [(4, "text 4" * 50)]
    with pytest.raises(BadInputError, match=r"a\.parquet: row 3 can't be read \(unreadable_row_group"):
        list(read_texts(str(path), "parquet", "none", "text", [(3, None, None)]))


def test_a_large_row_group_is_read_in_batches(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [str(i) for i in range(5000)]}), path)
    documents, rejects = read(path)
    assert [(d.row_index, d.content) for d in documents] == [(i, str(i)) for i in range(5000)]
    assert rejects == []


def test_a_failing_filesystem_is_an_error_not_damage(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [str(i) * 100 for i in range(1000)]}), path)

    class Failing(io.BytesIO):
        broken = False

        def read(self, size: int | None = -1) -> bytes:
            if self.broken:
                raise OSError("connection reset")  # no errno, as remote filesystems raise them
            return super().read(size)

    handle = Failing(path.read_bytes())
    parquet = ParquetShard(handle)
    handle.broken = True
    with pytest.raises(OSError, match="connection reset"):
        list(parquet.records(0, ["text"], 1 << 20))
    with pytest.raises(OSError, match="connection reset"):
        ParquetShard(handle)


def test_a_file_that_changed_is_an_error(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b"]}), path)
    shard = inventory(0, str(path), path.name, path.stat().st_size, 1)
    data = path.read_bytes()
    path.write_bytes(data[:-4] + b"XXXX")
    with pytest.raises(OSError, match="has changed since it was listed"):
        read_block(shard, shard.blocks[0], ReadOptions())
