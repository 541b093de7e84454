""".ds and .ds.index of datatrove: written by hand, read whole and in blocks, and damaged."""

from pathlib import Path

import numpy as np
import pytest
from corpus_builders import read_corpus, write_nanotron
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.corpus.documents import read_texts
from cptsel.pipeline.corpus.listing import list_inputs
from cptsel.pipeline.corpus.types import TokenRule

EOD = 7
RULE = TokenRule(eod=EOD, vocabulary=60_000)


@given(
    documents=st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=30),
    dtype=st.sampled_from(["<u2", "<u4"]),
    block_bytes=st.integers(1, 200),
)
def test_documents_are_read_whatever_the_blocks(tmp_path_factory, documents, dtype, block_bytes):
    path = tmp_path_factory.mktemp("corpus") / "a.ds"
    write_nanotron(path, documents, dtype)
    found, rejects, _ = read_corpus(path, tokens=RULE, block_bytes=block_bytes)
    cut = [ids[:-1] if ids[-1:] == [EOD] else ids for ids in documents]
    assert {d.row_index: d.content.tolist() for d in found} == {row: ids for row, ids in enumerate(cut) if ids}
    assert [reject.reason for reject in rejects] == ["empty_document"] * (len(documents) - len(found))
    wanted = [(d.row_index, d.byte_offset, d.byte_length) for d in found]
    again = read_texts(str(path), "nanotron", "none", "text", wanted)
    assert [ids.tolist() for _, ids in again] == [d.content.tolist() for d in found]
    whole = read_texts(str(path), "nanotron", "none", "text", [(row, None, None) for row, _, _ in wanted])
    assert [ids.tolist() for _, ids in whole] == [documents[row] for row, _, _ in wanted]


@pytest.mark.parametrize(
    ("index", "detail"),
    [
        (b"\1\0\0", "has 3 bytes, which are no whole numbers"),
        (b"", "says that there are 0 ids"),
        (np.array([3, 8], "<u8").tobytes(), "says that there are 8 ids, which are neither 2 nor 4 bytes each of 18"),
        (np.array([5, 3, 9], "<u8").tobytes(), "do not ascend"),
    ],
)
def test_a_damaged_index_costs_the_file_and_says_why(tmp_path, index, detail):
    path = tmp_path / "a.ds"
    write_nanotron(path, [[1, 2, EOD], [3, 4, 5, 6, 8, EOD]])
    Path(f"{path}.index").write_bytes(index)
    found, (reject,), _ = read_corpus(path, tokens=RULE)
    assert (found, reject.reason, reject.bytes_lost) == ([], "unreadable_index", 18)
    assert detail in reject.detail


def test_a_cut_file_is_no_file_of_its_index(tmp_path):
    path = tmp_path / "a.ds"
    write_nanotron(path, [[1, 2, EOD], [3, EOD]])
    path.write_bytes(path.read_bytes()[:-2])
    assert [reject.reason for reject in read_corpus(path, tokens=RULE)[1]] == ["unreadable_index"]


def test_half_a_file_of_32_bit_ids_is_none_of_16_bits(tmp_path):
    path = tmp_path / "a.ds"
    write_nanotron(path, [[1, 2, 3, EOD], [4, EOD]], "<u4")
    path.write_bytes(path.read_bytes()[:12])
    found, (reject,), _ = read_corpus(path, tokens=RULE)
    assert (found, reject.reason, reject.bytes_lost) == ([], "unreadable_index", 12)
    assert f"{path}.metadata says that an id takes 4 bytes, and by its size" in reject.detail
    assert "2 for each: it was cut off" in reject.detail
    assert "restore them, or move the .ds.metadata away" in reject.detail


@pytest.mark.parametrize("first", ["tiny-lm", "", "tiny|lm", "tiny|lm|2", "\0\xff|"])
def test_metadata_that_says_nothing_of_the_width_is_passed_over(tmp_path, first):
    path = tmp_path / "a.ds"
    write_nanotron(path, [[1, EOD]])
    Path(f"{path}.metadata").write_bytes(first.encode("latin-1") + b"\n2\n0 T\n")
    assert [d.content.tolist() for d in read_corpus(path, tokens=RULE)[0]] == [[1]]


def test_a_file_without_ids_has_no_width(tmp_path):
    for documents in ([], [[]]):
        write_nanotron(tmp_path / "a.ds", documents, "<u4")
        assert all(reject.reason == "empty_document" for reject in read_corpus(tmp_path / "a.ds", tokens=RULE)[1])


def test_what_lies_beside_is_no_file_of_its_own(tmp_path):
    write_nanotron(tmp_path / "a.ds", [[1, EOD]])
    assert [path for _, path, _ in list_inputs([str(tmp_path / "*")], None)[1]] == ["a.ds"]
