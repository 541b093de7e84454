"""Every way in which a manifest or its corpus can be wrong is found, named by file and row."""

import json
import shutil
from functools import partial
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifest_builder import build_replay, change_samples, reseal

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.verification import samples
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verification.rows import Rows
from cptsel.pipeline.verify import verify

SAMPLES = "samples/000000.parquet"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pristine")
    built = build_replay(directory, shards=4, documents=8)
    order(OrderConfig(replay=str(built.replay), out=str(directory / "ordered"), epochs=2, world_size=2))
    return built


@pytest.fixture
def replay(pristine, tmp_path):
    return shutil.copytree(pristine.replay, tmp_path / "replay")


@pytest.fixture
def ordered(pristine, tmp_path):
    return shutil.copytree(pristine.replay.parent / "ordered", tmp_path / "ordered")


def problems(directory, **options):
    """(file, row, problem) of every problem listed; the error's sentence holds the first."""
    with pytest.raises(VerificationError) as error:
        verify(VerifyConfig(directory=str(directory), **options))
    with patch.object(samples, "Rows", partial(Rows, part_rows=3)), pytest.raises(VerificationError) as by_few:
        verify(VerifyConfig(directory=str(directory), **options))
    assert str(by_few.value) == str(error.value)  # how many rows are held at once changes nothing
    summary = error.value.summary
    assert by_few.value.summary == summary
    json.dumps(summary.as_dict())
    assert summary.status == "failed"
    rows = summary.tables[-1].rows
    assert rows[0][2] in str(error.value)
    assert "\n" not in str(error.value)
    return rows


def test_sound_manifests_pass(replay, ordered):
    for directory, checks in ((replay, 3), (ordered, 4)):
        summary = verify(VerifyConfig(directory=str(directory), sources=True))
        assert summary.status == "verified"
        assert [row[2] for row in summary.tables[0].rows] == ["ok"] * checks
        json.dumps(summary.as_dict())


def test_verifying_leaves_no_trace(replay, tmp_path):
    before = {name: (replay / name).read_bytes() for name in outputs.list_tree(str(replay))}
    verify(VerifyConfig(directory=str(replay), sources=True))
    assert {name: (replay / name).read_bytes() for name in outputs.list_tree(str(replay))} == before
    assert [path.name for path in tmp_path.iterdir()] == ["replay"]


@pytest.mark.parametrize(
    "name",
    ["_SUCCESS", "config.yaml", "stats.json", "CONSUMING.md", "SHA256SUMS", "manifest.json", "shards.parquet", SAMPLES],
)
def test_a_deleted_file_is_named(replay, name):
    (replay / name).unlink()
    assert [name, None, "is missing"] in problems(replay)


@pytest.mark.parametrize("name", ["samples/000077.parquet", "notes.txt", "more/x.parquet"])
def test_a_file_too_many_is_named(replay, name):
    (replay / name).parent.mkdir(exist_ok=True)
    (replay / name).write_bytes(b"?")
    assert problems(replay) == [[name, None, "does not belong to the manifest"]]


@pytest.mark.parametrize("name", ["CONSUMING.md", "shards.parquet", SAMPLES])
@pytest.mark.parametrize("place", [0.02, 0.5, 0.98])
def test_a_flipped_byte_is_found(replay, name, place):
    data = bytearray((replay / name).read_bytes())
    data[int(len(data) * place)] ^= 1
    (replay / name).write_bytes(data)
    assert any(file == name and "was changed after it was written" in what for file, _, what in problems(replay))


def test_a_truncated_file_is_found(replay):
    (replay / SAMPLES).write_bytes((replay / SAMPLES).read_bytes()[:-40])
    ((file, row, what),) = problems(replay)
    assert (file, row) == (SAMPLES, None)
    assert what.startswith("was changed after it was written")
    reseal(replay)
    assert problems(replay) == [[SAMPLES, None, "can't be read as Parquet"]]


@pytest.mark.parametrize(
    ("text", "phrase"), [("not a sum\n", "line 1 is not"), ("", "line 1 is not"), ("\xff", "decode")]
)
def test_damaged_sums(replay, text, phrase):
    (replay / "SHA256SUMS").write_bytes(text.encode("latin-1"))
    assert any(file == "SHA256SUMS" and phrase in what for file, _, what in problems(replay))


def test_a_file_left_out_of_the_sums_or_summed_wrongly(replay):
    sums = outputs.parse_sums((replay / "SHA256SUMS").read_text())
    del sums["manifest.json"]
    sums["shards.parquet"] = "0" * 64
    sums["elsewhere"] = "0" * 64
    (replay / "SHA256SUMS").write_text(outputs.sums_text(sums))
    found = problems(replay)
    assert ["SHA256SUMS", None, "does not list manifest.json"] in found
    assert ["SHA256SUMS", None, "lists elsewhere, which does not belong to the manifest"] in found
    assert any(file == "shards.parquet" and "SHA256SUMS" in what for file, _, what in found)


def test_a_changed_header_is_found(replay):
    path = replay / "manifest.json"
    path.write_text(path.read_text().replace('"method": "uniform"', '"method": "craig"'))
    assert any(file == "manifest.json" and "manifest_id does not match" in what for file, _, what in problems(replay))


@pytest.mark.parametrize(
    ("text", "phrase"), [("{", "not valid JSON"), ('{"format": "cptsel.replay"}', "required property")]
)
def test_an_unreadable_header_is_found(replay, text, phrase):
    (replay / "manifest.json").write_text(text)
    assert any(file == "manifest.json" and phrase in what for file, _, what in problems(replay))


@pytest.mark.parametrize(
    ("column", "value", "phrase"),
    [
        ("weight", -1.0, "weight is -1.0, out of its range"),
        ("weight", float("nan"), "weight is nan, out of its range"),
        ("loss_weight", 0.123, "loss_weight is"),
        ("loss_weight", float("inf"), "loss_weight is inf, out of its range"),
        ("repeat", 5, "repeat is 5, out of its range"),
        ("repeat", -1, "repeat is -1, out of its range"),
        ("inclusion_prob", 0.0, "inclusion_prob is 0.0, out of its range"),
        ("inclusion_prob", 1.5, "inclusion_prob is 1.5, out of its range"),
        ("n_tokens", 0, "n_tokens is 0, out of its range"),
        ("n_tokens", 9, "n_tokens is 9, out of its range"),
        ("token_count", 9, "token_count is 9, out of its range"),
        ("grad_norm", float("nan"), "grad_norm is nan, out of its range"),
        ("phase", 1, "its phase and group are not in manifest.json"),
        ("group", "neither", "its phase and group are not in manifest.json"),
        ("shard_id", 2, "shard_id is 2, out of its range"),
        ("row_index", 99, "doc_key is not the hash of its path and row"),
        ("row_index", 10, "row_index is 10, out of its range"),
        ("row_index", -1, "row_index is -1, out of its range"),
        ("doc_key", "0" * 32, "doc_key is not the hash of its path and row"),
        ("char_end", 1, "sample_id is not the hash of its document and window"),
        ("char_start", 9999, "char_start and char_end span no window"),
        ("char_start", None, "char_start and char_end span no window"),
        ("sample_id", "0" * 32, "sample_id is not the hash of its document and window"),
        ("sample_id", "x", "sample_id is not the hash of its document and window"),
    ],
)
def test_a_changed_value_is_found_though_all_sums_are_right(replay, column, value, phrase):
    change_samples(replay, 0, lambda rows: rows[0].update({column: value}))
    reseal(replay)
    found = problems(replay)
    assert any(file == SAMPLES and row == 0 and phrase in what for file, row, what in found), found


@pytest.mark.parametrize(
    ("factor", "phrase"),
    [({"repeat": 1}, "replay_tokens"), ({"weight": 1 + 1e-8, "loss_weight": 1 + 1e-8}, "target_mass")],
)
def test_a_change_that_only_totals_show(replay, factor, phrase):
    """Every row alone is possible: repeats one higher, or all weights a hundred-millionth larger."""

    def change(rows):
        if "repeat" in factor:
            next(row for row in rows if row["repeat"] < 4)["repeat"] += 1
        else:
            for row in rows:
                row.update({key: row[key] * by for key, by in factor.items()})

    for shard in range(1 if "repeat" in factor else 4):
        change_samples(replay, shard, change)
    reseal(replay)
    found = problems(replay)
    assert any(file == "manifest.json" and phrase in what for file, _, what in found)
    assert any(file == "shards.parquet" for file, _, _ in found)


def consistent(replay, row_of, change):
    """Change one sample and every count that follows from it, so that all sums are right. Returns (file, row)."""
    found = []

    def alter(rows):
        row = next(index for index, row in enumerate(rows) if row_of(row))
        before = rows[row]["repeat"]
        rows[row].update(change(rows[row]))
        found.extend([row, rows[row]["group"], rows[row]["repeat"] - before, rows[row]["n_tokens"]])

    change_samples(replay, 0, alter)
    row, group, plays, n_tokens = found
    path = replay / "shards.parquet"
    shards = pq.read_table(path)
    rows = shards.to_pylist()
    rows[0]["replay_tokens"] += plays * n_tokens
    io.write_parquet(str(path), pa.Table.from_pylist(rows, schema=shards.schema))

    def header(h):
        h["totals"]["plays"] += plays
        h["totals"]["replay_tokens"] += plays * n_tokens
        h["weighting"]["replay_tokens"]["realised"] += plays * n_tokens
        next(entry for entry in h["groups"] if entry["group"] == group)["replay_tokens"] += plays * n_tokens

    reseal(replay, header)
    return row


def request(header, tokens):
    """Ask for so many replay tokens, everywhere in the header."""
    replay = header["weighting"]["replay_tokens"]
    for entry in header["groups"]:
        entry["replay_requested"] *= tokens / replay["requested"]
    replay["requested"] = tokens


@pytest.mark.parametrize("step", [1, -1])
def test_a_repeat_of_another_weight_is_found_though_all_sums_agree(replay, step):
    row = consistent(replay, lambda row: 1 <= row["repeat"] < 4, lambda row: {"repeat": row["repeat"] + step})
    ((file, found, what),) = problems(replay)
    assert (file, found) == (SAMPLES, row)
    assert "its weight, the replay tokens and the seed make it" in what


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["selection"]["options"].update(seed=1),
        lambda h: h["weighting"].update(max_repeats=5),
        lambda h: request(h, h["weighting"]["replay_tokens"]["requested"] + 200),
    ],
)
def test_repeats_of_another_seed_cap_or_budget_are_found(replay, change):
    reseal(replay, change)
    found = problems(replay)
    assert all(file.startswith("samples/") and "repeat is" in what for file, _, what in found), found


def test_a_manifest_without_a_seed_or_with_another_shortfall(replay):
    reseal(replay, lambda h: h["weighting"]["replay_tokens"].update(shortfall=3.0))
    said = "replay_tokens.shortfall of phase 0 is 3.0, but the cap leaves 0.0"
    assert problems(replay) == [["manifest.json", None, said]]
    reseal(replay, lambda h: h["selection"]["options"].clear())
    assert "has no seed" in problems(replay)[0][2]


@pytest.mark.parametrize("key", ["population_samples", "population_tokens", "population_mass"])
def test_groups_that_do_not_divide_the_population_are_found(replay, key):
    reseal(replay, lambda h: h["groups"][0].update({key: h["groups"][0][key] + 1}))
    ((file, _, what),) = problems(replay)
    assert file == "manifest.json"
    assert what.startswith(f"{key} of the groups of phase 0 add up to")


def test_weights_and_target_masses_that_do_not_add_up_to_the_population_are_found(replay):
    """All weights twice as large and the targets with them: only T tells."""
    for shard in range(4):
        change_samples(replay, shard, lambda rows: [row.update(weight=row["weight"] * 2) for row in rows])
    shards = pq.read_table(replay / "shards.parquet")
    rows = [{**row, "selected_mass": row["selected_mass"] * 2} for row in shards.to_pylist()]
    io.write_parquet(str(replay / "shards.parquet"), pa.Table.from_pylist(rows, schema=shards.schema))
    reseal(replay, lambda h: [entry.update(target_mass=entry["target_mass"] * 2) for entry in h["groups"]])
    ((file, _, what),) = problems(replay)
    assert file == "manifest.json"
    assert what.startswith("target_mass of the groups of phase 0 add up to")


def test_a_weight_that_breaks_the_mass_of_its_group_is_found(replay):
    change_samples(replay, 0, lambda rows: rows[0].update(weight=rows[0]["weight"] * 1.5))
    reseal(replay)
    assert any(file == "manifest.json" and "target_mass of group" in what for file, _, what in problems(replay))


def test_a_sample_given_twice_is_found(replay):
    change_samples(replay, 0, lambda rows: rows.append({**rows[3]}))
    reseal(replay)
    last = pq.read_metadata(replay / SAMPLES).num_rows - 1
    found = problems(replay)
    assert [SAMPLES, last, "an earlier row of the same phase has its sample_id"] in found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Manifests of other realisations, phases and orders, made once: a function from options to a directory."""
    directory, found = tmp_path_factory.mktemp("made"), {}

    def build(**options):
        key = "-".join(map(str, sorted(options.items())))
        if key not in found:
            (directory / str(len(found))).mkdir()
            found[key] = build_replay(directory / str(len(found)), shards=4, documents=6, **options)
        return found[key].replay

    return build


@pytest.mark.parametrize("curriculum", [False, True])
@pytest.mark.parametrize("phases", [1, 3])
@pytest.mark.parametrize("realisation", ["repeat", "loss", "sampling", "none"])
def test_every_realisation_order_and_number_of_phases_is_sound(made, realisation, phases, curriculum):
    replay = made(realisation=realisation, phases=phases, curriculum=curriculum)
    assert verify(VerifyConfig(directory=str(replay))).status == "verified"


@pytest.mark.parametrize("realisation", ["loss", "none"])
def test_schedules_of_every_phase_and_realisation_are_checked(made, tmp_path, realisation):
    replay, ordered = made(realisation=realisation, phases=3, curriculum=True), tmp_path / "ordered"
    order(OrderConfig(replay=str(replay), out=str(ordered), epochs=2, world_size=2))
    assert verify(VerifyConfig(directory=str(ordered))).status == "verified"
    change_rows(ordered / "schedule/2-1.parquet", lambda rows: rows[1].update(q=rows[1]["q"] * (1 + 1e-8)))
    reseal(ordered)
    found = problems(ordered)
    assert ["schedule/2-1.parquet", 1, "q is not the shard's proposal"] in found
    assert {file for file, _, _ in found} == {"schedule/2-1.parquet"}


def change_rows(path, change):
    """Rewrite a Parquet file after ``change(rows: list[dict])`` has had its way with the rows."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    io.write_parquet(str(path), pa.Table.from_pylist(rows, schema=table.schema))


@pytest.mark.parametrize(
    ("realisation", "column", "value", "phrase"),
    [
        ("loss", "repeat", 2, "repeat is 2, out of its range"),
        ("loss", "repeat", 0, "repeat is 0, out of its range"),
        ("loss", "loss_weight", 1.0, "times weight, not"),
        ("sampling", "repeat", 0, "repeat is 0, out of its range"),
        ("sampling", "loss_weight", 1.5, "loss_weight is 1.5, out of its range"),
        ("none", "repeat", 2, "repeat is 2, out of its range"),
        ("none", "loss_weight", 0.5, "loss_weight is 0.5, out of its range"),
    ],
)
def test_rows_that_their_realisation_does_not_have(made, tmp_path, realisation, column, value, phrase):
    replay = shutil.copytree(made(realisation=realisation), tmp_path / "replay")
    change_samples(replay, 0, lambda rows: rows[2].update({column: value}))
    reseal(replay)
    found = problems(replay)
    assert any(file == SAMPLES and row == 2 and phrase in what for file, row, what in found), found


@pytest.mark.parametrize(
    ("realisation", "change", "phrase"),
    [
        ("loss", lambda h: h.update(required_features=[]), "required_features is [], but realisation 'loss' needs"),
        (
            "sampling",
            lambda h: h.update(required_features=["loss_weight"]),
            "realisation 'sampling' needs ['sampling']",
        ),
        ("none", lambda h: request(h, 7), "requested of phase 0 is 7, but every sample is played once"),
        ("loss", lambda h: request(h, 7), "requested of phase 0 is 7, but every sample is played once"),
        (
            "sampling",
            lambda h: h["weighting"]["replay_tokens"].update(shortfall=2),
            "shortfall of phase 0 is 2, but there is no cap",
        ),
    ],
)
def test_headers_that_their_realisation_does_not_have(made, tmp_path, realisation, change, phrase):
    replay = shutil.copytree(made(realisation=realisation), tmp_path / "replay")
    reseal(replay, change)
    assert any(file == "manifest.json" and phrase in what for file, _, what in problems(replay))


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda h: h["phases"][1].pop("replay_tokens"), "phase 1 has no replay_tokens"),
        (lambda h: h["phases"][1]["replay_tokens"].update(realised=1), "replay_tokens.realised of phase 1 is 1"),
        (
            lambda h: h["phases"][1]["replay_tokens"].update(shortfall=1),
            "shortfall of phase 1 is 1, but the cap leaves",
        ),
        (lambda h: h["weighting"]["replay_tokens"].update(requested=1), "requested is 1, but the phases add up to"),
        (lambda h: h["phases"][2].update(samples=1), "samples of phase 2 is 1"),
    ],
)
def test_a_phase_that_says_something_else(made, tmp_path, change, phrase):
    replay = shutil.copytree(made(phases=3), tmp_path / "replay")
    reseal(replay, change)
    assert any(file == "manifest.json" and phrase in what for file, _, what in problems(replay))


def test_repeats_of_a_later_phase_hang_on_its_own_replay_tokens(made, tmp_path):
    replay = shutil.copytree(made(phases=3), tmp_path / "replay")

    def swap(header):
        """Ten tokens go from phase 1 to phase 2; all sums are as before."""
        for phase, change in ((1, -10), (2, 10)):
            replay_tokens = header["phases"][phase]["replay_tokens"]
            for entry in header["groups"]:
                if entry["phase"] == phase:
                    entry["replay_requested"] *= 1 + change / replay_tokens["requested"]
            replay_tokens["requested"] += change

    reseal(replay, swap)
    found = problems(replay)
    assert all("repeat is" in what for _, _, what in found)
    phases = {pq.read_table(replay / file)["phase"].to_pylist()[row] for file, row, _ in found}
    assert phases == {1, 2}


@pytest.mark.parametrize("curriculum", [False, True])
def test_ranks_that_are_no_order_of_the_phase(made, tmp_path, curriculum):
    replay = shutil.copytree(made(curriculum=curriculum), tmp_path / "replay")
    count = json.loads((replay / "manifest.json").read_text())["totals"]["selected_samples"]
    before = [row["order_rank"] for row in pq.read_table(replay / SAMPLES).to_pylist()]
    for rank, row, what in (
        (-1, 0, f"order_rank is -1, but its phase has {count} samples"),
        (count, 0, f"order_rank is {count}, but its phase has {count} samples"),
        (before[1], 1, "an earlier row of the same phase has its order_rank"),
    ):
        change_samples(replay, 0, lambda rows, rank=rank: rows[0].update(order_rank=rank))
        reseal(replay)
        assert [problem for problem in problems(replay) if problem[:2] == [SAMPLES, row]] == [[SAMPLES, row, what]]
    change_samples(replay, 0, lambda rows: [rows[0].update(order_rank=before[0]), rows[1].update(order_rank=before[0])])
    reseal(replay)
    assert problems(replay) == [[SAMPLES, 1, "an earlier row of the same phase has its order_rank"]]
    change_samples(replay, 0, lambda rows: [rows[0].update(order_rank=before[1]), rows[1].update(order_rank=before[0])])
    reseal(replay)
    found = problems(replay)
    assert [[file, row] for file, row, _ in found] == [[SAMPLES, 0], [SAMPLES, 1]]
    order = "by norm descending in 4 buckets" if curriculum else "in the corpus"
    assert found[0][2] == f"order_rank is {before[1]}, not its place {order}"


def test_a_dropped_row_is_found(replay):
    change_samples(replay, 0, lambda rows: rows.pop())
    reseal(replay)
    found = problems(replay)
    assert any(file == "manifest.json" and "totals.selected_samples is" in what for file, _, what in found)


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda h: h["totals"].update(plays=1), "totals.plays is 1"),
        (lambda h: h["totals"].update(population_samples=1), "totals.population_samples is 1"),
        (lambda h: h["totals"].update(population_mass=1.0), "totals.population_mass is 1.0"),
        (lambda h: h["phases"][0].update(tokens=1), "tokens of phase 0 is 1"),
        (lambda h: h["groups"][0].update(target_mass=1.0), "target_mass of group 'even' of phase 0 is 1.0"),
        (lambda h: h["groups"][1].update(selected_samples=1), "selected_samples of group 'odd' of phase 0 is 1"),
        (lambda h: h["groups"][1].update(replay_requested=1.0), "replay_requested of group 'odd' of phase 0 is 1.0"),
        (
            lambda h: h.update(required_features=["loss_weight"]),
            "required_features is ['loss_weight'], but realisation",
        ),
        (lambda h: h["phases"][0].update(order="norm"), "order.kind is 'corpus', but its phases go by norm"),
        (lambda h: h["order"].update(kind="curriculum"), "order.kind is 'curriculum', but its phases go by corpus"),
        (lambda h: h["weighting"]["replay_tokens"].update(realised=1), "weighting.replay_tokens.realised is 1"),
        (lambda h: h["files"][SAMPLES].update(rows=1), "but manifest.json says 1"),
        (lambda h: h["files"].update({"samples/000009.parquet": h["files"][SAMPLES]}), "is missing"),
    ],
)
def test_a_header_that_says_something_else(replay, change, phrase):
    reseal(replay, change)
    assert any(phrase in what for _, _, what in problems(replay))


@pytest.mark.parametrize(
    ("name", "change", "phrase"),
    [
        (SAMPLES, lambda table: table.drop_columns(["weight"]), "column 'weight' is missing"),
        (SAMPLES, lambda table: with_column(table, "repeat", pa.float64()), "column 'repeat' is double, not int32"),
        ("shards.parquet", lambda table: with_column(table, "uri", pa.string(), None), "column 'uri' has nulls"),
    ],
)
def test_a_wrong_schema_is_named(replay, name, change, phrase):
    io.write_parquet(str(replay / name), change(pq.read_table(replay / name)))
    reseal(replay)
    assert problems(replay) == [[name, None, phrase]]


def with_column(table, name, kind, *first):
    """The table with a column of another type, its first value replaced if one is given."""
    values = [*first, *table[name].to_pylist()[len(first) :]]
    return table.set_column(table.schema.get_field_index(name), pa.field(name, kind), pa.array(values, kind))


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda rows: rows.pop(), "lacks 1 visit,"),
        (lambda rows: rows.append(rows[0]), "is listed twice"),
        (lambda rows: rows[0].update(tokens=1), "(samples, tokens) are"),
        (lambda rows: rows[0].update({"pass": 9}), "plays nothing"),
        (lambda rows: rows[0].update(rank=2), "rank is 2, outside the world size"),
        (lambda rows: rows[1].update(position=7), "position is 7, not the next"),
        (lambda rows: rows[0].update(order=7), "order is 7, not its place by pass and priority"),
        (lambda rows: rows[0].update(q=7.0), "q is not the shard's proposal"),
        (lambda rows: rows[0].update(priority=7.0), "priority is not q / u of the recorded seed"),
        (lambda rows: rows.reverse(), "below that of the row before"),
    ],
)
def test_a_changed_schedule_is_found(ordered, change, phrase):
    change_rows(ordered / "schedule/0-1.parquet", change)
    reseal(ordered)
    found = problems(ordered)
    assert any(file == "schedule/0-1.parquet" and phrase in what for file, _, what in found), found


def test_schedules_must_be_those_of_the_header(ordered):
    reseal(ordered, lambda header: header["order"].update(epochs=3))
    assert ["schedule/0-2.parquet", None, "is missing: the manifest has this phase and epoch"] in problems(ordered)
    reseal(ordered, lambda header: header["order"].update(epochs=1))
    assert ["schedule/0-1.parquet", None, "is of no phase and epoch of the manifest"] in problems(ordered)


def test_shards_must_hold_the_first_epochs_order(ordered):
    shards = pq.read_table(ordered / "shards.parquet")
    rows = shards.to_pylist()
    rows[2]["order"] += 1
    io.write_parquet(str(ordered / "shards.parquet"), pa.Table.from_pylist(rows, schema=shards.schema))
    reseal(ordered)
    assert problems(ordered)[0][:2] == ["shards.parquet", 2]


def test_what_follows_from_a_lost_file_is_not_reported(ordered):
    (ordered / SAMPLES).unlink()
    assert problems(ordered) == [[SAMPLES, None, "is missing"]]


@pytest.fixture
def moved(pristine, replay, tmp_path):
    """The corpus in another place, to be damaged, and the manifest that is read with --root."""
    return replay, shutil.copytree(pristine.corpus, tmp_path / "moved")


def test_a_moved_corpus_is_found_by_root(moved):
    replay, corpus = moved
    assert verify(VerifyConfig(directory=str(replay), sources=True, root=str(corpus))).status == "verified"
    found = problems(replay, sources=True, root=str(corpus / "nowhere"))
    assert len(found) == 4
    assert found[0][0] == str(corpus / "nowhere" / "part-00.jsonl")
    assert found[0][2] == "is missing"


def test_an_error_has_one_mend(moved):
    replay, corpus = moved

    def said(**options):
        with pytest.raises(VerificationError) as error:
            verify(VerifyConfig(directory=str(replay), sources=True, root=str(corpus), **options))
        return str(error.value)

    (corpus / "part-01.jsonl.gz").unlink()
    assert said() == (
        f"{replay}: 1 problem: {corpus}/part-01.jsonl.gz: is missing; "
        "restore the file, or pass --root where the corpus lies now"
    )
    (replay / "shards.parquet").unlink()
    assert said().endswith("shards.parquet is missing; restore it or make the manifest again")


def test_a_changed_text_is_named_by_file_and_row(moved):
    replay, corpus = moved
    path = corpus / "part-00.jsonl"
    lines = path.read_bytes().split(b"\n")
    row = pq.read_table(replay / SAMPLES).to_pylist()[0]
    assert row["char_start"] == 0
    changed = json.loads(lines[row["row_index"]])
    changed["text"] = ("X" if changed["text"][0] != "X" else "Y") + changed["text"][1:]
    ascii_only = lines[row["row_index"]].isascii()
    lines[row["row_index"]] = json.dumps(changed, ensure_ascii=ascii_only).encode()
    path.write_bytes(b"\n".join(lines))
    found = problems(replay, sources=True, root=str(corpus))
    assert any(file == str(path) and "is not the file that was embedded" in what for file, _, what in found)
    what = f"the text of row {row['row_index']} of the corpus is not what was embedded (content_hash differs)"
    assert [SAMPLES, 0, what] in found


@pytest.mark.parametrize("name", ["part-00.jsonl", "part-01.jsonl.gz", "part-02.jsonl.zst", "part-03.parquet"])
def test_a_damaged_shard_is_named(moved, name):
    replay, corpus = moved
    data = (corpus / name).read_bytes()
    (corpus / name).write_bytes(data[: len(data) // 2])
    found = problems(replay, sources=True, root=str(corpus))
    assert any(file == str(corpus / name) and "is not the file that was embedded" in what for file, _, what in found)
    samples = f"samples/{int(name[5:7]):06d}.parquet"
    assert any(file == samples and row is not None and "can't be read" in what for file, row, what in found)


def test_a_wrong_byte_offset_is_found_in_a_sound_corpus(replay):
    change_samples(replay, 0, lambda rows: [row.update(byte_offset=row["byte_offset"] + 1) for row in rows])
    reseal(replay)
    assert all("byte offset" in what for _, _, what in problems(replay, sources=True))


def test_two_workers_find_the_same(moved):
    replay, corpus = moved
    (corpus / "part-01.jsonl.gz").unlink()
    one = problems(replay, sources=True, root=str(corpus))
    assert problems(replay, sources=True, root=str(corpus), workers=2) == one


def test_what_is_no_manifest_is_a_usage_error(pristine, tmp_path):
    with pytest.raises(
        UsageError, match="nowhere: there is no such directory, or it is empty; name the output of cptsel embed"
    ):
        verify(VerifyConfig(directory=str(tmp_path / "nowhere")))
    with pytest.raises(UsageError, match="not a replay manifest"):
        verify(VerifyConfig(directory=str(pristine.corpus)))


def test_a_root_without_sources_is_a_usage_error(pristine):
    with pytest.raises(UsageError, match="--root says where --sources finds the corpus; give --sources too"):
        verify(VerifyConfig(directory=str(pristine.replay), root=str(pristine.corpus)))


@pytest.mark.parametrize("options", [{"beam_args": ("--runner=Nope",)}, {"workers": 0}])
def test_options_that_beam_refuses_are_a_usage_error(replay, options):
    with pytest.raises(UsageError, match=r"--runner=Nope|--workers 0"):
        verify(VerifyConfig(directory=str(replay), sources=True, **options))


def test_an_unknown_feature_is_a_usage_error(replay):
    header = json.loads((replay / "manifest.json").read_text())
    (replay / "manifest.json").write_text(json.dumps(header | {"required_features": ["teleport"]}))
    with pytest.raises(UsageError, match="needs teleport"):
        verify(VerifyConfig(directory=str(replay)))
