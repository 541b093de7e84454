"""What shards play, as ``shards.parquet`` says: what their samples add up to, and used in their place."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifest_builder import build_replay, reseal, with_visits
from run_builder import ROWS, build_run
from selection_builder import choose

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import visits as visits_module
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.artifacts.visits import read_visits, tally
from cptsel.pipeline.errors import VerificationError
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify
from cptsel.schemas.arrow import SAMPLES, VISITS


def schedules(out):
    return {path.name: path.read_bytes() for path in (out / "schedule").iterdir()}


@pytest.mark.parametrize("realisation", ["repeat", "loss", "none"])
def test_an_order_by_the_table_is_that_by_the_samples(tmp_path, realisation, monkeypatch):
    built = build_replay(tmp_path, shards=7, phases=3, keep=0.1, realisation=realisation)
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "a"), world_size=3, epochs=2))
    with_visits(built.replay)
    monkeypatch.setattr(visits_module, "_tally_files", None)  # they must not be read
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "b"), world_size=3, epochs=2))
    assert schedules(tmp_path / "a") == schedules(tmp_path / "b")
    assert len(schedules(tmp_path / "a")) == 6


def test_a_tally_is_what_plays_add_up_to():
    rows = [  # phase, repeat, n_tokens, grad_norm, loss_weight
        (0, 2, 5, 0.5, 1.5), (0, 0, 7, 9.0, 0.5), (1, 0, 3, 4.0, 0.25), (0, 1, 4, 2.0, 1.0), (2, 1, 9, 0.0, 0.0),
    ]  # fmt: skip
    names = ("phase", "repeat", "n_tokens", "grad_norm", "loss_weight")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    table = pa.table({name: pa.array(columns[name], SAMPLES.field(name).type) for name in names})
    zero = {"phase": 0, "x": 2 * 0.5 + 2.0, "t": 14.0, "samples": [2, 1], "tokens": [9, 5]}
    two = {"phase": 2, "x": 0.0, "t": 9.0, "samples": [1], "tokens": [9]}
    assert tally(table, "repeat") == [zero, two]
    weighed = [zero | {"x": 1.5 * 0.5 + 2.0, "t": 1.5 * 5 + 4.0}, two | {"t": 0.0}]
    assert tally(table, "loss") == weighed


def test_passes_are_counted_as_one_by_one():
    rng = np.random.default_rng(0)
    repeat, n_tokens = rng.integers(0, 9, 200), rng.integers(1, 50, 200)
    columns = {"phase": 0 * repeat, "repeat": repeat, "n_tokens": n_tokens, "grad_norm": repeat, "loss_weight": repeat}
    (found,) = tally(pa.table(columns), "repeat")
    assert found["samples"] == [(repeat >= number).sum() for number in range(1, 9)]
    assert found["tokens"] == [n_tokens[repeat >= number].sum() for number in range(1, 9)]


@pytest.mark.parametrize("row", [1, 2])
def test_samples_of_no_shard_are_refused(tmp_path, row):
    built = build_replay(tmp_path, shards=3)
    shards = pq.read_table(built.replay / "shards.parquet")
    io.write_parquet(str(built.replay / "shards.parquet"), shards.take([i for i in range(3) if i != row]))
    reseal(built.replay)
    with pytest.raises(VerificationError, match=rf"samples/00000{row}\.parquet is of no shard of shards\.parquet"):
        order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o")))


@pytest.mark.parametrize("realisation", ["repeat", "loss", "none"])
def test_select_writes_what_its_samples_play(tmp_path, realisation, monkeypatch):
    run = build_run(tmp_path / "run", rows=ROWS)
    options = {"replay_tokens": "3000"} if realisation == "repeat" else {}
    choose(run, tmp_path / "replay", method="uniform", budget="20%", realisation=realisation, **options)
    manifest = load_manifest(str(tmp_path / "replay"))
    visits = pq.read_table(tmp_path / "replay" / "shards.parquet")["visits"].to_pylist()
    files = manifest.sample_files()
    assert visits == [
        tally(manifest.table(files[shard]), realisation) if shard in files else [] for shard in range(len(ROWS))
    ]
    assert visits[2] == []
    assert verify(VerifyConfig(directory=str(tmp_path / "replay"))).status == "verified"
    monkeypatch.setattr(visits_module, "_tally_files", None)
    assert read_visits(manifest)[0].ids.tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    "change",
    [
        lambda visits: visits[1][0].update(x=visits[1][0]["x"] * (1 + 1e-12)),
        lambda visits: visits[1][0]["tokens"].append(1),
        lambda visits: visits[1].clear(),
        lambda visits: visits[1][0].update(phase=1),
    ],
)
def test_verify_holds_the_table_against_the_samples(tmp_path, change):
    built = build_replay(tmp_path, shards=2)
    with_visits(built.replay)
    assert verify(VerifyConfig(directory=str(built.replay))).status == "verified"
    with_visits_of(built.replay, change)
    with pytest.raises(VerificationError, match=r"shards.parquet: visits of shard 1 are not what its samples play"):
        verify(VerifyConfig(directory=str(built.replay)))


def with_visits_of(replay, change):
    """Change the visits that are there."""
    table = pq.read_table(replay / "shards.parquet")
    visits = table["visits"].to_pylist()
    change(visits)
    at = table.schema.get_field_index("visits")
    io.write_parquet(str(replay / "shards.parquet"), table.set_column(at, VISITS, pa.array(visits, VISITS.type)))
    reseal(replay)


def test_a_table_that_does_not_fit_together_is_refused(tmp_path):
    built = build_replay(tmp_path, shards=2)
    with_visits(built.replay, lambda visits: visits[1][0]["tokens"].append(1))
    with pytest.raises(VerificationError, match="its visits do not fit together; run cptsel verify"):
        order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o")))
    other = build_replay(tmp_path / "other", shards=2)
    with_visits(other.replay, lambda visits: visits.__setitem__(slice(None), ["", ""]), pa.field("visits", pa.string()))
    with pytest.raises(VerificationError, match="its visits are string, not list"):
        order(OrderConfig(replay=str(other.replay), out=str(tmp_path / "o")))
