"""Groups, rounds, phases and checkpoints of a selection, each against what its definition says."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from run_builder import build_run, reseal_run
from selection_builder import ROWS, choose, population, read_samples

from cptsel.pipeline import hashing
from cptsel.pipeline.artifacts.manifest import load_manifest, manifest_id
from cptsel.pipeline.artifacts.run import open_checkpoints, open_runs
from cptsel.pipeline.config import OrderConfig, VerifyConfig
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.kernels.budget import divide
from cptsel.pipeline.kernels.matching import gradmatch
from cptsel.pipeline.kernels.matching.mass import MASS
from cptsel.pipeline.kernels.sampling.draws import priority_sample
from cptsel.pipeline.order import order
from cptsel.pipeline.select import select
from cptsel.pipeline.selection.config import SelectConfig
from cptsel.pipeline.selection.methods import METHODS
from cptsel.pipeline.selection.reading.cells import CellReader, read_cells
from cptsel.pipeline.selection.reading.history import open_history
from cptsel.pipeline.verify import verify


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return build_run(tmp_path_factory.mktemp("run") / "run", rows=ROWS, pool=True)


@pytest.fixture(scope="module")
def later(tmp_path_factory) -> Path:
    return build_run(tmp_path_factory.mktemp("later") / "run", rows=ROWS, pool=True, drift=0.5)


def ids(out, phase=0) -> set[str]:
    rows = read_samples(out)
    return set(rows.filter(pc.equal(rows["phase"], phase))["sample_id"].to_pylist())


def header_of(out):
    return load_manifest(str(out)).header


# --- groups


def test_shares_by_hand(run, tmp_path):
    shares = tmp_path / "shares.yaml"
    shares.write_text("de: 3\nen: 1\n(none): 0\nuk: 0\n")
    choose(run, tmp_path / "replay", method="uniform", group_mass=str(shares))
    verify(VerifyConfig(replay=str(tmp_path / "replay")))
    header = header_of(tmp_path / "replay")
    mass = header["totals"]["population_mass"]
    target = {group["group"]: group["target_mass"] / mass for group in header["groups"]}
    assert target == pytest.approx({"de": 0.75, "en": 0.25, "(none)": 0, "uk": 0})
    assert set(read_samples(tmp_path / "replay")["group"].to_pylist()) == {"de", "en"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("de: 1\nen: 1\n", r"has no share for \(none\), uk"),
        ("de: 1\nen: 1\nuk: 1\n(none): 1\nfr: 1\n", "names what is no group here: fr"),
        ("de: -1\n", "the share of 'de' is -1, not a number of at least 0"),
        ("- de\n", "must be a mapping of groups to shares"),
        ("de: 1\nuk: 1\nde: 2\n", "'de' stands there twice"),
        ("de: [\n", "can't be read as YAML or JSON"),
        ("de: 0\nen: 0\nuk: 0\n(none): 0\n", "gives no group a share above 0"),
    ],
)
def test_shares_that_are_none(run, tmp_path, text, sentence):
    (tmp_path / "shares.yaml").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        choose(run, tmp_path / "replay", method="uniform", group_mass=str(tmp_path / "shares.yaml"))


def test_floors_and_caps_change_budgets_only(run, tmp_path):
    budgets = {}
    for name, options in {"plain": {}, "floor": {"group_floor": "9 samples"}, "cap": {"group_cap": "30%"}}.items():
        choose(run, tmp_path / name, method="craig", **options)
        groups = header_of(tmp_path / name)["groups"]
        budgets[name] = {group["group"]: group["budget"] for group in groups}
        budgets[name, "mass"] = {group["group"]: group["target_mass"] for group in groups}
    assert budgets["plain", "mass"] == budgets["floor", "mass"] == budgets["cap", "mass"]
    assert min(budgets["plain"].values()) < 9 <= min(budgets["floor"].values())
    assert max(budgets["plain"].values()) > 0.3 * 56 >= max(budgets["cap"].values())
    assert sum(budgets["floor"].values()) == sum(budgets["cap"].values()) == 56
    with pytest.raises(UsageError, match="--group-floor: the floors come to 80, more than the 56"):
        choose(run, tmp_path / "x", group_floor="20 samples")
    for floor in ("12 samples", "50%"):
        with pytest.raises(UsageError, match=r"--group-floor of \d+ samples is above the --group-cap of 10; lower it"):
            choose(run, tmp_path / "x", group_floor=floor, group_cap="10")
    with pytest.raises(UsageError, match="--group-cap leaves 20 of the 56 samples"):
        choose(run, tmp_path / "x", group_cap="5 samples")


def test_division_within_limits_is_water_filling():
    """Against bisection of the level t in Σ clip(t · share, floor, cap) = total."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(1, 8))
        shares, caps = rng.random(n) ** 3, rng.integers(0, 60, n)
        floors = np.minimum(rng.integers(0, 12, n), caps)
        total = int(rng.integers(floors.sum(), max(floors.sum(), caps.sum()) + 5))
        given = divide(total, shares, caps, floors)
        low, high = 0.0, 1e18
        for _ in range(200):
            level = (low + high) / 2
            low, high = (level, high) if np.clip(level * shares, floors, caps).sum() < total else (low, level)
        assert given.sum() == min(total, caps.sum())
        assert (np.abs(given - np.clip(high * shares, floors, caps)) < 1 + 1e-6).all()


# --- rounds


@pytest.mark.parametrize("method", ["uniform", "craig", "gradmatch"])
@pytest.mark.parametrize("scope", ["shard", "global"])
def test_what_was_replayed_is_not_chosen_again(run, tmp_path, method, scope):
    """Two rounds after the first; the corpus's mass stays what it is."""
    options = {"method": method, "scope": scope, "group_by": None, "budget": "40 samples", "max_repeats": 1}
    rounds: list[Path] = []
    played: set[str] = set()
    for number in range(3):
        out = tmp_path / str(number)
        choose(run, out, history=tuple(map(str, rounds)), seed=number, **options)
        verify(VerifyConfig(replay=str(out)))
        assert not ids(out) & played
        rows = read_samples(out)
        played |= set(rows.filter(pc.greater(rows["repeat"], 0))["sample_id"].to_pylist())
        rounds.append(out)
    mass = {header_of(out)["totals"]["population_mass"] for out in rounds}
    assert len(mass) == 1
    assert header_of(rounds[2])["provenance"]["history"] == [header_of(out)["manifest_id"] for out in rounds[:2]]


def test_what_was_not_played_may_be_chosen_again(run, tmp_path):
    choose(run, tmp_path / "a", method="uniform", replay_tokens="300")
    rows = read_samples(tmp_path / "a")
    unplayed = set(rows.filter(pc.equal(rows["repeat"], 0))["sample_id"].to_pylist())
    assert unplayed
    choose(run, tmp_path / "b", method="uniform", history=(str(tmp_path / "a"),))
    assert ids(tmp_path / "b") & unplayed  # the same draw, whose keys are large
    assert not ids(tmp_path / "b") & (ids(tmp_path / "a") - unplayed)


def test_discounted_draws(run, tmp_path):
    options = {"method": "uniform", "scope": "global", "group_by": None, "budget": "50 samples"}
    choose(run, tmp_path / "a", realisation="none", **options)
    history = {"history": (str(tmp_path / "a"),), "history_mode": "discount", "history_discount": 0.25}
    choose(run, tmp_path / "b", **history, **options)
    everything = population(run, group_by=None)
    order_ = np.argsort(everything["id"])
    names, before = everything["id"][order_].tolist(), ids(tmp_path / "a")
    scores = (everything["mass"] / everything["n_tokens"])[order_]
    scores = scores * np.where([name in before for name in names], 0.25, 1.0)
    draw = priority_sample(scores, hashing.uniform(0, "draw 0", names), 50)
    assert ids(tmp_path / "b") == {names[i] for i in draw.picked}


def test_coverage_starts_from_what_was_replayed(run, tmp_path):
    options = {"method": "craig", "group_by": None, "budget": "12 samples", "scope": "global"}
    choose(run, tmp_path / "a", realisation="none", **options)
    figures = {}
    for mode in ("exclude", "cover"):
        choose(run, tmp_path / mode, history=(str(tmp_path / "a"),), history_mode=mode, **options)
        figures[mode] = header_of(tmp_path / mode)["selection"]["report"]
        assert not ids(tmp_path / mode) & ids(tmp_path / "a")
    assert figures["cover"]["covered_distance"] < figures["cover"]["mean_distance"]
    first, both = (population(run, group_by=None)["id"], ids(tmp_path / "a"))
    assert len(both) == 12 < len(first)


def test_exploration(run, tmp_path):
    options = {"method": "craig", "group_by": None, "budget": "40 samples"}
    choose(run, tmp_path / "a", realisation="none", **options)
    choose(run, tmp_path / "b", explore=0.25, history=(str(tmp_path / "a"),), **options)
    verify(VerifyConfig(replay=str(tmp_path / "b")))
    rows = read_samples(tmp_path / "b")
    explored = rows.filter(pc.is_null(rows["score"]))  # a draw has no gain
    assert (rows.num_rows, explored.num_rows) == (40, 10)
    weight, n = (explored[name].to_numpy().astype(float) for name in ("weight", "n_tokens"))
    assert weight @ n == pytest.approx(0.25 * header_of(tmp_path / "b")["totals"]["population_mass"])
    assert not ids(tmp_path / "b") & ids(tmp_path / "a")
    choose(run, tmp_path / "c", **{**options, "explore": 1.0})
    assert read_samples(tmp_path / "c")["score"].null_count == 40


def test_exploration_stands_for_what_it_drew(run, tmp_path):
    """Where less is fresh than was to be drawn, the few that are don't stand for the whole share."""
    choose(run, tmp_path / "a", method="uniform", group_by=None, budget="270 samples", realisation="none")
    options = {"history": (str(tmp_path / "a"),), "history_mode": "discount", "group_by": None, "budget": "40 samples"}
    choose(run, tmp_path / "b", explore=0.5, method="craig", **options)
    rows = read_samples(tmp_path / "b")
    explored = rows.filter(pc.is_null(rows["score"]))
    assert rows.num_rows == 40
    assert 0 < explored.num_rows <= 10  # 280 samples less 270 are fresh, and half of 40 were to be explored
    weight, n = (explored[name].to_numpy().astype(float) for name in ("weight", "n_tokens"))
    assert weight @ n == pytest.approx(explored.num_rows / 40 * header_of(tmp_path / "b")["totals"]["population_mass"])


@pytest.mark.parametrize("method", ["craig", "gradmatch"])
@pytest.mark.parametrize("mode", ["exclude", "cover"])
def test_a_shard_without_candidates_still_counts(run, tmp_path, monkeypatch, method, mode):
    """History takes all of the first shard: its samples stay clients, and their gradients stay in the target."""
    if mode == "cover" and method != "craig":
        pytest.skip("only coverage starts from what was replayed")
    whole = choose(run, tmp_path / "a", method="full", budget="100%", realisation="none")["totals"]["samples"]
    for path in sorted((tmp_path / "a" / "samples").iterdir())[1:]:  # a manifest of the first shard alone
        path.unlink()
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    gone = [name for name in manifest["files"] if name.startswith("samples/") and name != "samples/000000.parquet"]
    for name in gone:
        del manifest["files"][name]
    manifest["manifest_id"] = manifest_id(manifest)
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest))
    options = {"method": method, "history": (str(tmp_path / "a"),), "history_mode": mode, "group_by": None}
    options |= {"neighbours": 400} if method == "craig" else {}
    targets = []

    def recorded(*args, **named):
        targets.append(named["target"])
        return gradmatch.match(*args, **named)

    monkeypatch.setitem(METHODS, "gradmatch", replace(METHODS["gradmatch"], kernel=recorded))
    choose(run, tmp_path / "b", scope="global", **options)
    report = header_of(tmp_path / "b")["selection"]["report"]
    everything = population(run, group_by=None)
    if method == "craig":
        assert report["clients"] == whole
        assert ("covered_distance" in report) == (mode == "cover")
    else:
        length = np.linalg.norm(everything["g"].T @ (everything["mass"] / everything["n_tokens"]))
        assert np.linalg.norm(targets[-1][:-1]) == pytest.approx(length, rel=1e-3)  # that of the merge
        assert targets[-1][-1] == pytest.approx(MASS * length, rel=1e-3)


def test_a_history_named_twice_is_one_round(run, tmp_path):
    choose(run, tmp_path / "a", method="uniform")
    order(OrderConfig(replay=str(tmp_path / "a"), out=str(tmp_path / "ordered")))
    options = {"method": "importance", "history_mode": "discount", "history_discount": 0.1}
    choose(run, tmp_path / "b", history=(str(tmp_path / "a"),), **options)
    choose(run, tmp_path / "c", history=(str(tmp_path / "a"), str(tmp_path / "ordered")), **options)
    assert ids(tmp_path / "b") == ids(tmp_path / "c")


def test_equal_rounds_are_two_rounds(run, tmp_path):
    """Rounds that chose the same are told apart by what they were selected with."""
    choose(run, tmp_path / "a", method="craig")
    choose(run, tmp_path / "b", method="craig", mass="corpus", skip_residuals=True, seed=7, realisation="none")
    runs = open_runs([str(run)])
    paths = [str(tmp_path / name) for name in "ab"]
    assert ids(tmp_path / "a") == ids(tmp_path / "b")
    for count in (1, 2):
        history = open_history(paths[:count], runs, "discount", 0.5)
        assert {len(files) for files in history.files.values()} == {count}


def test_exploration_takes_no_more_of_a_group_than_its_share(run, tmp_path):
    rest = {"group_by": "language", "realisation": "none", "budget": "100%"}
    choose(run, tmp_path / "all", method="full", **rest)
    groups = {row["sample_id"]: row["group"] for row in read_samples(tmp_path / "all").to_pylist()}
    fresh = max(set(groups.values()), key=list(groups.values()).count)
    shares = tmp_path / "shares.yaml"
    shares.write_text(json.dumps({group: float(group != fresh) for group in set(groups.values())}))
    names = sorted(name for name, group in groups.items() if group != fresh)
    choose(
        run,
        tmp_path / "a",
        method="uniform",
        group_mass=str(shares),
        budget=f"{len(names)} samples",
        **{name: value for name, value in rest.items() if name != "budget"},
    )
    history = {"history": (str(tmp_path / "a"),), "history_mode": "discount", "budget": "40%"}
    choose(run, tmp_path / "b", method="craig", explore=0.1, **history)
    mine = read_samples(tmp_path / "b").filter(pc.equal(read_samples(tmp_path / "b")["group"], fresh))
    assert 0 < mine["score"].null_count <= np.ceil(0.1 * mine.num_rows)


def test_a_history_that_is_none(run, tmp_path):
    other = build_run(tmp_path / "other", rows=(40,), prefix="elsewhere/")
    choose(other, tmp_path / "a", method="uniform")
    with pytest.raises(UsageError, match="none of the shards that it replays is in these runs"):
        choose(run, tmp_path / "b", history=(str(tmp_path / "a"),))
    choose(run, tmp_path / "c", method="uniform")
    next((tmp_path / "c" / "samples").iterdir()).write_bytes(b"damaged")
    with pytest.raises(VerificationError, match="is not the file that was written"):
        choose(run, tmp_path / "d", history=(str(tmp_path / "c"),))


# --- phases


def test_fresh_draws_that_decay(run, tmp_path):
    out = tmp_path / "replay"
    choose(run, out, method="mix-review", phases=3, mix_decay=0.5, budget="80 samples", group_by=None)
    verify(VerifyConfig(replay=str(out)))
    assert [phase["samples"] for phase in header_of(out)["phases"]] == [80, 40, 20]
    assert len(ids(out, 0) & ids(out, 1)) < 30  # 80/280 of 40 are expected; a nested draw would have all 40
    order(OrderConfig(replay=str(out), out=str(tmp_path / "ordered"), world_size=2))
    verify(VerifyConfig(replay=str(tmp_path / "ordered")))


def test_the_mix_ratio_counts_the_new_domain(run, tmp_path):
    new = build_run(tmp_path / "new", rows=(20,), prefix="new/")
    tokens = population(new)["n_tokens"].sum()
    choose(run, tmp_path / "replay", method="mix-review", mix_ratio=1.5, new=str(new), group_by=None, budget="5%")
    budget = header_of(tmp_path / "replay")["selection"]["budget"]
    assert budget == {"requested": "--mix-ratio 1.5", "unit": "tokens", "amount": int(1.5 * tokens)}


@pytest.mark.parametrize("phase_budget", ["25%", "400 tokens"])
def test_later_phases_drawn_from_the_first(run, tmp_path, phase_budget):
    out = tmp_path / "replay"
    group_by = "language" if phase_budget == "25%" else None
    choose(run, out, method="craig", phases=3, phase_budget=phase_budget, budget="40%", group_by=group_by)
    verify(VerifyConfig(replay=str(out)))
    first = ids(out, 0)
    assert ids(out, 1) < first
    assert ids(out, 2) < first
    assert ids(out, 1) != ids(out, 2)
    rows = read_samples(out)
    zero = rows.filter(pc.equal(rows["phase"], 0))
    for phase in (1, 2):
        mine = rows.filter(pc.equal(rows["phase"], phase))
        if phase_budget == "25%":
            assert mine.num_rows == int(0.25 * zero.num_rows)
        else:
            assert pc.sum(mine["n_tokens"]).as_py() <= 400
        assert (mine["inclusion_prob"].to_numpy() <= 1).all()
    order(OrderConfig(replay=str(out), out=str(tmp_path / "ordered")))


def test_phases_from_later_checkpoints(run, later, tmp_path):
    choose(run, tmp_path / "replay", method="craig", phase_run=(str(later),))
    verify(VerifyConfig(replay=str(tmp_path / "replay")))
    for phase, source in enumerate((run, later)):
        choose(source, tmp_path / str(phase), method="craig")
        assert ids(tmp_path / "replay", phase) == ids(tmp_path / str(phase))
    assert len(header_of(tmp_path / "replay")["provenance"]["runs"]) == 2


@pytest.mark.parametrize(
    ("options", "key", "sign"),
    [
        ({"curriculum": "loss"}, lambda row: row["loss"], 1),
        ({"curriculum": "norm", "curriculum_order": "descending"}, lambda row: row["grad_norm"] / row["n_tokens"], -1),
        ({"curriculum": "gain", "curriculum_order": "descending"}, lambda row: row["score"], -1),
    ],
)
def test_curriculum(run, tmp_path, options, key, sign):
    choose(run, tmp_path / "replay", method="craig", **options)
    verify(VerifyConfig(replay=str(tmp_path / "replay")))
    loss = losses(run)
    rows = sorted(read_samples(tmp_path / "replay").to_pylist(), key=lambda row: row["order_rank"])
    assert [row["order_rank"] for row in rows] == list(range(len(rows)))
    values = [sign * key(row | {"loss": loss[row["sample_id"]]}) for row in rows]
    assert values == sorted(values)


def losses(run):
    runs = open_runs([str(run)])
    cells = [cell for shard in runs.shards for cell in read_cells(shard, CellReader(runs.schema))]
    return {
        name: float(loss)
        for cell in cells
        for name, loss in zip(cell.names, cell.columns["loss_sum"] / cell.columns["n_tokens"], strict=True)
    }


# --- checkpoints and the new domain


def test_checkpoints_side_by_side_have_equal_mean_squares(run, later):
    runs = open_checkpoints([str(run), str(later)])
    cells = [cell for shard in runs.shards for cell in read_cells(shard, CellReader(runs.schema, combine="difference"))]
    squares = np.sum([cell.squares for cell in cells], axis=0)
    scales = tuple(np.sqrt(squares[0] / squares))
    reader = CellReader(runs.schema, combine="concat", scales=scales)
    halves = np.zeros(2)
    for shard in runs.shards:
        for cell in read_cells(shard, reader, "cover"):
            k = cell.vectors.shape[1] // 2
            for half in range(2):
                lengths = (cell.vectors[:, half * k : (half + 1) * k] ** 2).sum(axis=1)
                halves[half] += cell.columns["corpus_mass"] @ lengths
    assert halves[0] == pytest.approx(halves[1], rel=1e-3)  # directions are stored as float16


def test_difference_is_what_moving_changed(run, later):
    runs = open_checkpoints([str(run), str(later)])
    one, two = population(run), population(later)
    reader = CellReader(runs.schema, "language", combine="difference")
    found = [cell for shard in runs.shards for cell in read_cells(shard, reader, "match")]
    assert np.concatenate([cell.names for cell in found]).tolist() == one["id"].tolist()
    assert np.concatenate([cell.vectors for cell in found]) == pytest.approx(two["g"] - one["g"], abs=1e-3)


@pytest.mark.parametrize("method", ["interference", "craig", "gradmatch"])
def test_what_the_new_domain_leaves_alone_counts_for_nothing(run, later, tmp_path, method):
    choose((run, later), tmp_path / "replay", method=method, combine="difference", mass="interference", group_by=None)
    verify(VerifyConfig(replay=str(tmp_path / "replay")))
    before, after = losses(run), losses(later)
    if method != "craig":  # of coverage such a sample may be the pick that others lie near to
        assert all(after[name] > before[name] for name in ids(tmp_path / "replay"))


@pytest.mark.parametrize("scope", ["shard", "global"])
def test_coverage_picks_nothing_that_counts_for_nothing(run, later, tmp_path, scope):
    """Also where the budget asks for more than the samples whose loss rises."""
    options = {"method": "craig", "combine": "difference", "mass": "interference", "budget": "90%", "scope": scope}
    choose((run, later), tmp_path / "replay", group_by=None, **options)
    rows = read_samples(tmp_path / "replay")
    rises = sum(cell.mass[cell.mass > 0].size for cell in rising_cells(run, later))
    assert 0 < rows.num_rows <= rises < 0.9 * sum(ROWS)
    assert min(rows["weight"].to_pylist()) > 0
    verify(VerifyConfig(replay=str(tmp_path / "replay")))


def rising_cells(run, later):
    runs = open_checkpoints([str(run), str(later)])
    reader = CellReader(runs.schema, combine="difference", rise=True, beta=1.0)
    return [cell for shard in runs.shards for cell in read_cells(shard, reader)]


def test_interference_to_first_order(run, tmp_path):
    new = build_run(tmp_path / "new", rows=(30,), prefix="new/", seed=0)
    choose(run, tmp_path / "replay", method="interference", new=str(new), group_by=None, budget="30 samples")
    mine, its = population(run, group_by=None), population(new)
    mean = its["g"].sum(axis=0) / its["n_tokens"].sum()
    rise = dict(zip(mine["id"], -(mine["g"] @ mean) / mine["n_tokens"], strict=True))
    assert all(rise[name] > 0 for name in ids(tmp_path / "replay"))


def test_groups_by_how_much_they_suffer(run, later, tmp_path):
    choose((run, later), tmp_path / "replay", method="uniform", combine="difference", group_mass="interference")
    before, after, everything = losses(run), losses(later), population(run)
    header = header_of(tmp_path / "replay")
    mass, rise = {}, {}
    for name, group, m in zip(everything["id"], everything["group"], everything["mass"], strict=True):
        mass[group] = mass.get(group, 0.0) + m
        rise[group] = rise.get(group, 0.0) + m * (after[name] - before[name])
    wanted = {group: max(0.0, rise[group]) for group in mass}  # mass · mean rise
    total = sum(wanted.values())
    for group in header["groups"]:
        expected = sum(mass.values()) * wanted[group["group"]] / total
        assert group["target_mass"] == pytest.approx(expected, rel=1e-4)


def test_groups_suffer_alike_by_samples_and_by_batches(run, later, tmp_path):
    for unit in ("sample", "batch"):
        options = {"combine": "difference", "group_mass": "interference", "unit": unit, "budget": "60%"}
        choose((run, later), tmp_path / unit, method="uniform", **options)
    targets = [[g["target_mass"] for g in header_of(tmp_path / unit)["groups"]] for unit in ("sample", "batch")]
    assert targets[0] == pytest.approx(targets[1], rel=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "mix-review", "phases": 4, "mix_decay": 0.1},
        {"method": "uniform", "phases": 2, "phase_budget": "1 sample"},
        {"method": "uniform", "budget": "60 tokens"},
        {"method": "gradmatch", "history": ("{none}",)},
    ],
)
def test_what_fails_leaves_the_old_manifest(run, tmp_path, options):
    choose(run, tmp_path / "replay", method="importance")
    before = {path: path.read_bytes() for path in (tmp_path / "replay").rglob("*") if path.is_file()}
    if options["method"] == "mix-review":
        with pytest.raises(UsageError, match=r"--mix-decay 0\.1 in phase"):
            choose(run, tmp_path / "replay", overwrite=True, dry_run=True, **options)
    with pytest.raises(UsageError):
        choose(run, tmp_path / "replay", overwrite=True, **options)
    assert {path: path.read_bytes() for path in (tmp_path / "replay").rglob("*") if path.is_file()} == before
    (tmp_path / "replay" / ".work").mkdir()
    (tmp_path / "replay" / ".work" / "left").write_text("by a call that was killed")
    verify(VerifyConfig(replay=str(tmp_path / "replay")))
    choose(run, tmp_path / "replay", overwrite=True, method="uniform")
    verify(VerifyConfig(replay=str(tmp_path / "replay")))
    assert not (tmp_path / "replay" / ".work").exists()


def test_what_fails_leaves_a_directory_that_was_there(run, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("real", "link"):
        with pytest.raises(UsageError, match="gets no sample"):
            choose(run, tmp_path / name, method="uniform", budget="60 tokens")
    assert list((tmp_path / "real").iterdir()) == []


def test_no_loss_that_rises(run, tmp_path):
    falling = build_run(tmp_path / "falling", rows=ROWS, pool=True, drift=1e-9)  # losses as good as equal
    for path in (falling / "embeddings").iterdir():
        table = pq.read_table(path)
        place = table.schema.get_field_index("loss_sum")
        values = pa.array(np.full(table.num_rows, 0.5), pa.float32())
        pq.write_table(table.set_column(place, table.schema.field(place), values), path)
    reseal_run(falling)
    with pytest.raises(UsageError, match="no loss that rises along the new domain"):
        choose((run, falling), tmp_path / "a", method="interference", combine="difference")
    with pytest.raises(UsageError, match="--group-mass interference: no group's loss rises"):
        choose((run, falling), tmp_path / "b", method="uniform", combine="difference", group_mass="interference")


@pytest.mark.parametrize("method", ["uniform", "craig", "gradmatch"])
@pytest.mark.parametrize("combine", ["concat", "difference"])
def test_methods_over_two_checkpoints(run, later, tmp_path, method, combine):
    """Residuals are of the gradients that were combined, in the same scale: a full selection leaves none."""
    choose((run, later), tmp_path / "replay", method=method, combine=combine)
    verify(VerifyConfig(replay=str(tmp_path / "replay")))
    (phase,) = header_of(tmp_path / "replay")["phases"]
    assert 0 < phase["residual"] < 5
    choose((run, later), tmp_path / "full", method="full", combine=combine, budget="100%")
    assert header_of(tmp_path / "full")["phases"][0]["validation_residual"] < 1e-6


def test_runs_that_are_no_checkpoints_of_each_other(run, tmp_path):
    shorter = build_run(tmp_path / "shorter", rows=(90, 60, 0, 120), pool=True, drift=0.5)
    for others, sentence in (
        ((shorter,), "does not hold the samples of"),
        ((), "several checkpoints are several runs"),
    ):
        with pytest.raises(UsageError, match=sentence):
            choose((run, *others), tmp_path / "replay", combine="concat")
    with pytest.raises(UsageError, match="are of the same checkpoint"):
        choose((run, run), tmp_path / "replay", combine="difference")
    with pytest.raises(UsageError, match=r"fingerprint of the weights differs.*--combine"):
        choose((run, shorter), tmp_path / "replay")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"group_by": None, "group_floor": "1%"}, "--group-floor is about groups; name their column with --group-by"),
        ({"method": "temperature", "group_by": None}, "name their column with --group-by"),
        ({"group_alpha": 0.5, "group_mass": "interference"}, "--group-alpha and --group-mass both set"),
        ({"method": "interference"}, "interference needs to know how losses rise"),
        ({"new": "x"}, "--new is read by interference"),
        ({"combine": "difference"}, "--combine difference takes two runs"),
        ({"unit": "batch", "scope": "global"}, "--unit batch chooses inside shards"),
        ({"partition": "cluster"}, "--partition cluster .* needs --scope global"),
        ({"partitions": 3}, "--partitions counts those of --partition cluster"),
        ({"history_mode": "cover"}, "--history-mode is read with --history; leave it out"),
        ({"method": "uniform", "neighbours": 5}, "--neighbours is read by craig and kmedoids; leave it out"),
        ({"method": "gradmatch", "similarity": "cosine"}, "--similarity is read by craig and kmedoids"),
        ({"method": "kmedoids", "refine": 7}, "--refine is read by craig; leave it out"),
        ({"ridge": 0.5}, "--ridge is read by gradmatch and gradmatch-batch;"),
        ({"method": "gradient-coreset", "ridge": 0.5}, "--ridge is read by gradmatch and gradmatch-batch;"),
        ({"method": "importance", "tolerance": 0.5}, "--tolerance is read by gradmatch"),
        ({"importance": "loss"}, "--importance is read by importance; leave it out"),
        ({"interference_beta": 2.0}, "--interference-beta is read by interference"),
        ({"batch_size": 4}, "--batch-size is read with --unit batch"),
        ({"group_alpha": 0.5, "group_by": None}, "--group-alpha is read with --group-by"),
        ({"history_discount": 0.2}, "--history-discount is read with --history-mode discount"),
        ({"curriculum_order": "descending"}, "--curriculum-order is read with --curriculum"),
        ({"realisation": "loss", "max_repeats": 2}, "--max-repeats is read with --realisation repeat"),
        ({"method": "temperature"}, "--method temperature needs --group-alpha below 1"),
        ({"method": "mix-review", "mix_ratio": 1.0}, "--mix-ratio and --budget 20% both say how much is drawn"),
        ({"method": "uniform", "curriculum": "gain"}, "--method uniform has no gain"),
        ({"curriculum_buckets": 3}, "--curriculum-buckets is read with --curriculum"),
        ({"curriculum": "loss", "realisation": "sampling"}, "leave out --curriculum"),
        ({"realisation": "loss", "replay_tokens": "5K"}, "leave out --replay-tokens"),
        ({"phases": 2}, "--method craig would choose the same in each"),
        ({"phase_budget": "5%"}, "--phase-budget is of later phases; give --phases"),
        ({"phase_budget": "5%", "phases": 2, "phase_run": ("x",)}, "give one"),
        ({"phases": 4, "phase_run": ("x",)}, "with 1 --phase-run there are 2"),
        ({"method": "mix-review", "phase_budget": "5%", "phases": 2}, "mix-review draws every phase afresh"),
        ({"mix_ratio": 2.0, "budget": "5%"}, "--mix-ratio is the replay of mix-review"),
        ({"mix_decay": 0.5}, "--mix-decay is of --method mix-review"),
        ({"method": "full", "budget": "20%"}, "--method full has --budget 100%; leave the option out"),
        ({"method": "full", "budget": "100%", "explore": 0.1}, "--explore sets a part of the budget aside"),
        ({"method": "gradmatch-batch", "scope": "global"}, "--unit batch chooses inside shards"),
        ({"explore": 1.5}, "--explore 1.5: must be a finite number between 0 and 1"),
        ({"history_discount": 0.0}, "--history-discount 0.0: must be a finite number between 1e-06 and 1"),
        ({"explore": 0.2, "curriculum": "gain"}, "--explore draws at random, and what is drawn has no gain"),
        ({"method": "gradmatch", "tolerance": 1.0}, "--tolerance 1 is reached without a pick"),
        (
            {"method": "interference", "new": "{new}", "phase_run": ("{new}",)},
            "--phase-run selects at later checkpoints, and --new is embedded at the first",
        ),
        ({"curriculum": "length"}, "--curriculum length: must be one of loss, norm, gain"),
        ({"group_floor": "lots"}, "--group-floor: 'lots' is not a budget"),
        ({"group_floor": "10 tokens"}, "--group-floor: --budget 20% counts samples"),
    ],
)
def test_options_that_do_not_go_together(run, tmp_path, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        choose(run, tmp_path / "replay", **options)
    assert not (tmp_path / "replay").exists()


@pytest.mark.parametrize("realisation", ["repeat", "loss", "sampling", "none"])
def test_realisations(run, tmp_path, realisation):
    choose(run, tmp_path / "replay", method="importance", realisation=realisation)
    verify(VerifyConfig(replay=str(tmp_path / "replay")))
    rows = read_samples(tmp_path / "replay")
    assert (rows["repeat"].to_numpy() == 1).all() == (realisation != "repeat")
    assert (rows["loss_weight"].to_numpy() == 1).all() == (realisation in ("sampling", "none"))


def test_a_dry_run_of_every_family(run, tmp_path):
    for method in ("uniform", "craig", "gradmatch", "full"):
        options = {"budget": "100%"} if method == "full" else {"budget": "20%"}
        config = SelectConfig(runs=(str(run),), out=str(tmp_path / "x"), method=method, dry_run=True, **options)
        assert select(config)["status"] == "dry-run"
    assert not (tmp_path / "x").exists()


def test_an_output_apart_from_what_is_read(run, tmp_path):
    for out in (run, run / "replay", run.parent):
        with pytest.raises(UsageError, match=r"--out .* (is the input itself|lies inside the input|holds the input)"):
            choose(run, out, method="uniform", overwrite=True)
    assert (run / "_SUCCESS").exists()


@pytest.mark.parametrize("explore", [0.3, 0.8])
def test_small_shards_fill_their_budget_beside_an_explored_draw(tmp_path, explore):
    """The explored draw takes no more of a shard than its share, as the rest is chosen shard by shard."""
    run = build_run(tmp_path / "run", rows=(3, 4, 2, 5, 60, 3, 3), block_rows=100)
    choose(run, tmp_path / "replay", method="craig", budget="95%", explore=explore, group_by=None)
    assert header_of(tmp_path / "replay")["phases"][0]["samples"] == 76
