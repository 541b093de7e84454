"""Generated files, whole and damaged, in every format: the counts add up and no row moves, however blocks are cut."""

import gzip
import json
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cptsel.pipeline.corpus.documents import REASONS, ReadOptions, read_block, read_stream, read_texts
from cptsel.pipeline.corpus.shards import inventory

CAP = 200
SUFFIX = {"none": ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}
quick = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
good_texts = texts.filter(lambda text: not text.isspace())


@st.composite
def good_lines(draw):
    """(line, text): any JSON form of a record with a text."""
    text = draw(good_texts)
    record = {"text": text, "id": draw(st.one_of(st.none(), st.integers(), texts))}
    line = json.dumps(record, ensure_ascii=draw(st.booleans())).encode()
    return draw(st.sampled_from([b"", b" ", b"\t"])) + line + draw(st.sampled_from([b"", b"\r", b"  "])), text


BAD_LINES = [
    (b"", "blank_line"),
    (b" \r", "blank_line"),
    (b"{", "bad_json"),
    (b"[1]", "not_an_object"),
    (b'{"text": "\xff"}', "bad_utf8"),
    (b'{"text": "\\ud800"}', "lone_surrogate"),
    (b"\0\0", "nul_character"),
    (b'{"text": null}', "null_text"),
    (b'{"body": "x"}', "missing_text"),
    (b'{"text": {}}', "nested_text"),
    (b'{"text": 1}', "non_string_text"),
    (b'{"text": "  "}', "empty_text"),
    (b'{"text": "x", "id": []}', "bad_id"),
    (b'{"text": "' + b"x" * CAP + b'"}', "line_too_long"),
]
lines = st.lists(
    st.one_of(
        good_lines().filter(lambda row: len(row[0]) <= CAP).map(lambda row: (row[0], row[1], None)),
        st.sampled_from(BAD_LINES).map(lambda row: (row[0], None, row[1])),
    ),
    max_size=25,
)


@st.composite
def packed(draw, data: bytes, compression: str):
    """The bytes in one or more gzip members or zstd frames."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    parts = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    if compression == "gzip":
        return b"".join(gzip.compress(part, mtime=0) for part in parts)
    compressor = zstandard.ZstdCompressor(write_checksum=draw(st.booleans()))
    skippable = b"\x50\x2a\x4d\x18\x01\0\0\0x" if draw(st.booleans()) else b""
    return skippable.join(compressor.compress(part) for part in parts)


def read(path, options):
    """(blocks of the inventory, DocumentBlocks), after checks that hold for every file."""
    shard = inventory(5, str(path), path.name, path.stat().st_size, options.block_bytes)
    if shard.blocks is None:
        blocks = list(read_stream(shard, options))
    else:
        backwards = [read_block(shard, block, options) for block in reversed(shard.blocks)]
        blocks = backwards[::-1]
        first_row = 0
        for before, block in zip((None, *shard.blocks), shard.blocks, strict=False):
            cut = before is not None and block.start == before.end - 1  # a row group that is several blocks
            assert cut or block.start == (before.end if before else 0)
            assert not cut or shard.format == "parquet"
            assert block.first_row == first_row
            first_row += block.rows
        assert shard.format == "parquet" or shard.blocks[-1].end == shard.bytes
    assert [block.block for block in blocks] == list(range(len(blocks)))
    assert [block.last for block in blocks] == [False] * (len(blocks) - 1) + [True]
    row = 0
    for block in blocks:
        assert block.shard_id == 5
        assert block.rows_read == len(block.documents) + len(block.rejects)
        found = sorted([document.row_index for document in block.documents] + [r.row_index for r in block.rejects])
        assert found == list(range(row, row + block.rows_read))
        row += block.rows_read
        assert all(reject.reason in REASONS and reject.window is None for reject in block.rejects)
        assert all(len(reject.first_bytes) <= 64 for reject in block.rejects)
    return shard.blocks, blocks


def outcome(blocks):
    """What was read, without the blocks: {row: text or reason}."""
    found = {document.row_index: ("text", document.content) for block in blocks for document in block.documents}
    found.update({reject.row_index: ("reject", reject.reason) for block in blocks for reject in block.rejects})
    return dict(sorted(found.items()))


@pytest.mark.parametrize("compression", SUFFIX)
@quick
@given(data=st.data())
def test_lines(tmp_path, compression, data):
    rows = data.draw(lines)
    content = b"".join(line + b"\n" for line, _, _ in rows)
    if rows and rows[-1][0] and data.draw(st.booleans()):
        content = content[:-1]  # a last line without a newline is a row all the same
    path = tmp_path / ("a" + SUFFIX[compression])
    path.write_bytes(content if compression == "none" else data.draw(packed(content, compression)))
    limit = data.draw(st.none() | st.integers(1, 30))
    options = ReadOptions(max_line_bytes=CAP, block_bytes=data.draw(st.integers(1, 600)), limit=limit)
    planned, blocks = read(path, options)

    expected = {row: ("text", text) if text else ("reject", why) for row, (_, text, why) in enumerate(rows[:limit])}
    assert outcome(blocks) == expected
    if planned is not None:
        assert sum(block.rows for block in planned) == len(rows)
    documents = [document for block in blocks for document in block.documents]
    for document in documents:
        line = content[document.byte_offset : document.byte_offset + document.byte_length]
        assert line == rows[document.row_index][0]
    wanted = [(document.row_index, document.byte_offset, document.byte_length) for document in documents]
    found = list(read_texts(str(path), "jsonl", compression, "text", wanted))
    assert found == [(document.row_index, document.content) for document in documents]


def naive_prefix(data: bytes, compression: str) -> tuple[bytes, bool]:
    """All that can be decompressed before the first damage, fed byte by byte; and whether there was none."""
    magics = (b"\x1f\x8b",)
    if compression == "zstd":
        magics = (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + nibble]) + b"\x2a\x4d\x18" for nibble in range(16)))

    def new_decoder():
        if compression == "gzip":
            return zlib.decompressobj(31)
        return zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()

    out, at = b"", 0
    while data[at:].startswith(magics):
        start, decoder = at, new_decoder()
        while at < len(data) and not decoder.eof:
            try:
                out += decoder.decompress(data[at : at + 1])
            except (zlib.error, zstandard.ZstdError):
                return out, False
            at += 1
        if not decoder.eof:
            return out, False
        try:  # byte by byte, libzstd overlooks a wrong content size that it finds in one piece
            new_decoder().decompress(data[start:at])
        except (zlib.error, zstandard.ZstdError):
            return out, False
    return out, at > 0 and not (data[at:] if compression == "zstd" else any(data[at:]))


def naive_text(line: bytes) -> str | None:
    """The text of a line, None where it has none that can be used."""
    try:
        text = json.loads(line.decode())["text"]
        text.encode()
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return text if text.strip() and "\0" not in text else None


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@quick
@given(data=st.data())
def test_damaged_streams(tmp_path, compression, data):
    rows = data.draw(st.lists(good_lines(), max_size=25))
    content = b"".join(line + b"\n" for line, _ in rows)
    whole = data.draw(packed(content, compression))
    at = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["cut", "flip", "overwrite", "append"]))
    damaged = {
        "cut": whole[:at],
        "flip": whole[:at] + bytes([whole[at] ^ (1 << data.draw(st.integers(0, 7)))]) + whole[at + 1 :],
        "overwrite": whole[:at] + data.draw(st.binary(max_size=30)),
        "append": whole + data.draw(st.binary(min_size=1, max_size=30)),
    }[kind]
    path = tmp_path / ("a" + SUFFIX[compression])
    path.write_bytes(damaged)
    results = [
        outcome(read(path, ReadOptions(id_field=None, block_bytes=block_bytes))[1])
        for block_bytes in (1, data.draw(st.integers(1, 600)), 1 << 20)
    ]
    assert results[0] == results[1] == results[2]
    result = list(results[0].values())
    damage = {"truncated_stream", "corrupt_stream", "trailing_garbage", "wrong_format"}
    last = result.pop()[1] if result and result[-1][1] in damage else None
    prefix, clean = naive_prefix(damaged, compression)
    *expected, unfinished = prefix.split(b"\n")
    if unfinished and last in {None, "trailing_garbage"}:
        expected.append(unfinished)
    assert [value if what == "text" else None for what, value in result] == [naive_text(line) for line in expected]
    assert clean or last is not None
    if kind in {"cut", "append"}:  # fed byte by byte, zstd overlooks a wrong content size before an empty last block
        assert last is None or not clean


@quick
@given(
    rows=st.lists(st.one_of(st.none(), texts), max_size=30),
    group_size=st.integers(1, 10),
    block_bytes=st.integers(1, 2000),
    limit=st.none() | st.integers(1, 30),
)
def test_parquet(tmp_path, rows, group_size, block_bytes, limit):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array(rows, pa.string())}), path, row_group_size=group_size)
    planned, blocks = read(path, ReadOptions(block_bytes=block_bytes, limit=limit))
    expected = {}
    for row, text in enumerate(rows[:limit]):
        if text is None:
            expected[row] = ("reject", "null_text")
        else:
            expected[row] = ("reject", "empty_text") if text.isspace() else ("text", text)
    assert outcome(blocks) == expected
    assert sum(block.rows for block in planned) == len(rows)
    wanted = [row for row, (what, _) in expected.items() if what == "text"]
    found = list(read_texts(str(path), "parquet", "none", "text", [(row, None, None) for row in wanted]))
    assert found == [(row, rows[row]) for row in wanted]


@quick
@given(data=st.data())
def test_damaged_parquet(tmp_path, data):
    path = tmp_path / "a.parquet"
    rows = [f"text {row}" * 3 for row in range(data.draw(st.integers(1, 20)))]
    group_size = data.draw(st.integers(1, 8))
    pq.write_table(pa.table({"text": rows}), path, row_group_size=group_size, write_page_checksum=True)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    patch = data.draw(st.binary(min_size=1, max_size=8))
    cut = data.draw(st.booleans())
    path.write_bytes(whole[:at] if cut else (whole[:at] + patch + whole[at + len(patch) :])[: len(whole)])
    results = [read(path, ReadOptions(id_field=None, block_bytes=block_bytes)) for block_bytes in (1, 1 << 20)]
    assert outcome(results[0][1]) == outcome(results[1][1])
    for planned, blocks in results:
        assert sum(block.rows for block in planned) == sum(block.rows_read for block in blocks)
    if cut:
        assert list(outcome(results[0][1]).values()) == [("reject", "unreadable_parquet")]
