"""Progress of an embedding run, from the files it has written."""

import json

import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import unit_name
from cptsel.pipeline.embedding.tally import Tally
from cptsel.pipeline.embedding.units import UNIT_KEY


def unit(folder, block, samples=10, tokens=1000, rejects=0):
    counts = {"windows_embedded": samples, "tokens": tokens, "rows_rejected": rejects, "windows_rejected": 0}
    metadata = {UNIT_KEY: json.dumps({"counts": counts})}
    io.write_bytes(str(folder / unit_name(0, block)), io.parquet_bytes(pa.table({"x": [1]}), metadata))


def test_speed_and_time_left_are_of_this_call(tmp_path):
    folder, seconds = tmp_path / "embeddings", [0.0]
    unit(folder, 0, samples=99)  # of an earlier call
    tally = Tally(str(folder), 12, clock=lambda: seconds[0])
    assert (tally.look(), tally.detail()) == (1, "")
    unit(folder, 1)
    unit(folder, 2, rejects=3)
    seconds[0] = 20.0
    assert tally.look() == 3
    assert tally.detail() == "20 samples, 2,000 tokens, 100 tokens/s, 3 rejects, about 2 min left"
    for block in range(3, 12):
        unit(folder, block)
    seconds[0] = 110.0
    assert tally.look() == 12
    assert tally.detail() == "110 samples, 11,000 tokens, 100 tokens/s, 3 rejects"


def test_a_file_that_is_being_replaced_is_passed_over(tmp_path):
    folder = tmp_path / "embeddings"
    tally = Tally(str(folder), 2)
    folder.mkdir()
    (folder / unit_name(0, 0)).write_bytes(b"half")
    assert tally.look() == 1
    assert tally.detail().startswith("0 samples, 0 tokens, 0 tokens/s")
