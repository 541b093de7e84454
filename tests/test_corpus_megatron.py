"""Megatron .bin and .idx: written by hand by the documented layout, read whole, in blocks, by places, and damaged."""

import struct

import numpy as np
import pytest
from corpus_builders import read_corpus, write_megatron
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.corpus.documents import ReadOptions, read_block, read_texts
from cptsel.pipeline.corpus.listing import list_inputs
from cptsel.pipeline.corpus.pool import Pool, Range
from cptsel.pipeline.corpus.shards import inventory
from cptsel.pipeline.corpus.types import TokenRule
from cptsel.pipeline.errors import BadInputError

EOD = 7
RULE = TokenRule(eod=EOD, vocabulary=60_000)
HEAD = 34

documents_of_ids = st.lists(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=3), max_size=30)


def ids_of(document):
    """What a document of sequences is read as."""
    ids = [token for sequence in document for token in sequence]
    return ids[:-1] if ids[-1:] == [EOD] else ids


@given(
    documents=documents_of_ids,
    kind=st.sampled_from([("<u2", 8), ("<i4", 4), ("<i8", 5), ("u1", 1)]),
    modes=st.booleans(),
    block_bytes=st.integers(1, 200),
)
def test_documents_are_read_whatever_the_blocks(tmp_path_factory, documents, kind, modes, block_bytes):
    path = tmp_path_factory.mktemp("corpus") / "a.bin"
    write_megatron(path, documents, *kind, modes=modes)
    found, rejects, _ = read_corpus(path, tokens=RULE, block_bytes=block_bytes, group_by=("lang",))
    expected = {row: ids for row, document in enumerate(documents) if (ids := ids_of(document))}
    assert {d.row_index: d.content.tolist() for d in found} == expected
    assert {reject.row_index for reject in rejects} == set(range(len(documents))) - set(expected)
    assert {reject.reason for reject in rejects} <= {"empty_document"}
    assert all((d.doc_id, d.groups, d.content.dtype) == (None, (None,), np.int32) for d in found)
    data = path.read_bytes()
    for d in found:  # where the ids lie, without that of the end
        assert data[d.byte_offset : d.byte_offset + d.byte_length] == np.array(d.content, kind[0]).tobytes()
    by_row = read_texts(str(path), "megatron", "none", "text", [(d.row_index, None, None) for d in found])
    at_place = [(d.row_index, d.byte_offset, d.byte_length) for d in found]
    by_place = read_texts(str(path), "megatron", "none", "text", at_place)
    for d, (row, whole), (again, ids) in zip(found, by_row, by_place, strict=True):
        assert row == again == d.row_index
        assert ids.tolist() == d.content.tolist() == whole.tolist()[: len(ids)]


def test_documents_outside_the_pool_are_not_touched(tmp_path):
    """Their bytes are gone, and nothing is missed."""
    path, pool = tmp_path / "a.bin", Pool(3, Range(0.0, 0.3))
    write_megatron(path, [[[1, 2, 3, row, EOD]] for row in range(100)])
    all_of_it = read_corpus(path, tokens=RULE)[0]
    found, rejects, not_drawn = read_corpus(path, tokens=RULE, pool=pool)
    drawn = [row for row in range(100) if pool.place("a.bin", row, None) is not None]
    assert (len(found) + not_drawn, rejects) == (100, [])
    assert [d.row_index for d in found] == drawn
    assert [d.content.tolist() for d in found] == [all_of_it[row].content.tolist() for row in drawn]
    spoiled = path.read_bytes()
    for row in set(range(100)) - set(drawn):
        spoiled = spoiled[: 10 * row] + b"\xff" * 10 + spoiled[10 * row + 10 :]
    path.write_bytes(spoiled)
    assert [d.content.tolist() for d in read_corpus(path, tokens=RULE, pool=pool)[0]] == [
        d.content.tolist() for d in found
    ]
    assert len(read_corpus(path, tokens=RULE)[1]) == not_drawn


def damaged_index(path, change):
    index = path.with_suffix(".idx")
    index.write_bytes(change(index.read_bytes()))


WHOLE = [[[1, 2, EOD]], [[3, 4], [5, EOD]], [[6]]]  # 4 sequences, 4 bounds, 9 ids


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda data: data[:20], "does not begin with that of Megatron"),
        (lambda data: b"", "does not begin with that of Megatron"),
        (lambda data: b"NOTANIDX!" + data[9:], "does not begin with that of Megatron"),
        (lambda data: data[:9] + struct.pack("<Q", 2) + data[17:], "version 2, not 1"),
        (lambda data: data[:17] + b"\x06" + data[18:], "dtype of code 6"),
        (lambda data: data[:-1], "take 114"),
        (lambda data: data + b"\0", "take 114"),
        (lambda data: data[:18] + struct.pack("<Q", 5) + data[26:], "5 sequences"),
        (lambda data: data[:-8] + struct.pack("<q", 3), "4 sequences, and its documents those from 0 to 3"),
        (lambda data: data[:-32] + struct.pack("<q", 1) + data[-24:], "its documents those from 1 to 4"),
        (lambda data: data[:-16] + struct.pack("<2q", 9, 4), "do not ascend"),
        (lambda data: data[: HEAD + 32] + struct.pack("<q", 0) + data[HEAD + 40 :], "do not follow each other"),
    ],
)
def test_a_damaged_index_costs_the_file_and_says_why(tmp_path, change, detail):
    path = tmp_path / "a.bin"
    write_megatron(path, WHOLE)
    damaged_index(path, change)
    found, (reject,), _ = read_corpus(path, tokens=RULE, block_bytes=1)
    assert (found, reject.row_index, reject.reason) == ([], 0, "unreadable_index")
    assert detail in reject.detail
    assert reject.bytes_lost == path.stat().st_size


def test_a_cut_file_costs_the_documents_that_lay_there(tmp_path):
    path = tmp_path / "a.bin"
    write_megatron(path, WHOLE)
    path.write_bytes(path.read_bytes()[:12])
    found, rejects, _ = read_corpus(path, tokens=RULE)
    assert [d.row_index for d in found] == [0]
    assert [(reject.row_index, reject.reason) for reject in rejects] == [(1, "unreadable_ids"), (2, "unreadable_ids")]
    assert rejects[0].detail == "they would lie from byte 6 to 14 of 12"


def test_a_pointer_outside_costs_its_document(tmp_path):
    path = tmp_path / "a.bin"
    write_megatron(path, WHOLE)
    for place in (-2, 1 << 40):
        damaged_index(path, lambda data, place=place: data[: HEAD + 40] + struct.pack("<q", place) + data[HEAD + 48 :])
        found, rejects, _ = read_corpus(path, tokens=RULE)
        assert [d.row_index for d in found] == [0, 1]
        assert [(reject.row_index, reject.reason) for reject in rejects] == [(2, "unreadable_ids")]


def test_ids_that_the_model_does_not_have_cost_their_document(tmp_path):
    """Also those of a wrong dtype, as far as they show."""
    path = tmp_path / "a.bin"
    write_megatron(path, [[[1, 2]], [[3, 60_000]], [[4]]], "<i4", 4)
    found, (reject,), _ = read_corpus(path, tokens=RULE)
    assert [d.row_index for d in found] == [0, 2]
    assert (reject.row_index, reject.reason) == (1, "id_out_of_range")
    assert reject.detail == "60000 at token 1; the model has 60,000"
    write_megatron(path, [[[1, 2, 3, 4]]], "<u2", 4)  # says that ids are twice as wide
    assert [reject.reason for reject in read_corpus(path, tokens=RULE)[1]] == ["unreadable_ids"]


def test_a_document_beyond_the_cap_is_not_read(tmp_path):
    path = tmp_path / "a.bin"
    write_megatron(path, [[[1] * 50], [[2]]])
    found, (reject,), _ = read_corpus(path, tokens=RULE, max_line_bytes=99)
    assert ([d.row_index for d in found], reject.reason) == ([1], "document_too_long")


def test_a_file_without_its_index_can_not_be_taken(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"\0\0")
    with pytest.raises(OSError, match=r"without .*a\.idx, which is missing"):
        inventory(0, str(path), "a.bin", 2, 100)


def test_an_index_is_no_file_of_its_own(tmp_path):
    for name in ("a", "b"):
        write_megatron(tmp_path / f"{name}.bin", WHOLE)
    _, files = list_inputs([str(tmp_path / "*")], None)
    assert [path for _, path, _ in files] == ["a.bin", "b.bin"]


def test_an_index_that_changes_is_noticed(tmp_path):
    path = tmp_path / "a.bin"
    write_megatron(path, WHOLE)
    shard = inventory(0, str(path), "a.bin", path.stat().st_size, 100, None, str(tmp_path / "digests"), RULE)
    damaged_index(path, lambda data: data[:HEAD] + struct.pack("<i", 2) + data[HEAD + 4 :])
    with pytest.raises(OSError, match=r"a\.idx: has changed since it was listed"):
        read_block(shard, shard.blocks[0], ReadOptions(tokens=RULE))


def test_a_row_that_is_gone_is_named(tmp_path):
    path = tmp_path / "a.bin"
    write_megatron(path, WHOLE)
    with pytest.raises(BadInputError, match=r"row 9 can't be read .*only 3 documents"):
        list(read_texts(str(path), "megatron", "none", "text", [(9, None, None)]))
    with pytest.raises(BadInputError, match=r"row 2 can't be read .*byte 14 to 100"):
        list(read_texts(str(path), "megatron", "none", "text", [(2, 14, 86)]))
