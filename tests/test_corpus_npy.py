"""Flat arrays of ids, with a header of numpy and without: read whole and in blocks, and damaged."""

import csv
import gzip
import io
import itertools

import numpy as np
import pytest
from corpus_builders import REASONS
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.corpus.documents import ReadOptions, read_block, read_texts
from cptsel.pipeline.corpus.formats import npy
from cptsel.pipeline.corpus.listing import list_inputs
from cptsel.pipeline.corpus.pool import Pool, Range
from cptsel.pipeline.corpus.shards import inventory
from cptsel.pipeline.corpus.types import TokenRule
from cptsel.pipeline.errors import BadInputError

EOD = 7
RULE = TokenRule(eod=EOD, vocabulary=60_000)


def read(path, named=None, rule=RULE, **options):
    settings = ReadOptions(tokens=rule, **options)
    shard = inventory(0, str(path), path.name, path.stat().st_size, settings.block_bytes, named, tokens=rule)
    blocks = [read_block(shard, block, settings) for block in shard.blocks]
    for block in blocks:
        assert block.rows_read == len(block.documents) + len(block.rejects) + block.rows_not_drawn
        assert all(reject.reason in REASONS for reject in block.rejects)
    return [d for block in blocks for d in block.documents], [r for block in blocks for r in block.rejects]


def array_bytes(ids, dtype):
    sink = io.BytesIO()
    np.save(sink, np.array(ids, dtype))
    return sink.getvalue()


@given(
    ids=st.lists(st.integers(0, 9), max_size=60),
    dtype=st.sampled_from(["<u2", "<u4"]),
    header=st.booleans(),
    block_bytes=st.integers(1, 100),
    at_once=st.integers(1, 9),
)
def test_documents_end_with_the_id_that_ends_them(tmp_path_factory, ids, dtype, header, block_bytes, at_once):
    path = tmp_path_factory.mktemp("corpus") / "a.npy"
    path.write_bytes(array_bytes(ids, dtype) if header else np.array(ids, dtype).tobytes())
    named = {"<u2": "npy-uint16", "<u4": "npy-uint32"}[dtype]
    if header and at_once % 2:
        named = None  # the header says it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npy, "_AT_ONCE", 4 * at_once)
        found, rejects = read(path, named, block_bytes=block_bytes)
    documents, rest = [[]], list(ids)
    for number in rest:
        if number == EOD:
            documents.append([])
        else:
            documents[-1].append(number)
    if not documents[-1]:
        documents.pop()  # nothing follows the last end
    assert {d.row_index: d.content.tolist() for d in found} == {row: d for row, d in enumerate(documents) if d}
    assert [reject.reason for reject in rejects] == ["empty_document"] * sum(not d for d in documents)
    wanted = [(d.row_index, d.byte_offset, d.byte_length) for d in found]
    again = read_texts(str(path), named or "npy", "none", "text", wanted)
    assert [(row, ids.tolist()) for row, ids in again] == [(d.row_index, d.content.tolist()) for d in found]


def test_a_pool_and_a_limit_count_the_same_rows(tmp_path):
    path, pool = tmp_path / "a.npy", Pool(3, Range(0.0, 0.4))
    path.write_bytes(np.array([[row % 5, EOD] for row in range(50)], "<u2").tobytes())
    found, _ = read(path, "npy-uint16", pool=pool, block_bytes=20)
    assert [d.row_index for d in found] == [r for r in range(50) if pool.place("a.npy", r, None) is not None]
    assert [d.row_index for d in read(path, "npy-uint16", limit=7, block_bytes=20)[0]] == list(range(7))


@pytest.mark.parametrize(
    ("data", "named", "rule", "detail"),
    [
        (b"\1\0\7\0", None, RULE, "say by --format what it is: npy-uint16 or npy-uint32"),
        (b"\1\0\7\0\1", "npy-uint16", RULE, "it has 5 bytes of ids, and 2 ids of uint16 take 4"),
        (array_bytes([1, 2, 7], "<u2")[:-2], None, RULE, "it has 4 bytes of ids, and 3 ids of uint16 take 6"),
        (array_bytes([1, 2, 7], "<u2"), "npy-uint32", RULE, "its header says uint16, and --format uint32"),
        (array_bytes([1.0, 7.0], "<f4"), None, RULE, "an array (2,) of float32"),
        (array_bytes([[1, 7]], "<u2"), None, RULE, "an array (1, 2) of uint16"),
        (array_bytes([1, 7], ">u2"), None, RULE, "no row of little-endian whole numbers"),
        (array_bytes([1, 7], "<u2")[:30], None, RULE, "its header can't be read"),
        (array_bytes([1, 7], "<u2"), None, TokenRule(), "give --eod-token-id"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_one_reject(tmp_path, data, named, rule, detail):
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    found, (reject,) = read(path, named, rule)
    assert (found, reject.reason, reject.bytes_lost) == ([], "unreadable_index", len(data))
    assert detail in reject.detail


def test_an_empty_file_has_no_documents(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"")
    assert read(path, "npy-uint16") == ([], [])


def test_a_wrong_number_type_shows_in_ids_that_the_model_does_not_have(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(np.array([1, 2, EOD, 3, 4, EOD], "<u2").tobytes())
    assert {reject.reason for reject in read(path, "npy-uint32")[1]} == {"id_out_of_range"}


def test_rows_without_a_place_can_not_be_found(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(np.array([1, EOD], "<u2").tobytes())
    with pytest.raises(BadInputError, match=r"row 0 can't be read .*nothing says where they lie"):
        list(read_texts(str(path), "npy-uint16", "none", "text", [(0, None, None)]))


def write_listed(path, documents, dtype="<u2", *, header=False, more=()):
    """An array, and beside it the .csv.gz of dolma, or of OLMo-core, whose lines have nothing more."""
    ids = [number for document in documents for number in document]
    path.write_bytes(array_bytes(ids, dtype) if header else np.array(ids, dtype).tobytes())
    ends = np.cumsum([0, *map(len, documents)]).tolist()
    with gzip.open(path.with_suffix(".csv.gz"), "wt", newline="") as sink:
        csv.writer(sink).writerows([start, end, *more] for start, end in itertools.pairwise(ends))


@given(
    documents=st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=30),
    dtype=st.sampled_from(["<u2", "<u4"]),
    header=st.booleans(),
    more=st.sampled_from([(), ("id-1", "s3://a/b.gz", 7), ('a,"b\nc', "ü", 1)]),
    block_bytes=st.integers(1, 200),
)
def test_documents_are_those_that_lie_beside(tmp_path_factory, documents, dtype, header, more, block_bytes):
    path = tmp_path_factory.mktemp("corpus") / "a.npy"
    write_listed(path, documents, dtype, header=header, more=more)
    named = None if header else {"<u2": "npy-uint16", "<u4": "npy-uint32"}[dtype]
    found, rejects = read(path, named, block_bytes=block_bytes)
    cut = [ids[:-1] if ids[-1:] == [EOD] else ids for ids in documents]
    assert {d.row_index: d.content.tolist() for d in found} == {row: ids for row, ids in enumerate(cut) if ids}
    assert [reject.reason for reject in rejects] == ["empty_document"] * (len(documents) - len(found))
    again = read_texts(
        str(path), named or "npy", "none", "text", [(d.row_index, d.byte_offset, d.byte_length) for d in found]
    )
    assert [(row, ids.tolist()) for row, ids in again] == [(d.row_index, d.content.tolist()) for d in found]


def test_what_lies_beside_is_parsed_once_for_all_blocks_of_a_file(tmp_path, monkeypatch):
    parsed = []
    places = npy._places
    monkeypatch.setattr(npy, "_places", lambda handle: parsed.append(handle.name) or places(handle))
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for path in paths:
        write_listed(path, [[number, EOD] for number in range(20)])
        assert len(read(path, "npy-uint16", block_bytes=4)[0]) == 20
    assert parsed == [str(path.with_suffix(".csv.gz")) for path in paths]
    write_listed(paths[1], [[number, 1, EOD] for number in range(20)])
    assert [d.content.tolist() for d in read(paths[1], "npy-uint16")[0]] == [[number, 1] for number in range(20)]


def test_what_lies_beside_names_the_corpus_and_is_no_file_of_it(tmp_path):
    path = tmp_path / "a.npy"
    write_listed(path, [[1, EOD, 2], [3]])
    shard = inventory(0, str(path), "a.npy", 8, 100, "npy-uint16", tokens=RULE)
    assert shard.companion is not None
    assert shard.companion.sha256 in shard.identity
    assert [name for _, name, _ in list_inputs([str(tmp_path / "*")], None)[1]] == ["a.npy"]
    assert [d.content.tolist() for d in read(path, "npy-uint16", TokenRule(vocabulary=9))[0]] == [[1, EOD, 2], [3]]
    path.with_suffix(".csv.gz").unlink()
    assert inventory(0, str(path), "a.npy", 8, 100, "npy-uint16", tokens=RULE).companion is None
    assert [d.content.tolist() for d in read(path, "npy-uint16")[0]] == [[1], [2, 3]]


@pytest.mark.parametrize(
    ("lines", "detail"),
    [
        (b"0,2\n2,3\n", "tells of 3 ids, and the file has 4 of uint16: it was cut off, or --format names another type"),
        (b"0,2\n2,8\n", "tells of 8 ids, and the file has 4"),
        (b"0,2\n3,4\n", "in line 2 of the .csv.gz a document does not follow the one before it"),
        (b"1,2\n2,4\n", "in line 1 of"),
        (b"0,2\n2,1\n1,4\n", "in line 2 of"),
        (b"start,end\n0,4\n", "does not say where documents lie"),
        (b"id-1,src,0,0,4\n", "does not say where documents lie"),
        (b"0\n4\n", "does not say where documents lie"),
        (b"0,\n", "does not say where documents lie"),
        (b"0,2\n2\n", "does not say where documents lie"),
        (b"", "tells of 0 ids"),
    ],
)
def test_what_lies_beside_and_does_not_fit_costs_the_file_and_says_why(tmp_path, lines, detail):
    path = tmp_path / "a.npy"
    write_listed(path, [[1, EOD], [2, EOD]])
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(lines))
    found, (reject,) = read(path, "npy-uint16")
    assert (found, reject.reason, reject.bytes_lost) == ([], "unreadable_index", 8)
    assert detail in reject.detail
    assert "move it away, so that documents are told by the id that ends them" in reject.detail


@pytest.mark.parametrize(
    "broken", [lambda data: data[:-9], lambda data: b"\0" + data, lambda data: data[:20] + data[22:]]
)
def test_what_lies_beside_and_is_broken_costs_the_file(tmp_path, broken):
    path = tmp_path / "a.npy"
    write_listed(path, [[number, EOD] for number in range(50)])
    beside = path.with_suffix(".csv.gz")
    beside.write_bytes(broken(beside.read_bytes()))
    _, (reject,) = read(path, "npy-uint16")
    assert reject.reason == "unreadable_index"
    assert "the .csv.gz does not say where documents lie" in reject.detail
