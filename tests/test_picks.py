"""Picks as they are handed on: one file a shard, in corpus order."""

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.selection.picks import PICKS, list_picks, picks_path, with_column, write_picks


def rows(*places):
    values = {field.name: [None] * len(places) for field in PICKS}
    values |= {name: [0] * len(places) for name in ("shard_id", "token_start", "token_count", "n_tokens")}
    values |= {"sample_id": [f"s{row}-{window}" for row, window in places], "doc_key": ["d"] * len(places)}
    values |= {"row_index": [row for row, _ in places], "window": [window for _, window in places]}
    values |= {"content_hash": [b"0" * 16] * len(places), "group": ["all"] * len(places)}
    values |= {name: [1.0] * len(places) for name in ("grad_norm", "loss_sum", "found_mass", "inclusion_prob")}
    return pa.table(values, schema=PICKS)


def test_tables_of_a_shard_become_one_file_in_corpus_order(tmp_path):
    write_picks(str(tmp_path), 7, [rows((5, 1), (2, 0)), rows((5, 0))])
    write_picks(str(tmp_path), 3, [rows((0, 0))])
    write_picks(str(tmp_path), 4, [])
    assert list(list_picks(str(tmp_path))) == [3, 7]
    found = io.read_parquet(picks_path(str(tmp_path), 7))
    assert found["sample_id"].to_pylist() == ["s2-0", "s5-0", "s5-1"]


def test_a_column_is_replaced_in_its_place():
    changed = with_column(rows((0, 0), (1, 0)), "found_mass", np.array([2.0, 3.0]))
    assert changed.schema == PICKS
    assert changed["found_mass"].to_pylist() == [2.0, 3.0]
