"""Vectors that travel in files between the steps of a selection."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline import io
from cptsel.pipeline.selection.reading.tables import as_lists, matrix, places


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_a_matrix_comes_back_from_a_file(tmp_path, rows):
    x = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    io.write_parquet(str(tmp_path / "x.parquet"), pa.table({"x": as_lists(x)}))
    np.testing.assert_array_equal(matrix(io.read_parquet(str(tmp_path / "x.parquet"))), x)


@given(st.sets(st.text(min_size=1, max_size=3), min_size=1), st.lists(st.text(min_size=1, max_size=3)))
def test_places_are_those_of_the_list(known, asked):
    names = sorted(known)
    expected = [names.index(name) if name in known else -1 for name in asked]
    assert places(asked, names).tolist() == expected
