"""Columns on disk."""

import errno
import os
import resource
import tempfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.errors import NoRoomError
from cptsel.pipeline.spill.columns import Column
from cptsel.pipeline.spill.sorting import by_value, sort_key, sorted_parts

RECORD = np.dtype([("key", np.uint64), ("second", np.int32), ("place", np.int64)])


def test_a_column_is_read_as_it_was_written():
    column = Column(np.int32)
    column.append(np.arange(5))
    column.append(np.arange(0))
    column.append(np.arange(5, 12))
    assert len(column) == 12
    assert column.read().tolist() == list(range(12))
    assert column.read(3, 7).tolist() == [3, 4, 5, 6]
    assert [part.tolist() for part in column.parts(5)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    column.put(np.array([11, 0]), np.array([-1, -2]))
    assert column.read().tolist() == [-2, *range(1, 11), -1]
    assert column.take(np.array([11, 3, 0])).tolist() == [-1, 3, -2]
    assert len(column.take(np.empty(0, np.int64))) == 0
    column.write(1, np.array([-3, -4]))
    assert len(column) == 12
    column.write(13, np.array([13]))
    assert column.read().tolist() == [-2, -3, -4, *range(3, 11), -1, 0, 13]
    with pytest.raises(EOFError, match="a column of 14 values ends before 15"):
        column.read(12, 15)


def test_a_column_of_zeros_and_an_empty_one():
    zeros = Column.zeros(np.float64, 4)
    zeros.put(np.array([2]), np.array([1.5]))
    assert zeros.read().tolist() == [0, 0, 1.5, 0]
    empty = Column.zeros(RECORD, 0)
    empty.put(np.empty(0, np.int64), np.empty(0, RECORD))
    assert len(empty.read()) == 0
    assert list(sorted_parts(empty, ["key"])) == []


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1) | st.integers(0, 3), st.integers(0, 2))), st.integers(1, 9))
def test_parts_are_sorted_and_stable(pairs, rows):
    table = Column(RECORD)
    table.append(np.array([(key, second, place) for place, (key, second) in enumerate(pairs)], RECORD))
    found = [tuple(row) for part in sorted_parts(table, ["key", "second"], rows) for row in part.tolist()]
    assert found == sorted((key, second, place) for place, (key, second) in enumerate(pairs))


def test_parts_are_of_about_the_size_that_is_asked_for():
    table = Column(RECORD)
    rows = np.zeros(50_000, RECORD)
    rows["key"] = np.random.default_rng(0).integers(0, 2**63, len(rows)) ** 2  # uneven
    table.append(rows)
    sizes = [len(part) for part in sorted_parts(table, ["key"], 1000)]
    assert max(sizes) < 2000


@given(st.lists(st.floats(allow_nan=False), min_size=2))
def test_keys_sort_as_their_numbers(values):
    key = sort_key(np.array(values))
    assert np.argsort(key, kind="stable").tolist() == np.argsort(np.array(values), kind="stable").tolist()


@given(st.lists(st.integers(-3, 3)))
def test_by_value(values):
    found = {value: where.tolist() for value, where in by_value(np.array(values, np.int64))}
    expected = {value: [i for i, v in enumerate(values) if v == value] for value in sorted(set(values))}
    assert found == expected
    assert list(found) == list(expected)


def test_a_sort_of_many_parts_needs_few_files():
    table = Column(RECORD)
    rows = np.zeros(400, RECORD)
    rows["key"] = np.arange(400)[::-1]
    table.append(rows)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with tempfile.TemporaryFile() as file:
        resource.setrlimit(resource.RLIMIT_NOFILE, (file.fileno() + 8, limits[1]))
    try:
        parts = [part["key"] for part in sorted_parts(table, ["key"], 1)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert np.concatenate(parts).tolist() == list(range(400))
    assert len(parts) > 300


@pytest.mark.parametrize("call", ["pwrite", "open"])
def test_a_full_disk_is_a_sentence(monkeypatch, call):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    column = Column(np.int32)
    monkeypatch.setattr(*((os, "pwrite") if call == "pwrite" else (tempfile, "TemporaryFile")), full)
    with pytest.raises(NoRoomError, match=r"set TMPDIR to use another folder.*can't be written \(no space left"):
        column.append(np.arange(3)) if call == "pwrite" else Column(np.int32)


def test_a_sort_holds_a_few_parts_at_a_time():
    table, rng = Column(RECORD), np.random.default_rng(0)
    for _ in range(64):
        rows = np.zeros(5_000, RECORD)
        rows["key"] = rng.integers(0, 2**63, len(rows))
        table.append(rows)
    part = rows.nbytes
    tracemalloc.start()
    try:
        assert sum(len(found) for found in sorted_parts(table, ["key", "second"], 5_000)) == len(table)
        assert tracemalloc.get_traced_memory()[1] < 16 * part
    finally:
        tracemalloc.stop()
