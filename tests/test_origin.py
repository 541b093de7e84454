"""``verify --run`` and ``--expect``: what somebody changed who made all checksums anew is found against the run."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifest_builder import change_samples, reseal, with_visits
from run_builder import build_run
from selection_builder import choose, read_samples

from cptsel.cli.main import main
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.export import export
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify


@pytest.fixture
def replay(run, tmp_path):
    choose(run, tmp_path / "replay", method="craig", scope="global")
    return tmp_path / "replay"


def found(directory, **options):
    with pytest.raises(VerificationError) as error:
        verify(VerifyConfig(directory=str(directory), **options))
    return [tuple(row) for row in error.value.summary.tables[-1].rows]


def test_a_manifest_is_what_its_run_and_its_id_say(replay, run, later, tmp_path):
    header = json.loads((replay / "manifest.json").read_text())
    summary = verify(VerifyConfig(directory=str(replay), run=(str(run),), expect=header["manifest_id"]))
    assert summary.status == "verified"
    assert ["embedding runs", f"{header['totals']['selected_samples']:,} samples, 4 shards", "ok"] in [
        list(row) for row in summary.tables[0].rows
    ]
    choose((run, later), tmp_path / "combined", method="gradmatch", combine="concat")
    for named in ((run,), (later,), (run, later), (later, run)):
        summary = verify(VerifyConfig(directory=str(tmp_path / "combined"), run=tuple(map(str, named))))
        assert summary.status == "verified"
        extent = next(row[1] for row in summary.tables[0].rows if row[0] == "embedding runs")
        assert ("gradient norms of" in extent) == (named == (later,))


def test_every_phase_is_held_against_its_own_run(run, later, tmp_path):
    choose(run, tmp_path / "replay", method="craig", phase_run=(str(later),))
    replay, samples = tmp_path / "replay", len(read_samples(tmp_path / "replay"))
    for named, others in (((run,), 1), ((later,), 1), ((run, later), 0), ((later, run), 0)):
        summary = verify(VerifyConfig(directory=str(replay), run=tuple(map(str, named))))
        extent = next(row[1] for row in summary.tables[0].rows if row[0] == "embedding runs")
        assert extent.startswith(f"{samples:,} samples")
        assert extent.count("gradient norms") == others
    name = sorted(path.name for path in (replay / "samples").iterdir())[0]
    change_samples(replay, int(name.split(".")[0]), lambda rows: [row.update(grad_norm=0.5) for row in rows])
    reseal(replay)
    with_visits(replay)
    phases = {row["phase"] for row in read_samples(replay).to_pylist()}
    wrong = found(replay, run=(str(run), str(later)))
    assert phases == {0, 1}
    assert {what for _, _, what in wrong} == {"grad_norm is not that of the run"}


@pytest.mark.parametrize("group_by", ["language", None])
@pytest.mark.parametrize("method", ["craig", "importance"])
def test_a_choice_is_proved_by_making_it_again(run, tmp_path, method, group_by):
    """Weights, scores and inclusion probabilities follow from the run and the saved options: same bytes, same id."""
    choose(run, tmp_path / "replay", method=method, explore=0.2, seed=3, group_by=group_by)
    config = ["--config", str(tmp_path / "replay" / "config.yaml"), "--out", str(tmp_path / "again")]
    assert main(["select", *config]) == 0
    header = json.loads((tmp_path / "replay" / "manifest.json").read_text())
    assert verify(VerifyConfig(directory=str(tmp_path / "again"), expect=header["manifest_id"])).status == "verified"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("token_start", 3),
        ("byte_offset", 12345),
        ("byte_length", 7),
        ("grad_norm", 0.125),
        ("doc_id", "x"),
    ],
)
def test_a_value_that_only_the_run_knows(replay, run, column, value):
    name = sorted(path.name for path in (replay / "samples").iterdir())[0]
    change_samples(replay, int(name.split(".")[0]), lambda rows: rows[0].update({column: value}))
    reseal(replay)
    with_visits(replay)
    assert (f"samples/{name}", 0, f"{column} is not that of the run") in found(replay, run=(str(run),))


def test_columns_that_a_reader_relies_on(replay, run):
    name = sorted(path.name for path in (replay / "samples").iterdir())[0]
    change_samples(replay, int(name.split(".")[0]), lambda rows: rows[0].update({"method": "magic"}))
    reseal(replay)
    assert (f"samples/{name}", 0, "its method is not that in manifest.json") in found(replay)


def test_another_run_is_named(replay, run, tmp_path):
    other = build_run(tmp_path / "other", rows=(30, 30))
    config = VerifyConfig(directory=str(replay), run=(str(other),))
    with pytest.raises(UsageError, match=r"was not selected from it .*; name the run that cptsel select was given"):
        verify(config)
    with pytest.raises(UsageError, match="is not an embedding run"):
        verify(VerifyConfig(directory=str(replay), run=(str(replay),)))
    header = json.loads((replay / "manifest.json").read_text())
    (replay / "manifest.json").write_text(json.dumps(header | {"parent": "0" * 64}))
    problems = [problem for _, _, problem in found(replay, run=(str(other),))]
    assert any("was not selected from it" in problem for problem in problems)  # beside what else is wrong
    assert any("manifest_id does not match" in problem for problem in problems)


def test_the_id_is_what_was_expected(replay, run):
    header = json.loads((replay / "manifest.json").read_text())
    reseal(replay, lambda header: header["selection"]["options"].update(note="forged"))
    problems = found(replay, expect=header["manifest_id"])
    assert [file for file, _, problem in problems if "is another one than was expected" in problem] == ["manifest.json"]
    run_id = json.loads((run / "run.json").read_text())["run_id"]
    assert verify(VerifyConfig(directory=str(run), expect=run_id)).status == "verified"
    assert found(run, expect="0" * 64)[0][0] == "run.json"


def test_the_page_for_the_trainer_is_the_one_of_the_header(replay):
    page = (replay / "CONSUMING.md").read_text()
    (replay / "CONSUMING.md").write_text(page.replace("repeat", "ignore"))
    reseal(replay, page=False)
    assert ("CONSUMING.md", None, "is not the page that belongs to manifest.json") in found(replay)


@pytest.mark.parametrize(("column", "value"), [("compression", "evil"), ("format", "evil")])
def test_a_format_that_no_one_reads_is_no_internal_error(replay, tmp_path, column, value):
    path = replay / "shards.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index(column)
    changed = table.set_column(place, table.schema.field(place), pa.array([value] * len(table)))
    pq.write_table(changed, path)
    reseal(replay)
    (problem, *_) = found(replay)
    assert problem[0] == "shards.parquet"
    assert f"{column} is 'evil'" in problem[2]
    with pytest.raises((VerificationError, UsageError, Exception)) as error:
        export(ExportConfig(replay=str(replay), out=str(tmp_path / "out")))
    assert type(error.value).__module__ == "cptsel.pipeline.errors"
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
