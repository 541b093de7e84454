"""The order pass: everything is played once an epoch, samples are untouched, equal calls give equal bytes."""

import errno
import json
import os
import shutil
from collections import Counter
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from manifest_builder import build_replay, change_samples, reseal
from run_builder import ROWS, build_run
from selection_builder import choose

from cptsel.pipeline import io
from cptsel.pipeline import order as order_module
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.inspect import inspect
from cptsel.pipeline.kernels.sampling.shard_order import plan_epoch
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_replay(tmp_path_factory.mktemp("order"), shards=9)


@pytest.fixture(scope="module")
def ordered(built, tmp_path_factory):
    out = tmp_path_factory.mktemp("ordered") / "out"
    summary = order(OrderConfig(replay=str(built.replay), out=str(out), epochs=2, world_size=3, seed=7))
    return out, summary


def tree(directory):
    names = set(outputs.list_tree(str(directory))) - {"stats.json", "config.yaml"}
    return {name: (directory / name).read_bytes() for name in names}


def test_every_epoch_plays_every_repeat_once(built, ordered):
    out, _ = ordered
    expected = Counter((s["shard_id"], c + 1) for s in built.samples for c in range(s["repeat"]))
    assert len(load_manifest(str(out)).schedule_files()) == 2
    plans = [pq.read_table(out / f"schedule/0-{epoch}.parquet").to_pylist() for epoch in (0, 1)]
    for plan in plans:
        assert {(row["shard_id"], row["pass"]): row["samples"] for row in plan} == expected
        assert sum(row["tokens"] for row in plan) == built.header["totals"]["replay_tokens"]
        assert len(plan) == len(expected)
        in_order = sorted(plan, key=lambda row: row["order"])
        assert [row["pass"] for row in in_order] == sorted(row["pass"] for row in plan)
    assert {r["shard_id"]: r["priority"] for r in plans[0]} != {r["shard_id"]: r["priority"] for r in plans[1]}


def test_priorities_can_be_recomputed_from_the_manifest(built, ordered):
    out, _ = ordered
    shards = {s["shard_id"]: s for s in pq.read_table(out / "shards.parquet").to_pylist()}
    x, t = Counter(), Counter()
    for s in built.samples:
        x[s["shard_id"]] += s["repeat"] * s["grad_norm"]
        t[s["shard_id"]] += s["repeat"] * s["n_tokens"]
    for epoch in (0, 1):
        for row in pq.read_table(out / f"schedule/0-{epoch}.parquet").to_pylist():
            key = row["shard_id"]
            assert row["q"] == pytest.approx(x[key] + 0.1 * t[key] * sum(x.values()) / sum(t.values()))
            (u,) = uniform(7, f"order/0/{epoch}", [shards[key]["path"]])
            assert row["priority"] == row["q"] / u
            if epoch == 0 and row["pass"] == 1:
                assert (shards[key]["q"], shards[key]["priority"], shards[key]["order"]) == (
                    row["q"], row["priority"], row["order"])  # fmt: skip


def test_the_rest_of_the_manifest_is_kept(built, ordered):
    out, _ = ordered
    header = load_manifest(str(out)).header
    assert header["parent"] == built.header["manifest_id"]
    for name in load_manifest(str(built.replay)).sample_files().values():
        assert (out / name).read_bytes() == (built.replay / name).read_bytes()
    for key in ("groups", "totals", "weighting", "selection", "phases", "corpus", "provenance"):
        assert header[key] == built.header[key]
    kept = pq.read_table(out / "shards.parquet").drop_columns(["q", "priority", "order"])
    assert kept.equals(pq.read_table(built.replay / "shards.parquet").drop_columns(["q", "priority", "order"]))


def test_summary_has_what_was_promised(built, ordered):
    out, summary = ordered
    assert summary.command == "order"
    assert summary.status == "done"
    assert summary.totals["tokens per epoch"] == built.header["totals"]["replay_tokens"]
    titles = [table.title for table in summary.tables]
    assert titles == ["Order against drawing shards uniformly", "Tokens by rank"]
    assert "effective shards" in summary.tables[0].columns
    assert len(summary.tables[1].rows) == 2
    json.dumps(summary.as_dict())
    (report,) = load_manifest(str(out)).header["order"]["reports"]
    assert 0 < report["effective_shards"] <= report["shards"] == 9


def test_same_request_same_bytes_other_seed_other_order(built, ordered, tmp_path):
    out, _ = ordered
    again = OrderConfig(replay=str(built.replay), out=str(tmp_path / "a"), epochs=2, world_size=3, seed=7)
    order(again)
    assert tree(tmp_path / "a") == tree(out)
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "b"), epochs=2, world_size=3, seed=8))
    assert tree(tmp_path / "b")["schedule/0-0.parquet"] != tree(out)["schedule/0-0.parquet"]


def test_an_ordered_manifest_can_be_ordered_again(ordered, built, tmp_path):
    out, _ = ordered
    order(OrderConfig(replay=str(out), out=str(tmp_path / "again"), world_size=1, seed=7))
    again = load_manifest(str(tmp_path / "again"))
    assert again.header["parent"] == load_manifest(str(out)).manifest_id
    assert list(again.schedule_files()) == [(0, 0)]


def test_a_shard_that_plays_nothing_is_not_scheduled(tmp_path):
    built = build_replay(tmp_path, shards=3)

    def silence(rows):
        for row in rows:
            row["repeat"] = 0

    change_samples(built.replay, 1, silence)
    reseal(built.replay)
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o")))
    assert set(pq.read_table(tmp_path / "o/schedule/0-0.parquet")["shard_id"].to_pylist()) == {0, 2}
    assert pq.read_table(tmp_path / "o/shards.parquet")["order"].to_pylist()[1] is None


def test_dry_run_writes_nothing(built, tmp_path):
    summary = order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o"), dry_run=True))
    assert summary.status == "dry-run"
    assert not (tmp_path / "o").exists()


def test_a_dry_run_costs_no_more_for_more_epochs(built, tmp_path, monkeypatch):
    plans = []
    monkeypatch.setattr(order_module, "plan_epoch", lambda *args: plans.append(plan_epoch(*args)) or plans[-1])
    summary = order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o"), epochs=100_000, dry_run=True))
    assert len(plans) == len(summary.tables[1].rows) == 20
    per_epoch = summary.totals["tokens per epoch"]
    assert summary.totals["tokens in all epochs"] == 100_000 * per_epoch


def test_unequal_ranks_are_a_warning_with_their_tokens(built, tmp_path):
    summary = order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o"), world_size=16))
    (row,) = summary.table("Tokens by rank").records()
    assert row["least"] < 0.9 * row["most"]
    said = f"the fullest rank has {row['most']:,} tokens and the emptiest {row['least']:,}, because"
    assert said in summary.warnings[0]


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(("epochs", "phrase"), [(100_000_000, "rows, and may have 100,000,000"), (100_001, "files")])
def test_schedules_without_end_are_refused(built, tmp_path, epochs, phrase, dry_run):
    config = OrderConfig(replay=str(built.replay), out=str(tmp_path / "o"), epochs=epochs, dry_run=dry_run)
    with pytest.raises(UsageError, match=f"--epochs {epochs}: the schedules would have [0-9,]+ {phrase}"):
        order(config)
    assert not (tmp_path / "o").exists()


def test_idle_ranks_are_a_warning(built, tmp_path):
    summary = order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o"), world_size=500))
    assert "some ranks get nothing" in summary.warnings[0]


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"world_size": 0}, "--world-size 0"),
        ({"staleness": -0.1}, "--staleness -0.1"),
        ({"staleness": float("nan")}, "--staleness nan"),
    ],
)
def test_options_out_of_range(built, tmp_path, options, phrase):
    with pytest.raises(UsageError, match=phrase):
        order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o"), **options))
    assert not (tmp_path / "o").exists()


def test_inputs_and_outputs_that_are_refused(built, ordered, tmp_path):
    out, _ = ordered
    with pytest.raises(UsageError, match="pass --overwrite"):
        order(OrderConfig(replay=str(built.replay), out=str(out)))
    for place, phrase in ((out, "is the input itself"), (out / "o", "lies inside"), (out.parent, "holds the input")):
        with pytest.raises(UsageError, match=phrase):
            order(OrderConfig(replay=str(out), out=str(place), overwrite=True))
    with pytest.raises(UsageError, match="not a replay manifest"):
        order(OrderConfig(replay=str(built.corpus), out=str(tmp_path / "o")))
    with pytest.raises(UsageError, match="written by cptsel select, not by order"):
        order(OrderConfig(replay=str(out), out=str(built.replay), overwrite=True))


def test_a_changed_samples_file_is_refused_and_leaves_no_success(tmp_path):
    built = build_replay(tmp_path, shards=2)
    change_samples(built.replay, 1, lambda rows: rows[0].update(repeat=3 - rows[0]["repeat"]))
    with pytest.raises(VerificationError, match=r"000001\.parquet is not the file that was written"):
        order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o")))
    assert not (tmp_path / "o" / "_SUCCESS").exists()


@pytest.mark.parametrize("name", ["samples/000001.parquet", "shards.parquet"])
def test_a_damaged_parent_does_not_cost_an_older_output(tmp_path, name):
    built = build_replay(tmp_path, shards=2)
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o")))
    before = tree(tmp_path / "o")
    (built.replay / name).unlink()  # the ordered one may be the same file
    (built.replay / name).write_bytes(b"damaged")
    with pytest.raises(VerificationError, match="is not the file that was written"):
        order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o"), overwrite=True))
    assert tree(tmp_path / "o") == before
    (built.replay / name).unlink()
    with pytest.raises(VerificationError, match="is missing; restore it"):
        order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o"), overwrite=True))
    assert tree(tmp_path / "o") == before


def test_samples_are_linked_or_else_copied_and_outlive_their_parent(built, ordered, tmp_path, monkeypatch):
    names = built.header["files"].keys() - {"shards.parquet"}
    assert names
    assert all(os.path.samefile(built.replay / name, ordered[0] / name) for name in names)
    config = OrderConfig(replay=str(built.replay), out=str(tmp_path / "o"), epochs=2, world_size=3, seed=7)
    order(config)
    order(replace(config, overwrite=True))  # deletes names, not the files of the parent
    assert verify(VerifyConfig(directory=str(built.replay))).status == "verified"

    def no_link(*_, **__):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    order(replace(config, out=str(tmp_path / "p")))
    assert not any(os.path.samefile(built.replay / name, tmp_path / "p" / name) for name in names)
    assert tree(tmp_path / "o") == tree(tmp_path / "p") == tree(ordered[0])


def test_what_is_wrong_with_samples_is_told_when_they_are_copied_and_by_verify_when_linked(tmp_path, monkeypatch):
    choose(build_run(tmp_path / "run", rows=ROWS), tmp_path / "replay", method="uniform", budget="20%")
    path = tmp_path / "replay" / "samples" / "000001.parquet"
    data = bytearray(path.read_bytes())
    data[9] ^= 1
    path.write_bytes(data)
    config = OrderConfig(replay=str(tmp_path / "replay"), out=str(tmp_path / "o"))
    order(config)
    with pytest.raises(VerificationError, match=r"samples/000001\.parquet: was changed after it was written"):
        verify(VerifyConfig(directory=str(tmp_path / "o")))
    monkeypatch.setattr(io, "link_files", lambda source, target, names: list(names))
    with pytest.raises(VerificationError, match=r"000001\.parquet is not the file that was written"):
        order(replace(config, out=str(tmp_path / "p")))
    assert not (tmp_path / "p" / "_SUCCESS").exists()


def test_who_verifies_either_name_of_a_damaged_file_is_told_that_there_is_another(tmp_path):
    built = build_replay(tmp_path, shards=2)
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o")))
    name = "samples/000001.parquet"
    path = tmp_path / "o" / name
    path.write_bytes(path.read_bytes() + b"x")
    both = ", and the same file, by a hard link, is in another directory; .* restore both, or select and order again"
    for directory in (tmp_path / "o", built.replay):
        with pytest.raises(VerificationError, match=f"{name}: was changed .* in manifest.json{both}"):
            verify(VerifyConfig(directory=str(directory)))
        with pytest.raises(VerificationError, match=f"{name}: has .* bytes, but .* were written{both}"):
            inspect(str(directory))
    shutil.copy(path, tmp_path / "copy")
    os.replace(tmp_path / "copy", path)  # now damaged alone
    with pytest.raises(VerificationError, match=r"in manifest\.json; restore the directory or make it again"):
        verify(VerifyConfig(directory=str(tmp_path / "o")))


def test_what_is_drawn_has_no_schedule(tmp_path):
    built = build_replay(tmp_path, shards=1, realisation="sampling")
    with pytest.raises(UsageError, match=r"realised by sampling, .* another cptsel select --realisation"):
        order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o")))
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("realisation", ["loss", "none"])
def test_what_plays_once_is_scheduled_once_and_drawn_by_what_counts_in_the_loss(tmp_path, realisation):
    built = build_replay(tmp_path, shards=5, realisation=realisation)
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o"), world_size=2))
    x, t, plays = Counter(), Counter(), Counter()
    for s in built.samples:
        x[s["shard_id"]] += s["loss_weight"] * s["grad_norm"]
        t[s["shard_id"]] += s["loss_weight"] * s["n_tokens"]
        plays[s["shard_id"], 1] += s["n_tokens"]
    plan = pq.read_table(tmp_path / "o/schedule/0-0.parquet").to_pylist()
    assert {(row["shard_id"], row["pass"]): row["tokens"] for row in plan} == plays
    for row in plan:
        key = row["shard_id"]
        assert row["q"] == pytest.approx(x[key] + 0.1 * t[key] * sum(x.values()) / sum(t.values()))


def test_every_phase_has_a_schedule_for_every_epoch(tmp_path):
    built = build_replay(tmp_path, shards=4, phases=3)
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o"), epochs=2))
    manifest = load_manifest(str(tmp_path / "o"))
    assert list(manifest.schedule_files()) == [(phase, epoch) for phase in range(3) for epoch in range(2)]
    for (phase, epoch), name in manifest.schedule_files().items():
        played = Counter((s["shard_id"], c) for _, s, c in built.sequence(phase))
        rows = pq.read_table(tmp_path / "o" / name).to_pylist()
        assert {(row["shard_id"], row["pass"]): row["samples"] for row in rows} == played, (phase, epoch)
    assert [report["phase"] for report in manifest.header["order"]["reports"]] == [0, 1, 2]


def test_a_curriculum_that_a_schedule_breaks_is_a_warning(tmp_path):
    built = build_replay(tmp_path, shards=3, phases=3, curriculum=True)
    summary = order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o")))
    (said,) = summary.warnings
    assert (
        "the curriculum of phase 0 (norm descending in 4 buckets), phase 2 (norm descending in 4 buckets) holds" in said
    )
    (tmp_path / "one").mkdir()
    built = build_replay(tmp_path / "one", shards=1, curriculum=True)
    assert order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "p"))).warnings == []


def test_zero_norms_without_staleness_are_named(tmp_path):
    built = build_replay(tmp_path, shards=2)
    change_samples(built.replay, 1, lambda rows: [row.update(grad_norm=0.0) for row in rows])
    reseal(built.replay)
    with pytest.raises(UsageError, match=r"part-01\.jsonl\.gz has gradient norm 0"):
        order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o"), staleness=0))
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o")))


@pytest.mark.parametrize("world_size", [0, -1, 1_000_001])
def test_ranks_that_can_not_be(built, tmp_path, world_size):
    with pytest.raises(UsageError, match=f"--world-size {world_size}: must be between 1 and 1000000"):
        order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "o"), world_size=world_size, dry_run=True))
