"""Rows of all files of a manifest, on disk: what was there before, and places in the corpus."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.verification.rows import Rows, check_unique_ids


def table_of(ids, phases, ranks, order):
    columns = {"sample_id": ids, "phase": pa.array(phases, pa.int16()), "order_rank": ranks, "row_index": order}
    columns |= {"group": ["a"] * len(ids)} | {name: [1] * len(ids) for name in ("n_tokens", "repeat", "window")}
    return pa.table(columns | {"weight": [1.0] * len(ids)})


ROW = st.tuples(st.integers(0, 1), st.sampled_from([0, 1, 2**64 - 1]), st.integers(0, 2), st.integers(-1, 2))


@given(st.lists(st.lists(ROW, min_size=1, max_size=8), max_size=4), st.integers(1, 5), st.randoms())
def test_what_an_earlier_row_of_the_phase_has(files, part_rows, random):
    rows, ids, ranks, phases, places = Rows({}, part_rows), [], [], [], []
    for number, file in enumerate(files):
        order = random.sample(range(len(file)), len(file))
        mine = [f"{high:016x}{low:016x}" for _, high, low, _ in file]
        rows.add(f"{number}", table_of(mine, [row[0] for row in file], [row[3] for row in file], order))
        for place, (phase, *_) in enumerate(file):
            before = [at for at in range(len(file)) if file[at][0] == phase and order[at] < order[place]]
            places.append(sum(of == phase for of in phases) + len(before))
        phases += [row[0] for row in file]
        ids += mine
        ranks += [row[3] for row in file]
    for keys, values in ((["high", "low"], ids), (["rank"], ranks)):
        pairs = list(zip(phases, values, strict=True))
        assert rows.again(keys).read().tolist() == [pair in pairs[:at] for at, pair in enumerate(pairs)]
    found = [part["place"].tolist() for _, _, part in rows.by_file()]
    assert np.concatenate([[], *found]).tolist() == places
    assert rows.samples == {phase: phases.count(phase) for phase in set(phases)}


def test_names_that_are_none_are_not_told_twice():
    rows, problems = Rows({}), Problems()
    same = "0" * 32
    rows.add("good", table_of([same, same], [0, 0], [0, 1], [0, 1]))
    rows.add("bad", table_of(["x", "y"], [0, 0], [2, 3], [0, 1]))
    check_unique_ids(rows, problems)
    assert [(problem.file, problem.row) for problem in problems.kept] == [("good", 1)]
    assert not rows.named
