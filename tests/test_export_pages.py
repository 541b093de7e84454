"""An export as a data set: the card by which Hugging Face's loader reads it, and its Croissant metadata."""

import json
import re
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import load_dataset, load_from_disk
from export_tampering import header_of, reseal_export
from manifest_builder import build_replay

from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.export import export
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.exports.croissant import FIELDS
from cptsel.pipeline.exports.registry import EXPORTS
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify

HELD = [name for name, format in EXPORTS.items() if format.media is not None]


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    """Beam is not the point here."""
    monkeypatch.setattr("cptsel.pipeline.verification.scratch.Steps", InlineSteps)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_replay(tmp_path_factory.mktemp("built"), shards=4, documents=6)


@pytest.fixture(scope="module")
def exported(built, tmp_path_factory):
    """An export in each format, made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("exports"), set()

    def get(to):
        if to not in made:
            make(built.replay, folder / to, to=to, license="cc-by-4.0")
            made.add(to)
        return folder / to

    return get


def make(replay, out, **options):
    export(ExportConfig(replay=str(replay), out=str(out), **options), make_steps=InlineSteps)
    return Path(out)


def front_of(out):
    """The card's front matter."""
    _, front, _ = (out / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front)


def load(out, name, cache):
    return load_dataset(str(out), name, split="train", cache_dir=str(cache))


@pytest.mark.parametrize("to", [to for to in HELD if EXPORTS[to].media.loads])
def test_the_hubs_loader_reads_plays_in_order_by_the_card(built, exported, tmp_path, to):
    found = load(exported(to), None, tmp_path)
    rows = [row.get("json", row) for row in found]
    expected = [(s["sample_id"], number) for _, s, number in built.sequence()]
    assert [(row["sample_id"], row["repeat"]) for row in rows] == expected


def test_phases_and_epochs_are_configurations(tmp_path):
    built = build_replay(tmp_path, shards=3, documents=6, phases=2)
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "ordered"), epochs=2, world_size=2))
    out = make(tmp_path / "ordered", tmp_path / "out", to="parquet")
    names = [f"phase-{phase:03d}-epoch-{epoch:03d}" for phase in (0, 1) for epoch in (0, 1)]
    assert [config["config_name"] for config in front_of(out)["configs"]] == ["default", *names]
    whole = load(out, None, tmp_path / "cache")["sample_id"]
    each = [load(out, name, tmp_path / "cache")["sample_id"] for name in names]
    assert [name for part in each for name in part] == list(whole)
    assert len(each[0]) == sum(s["repeat"] for s in built.samples if s["phase"] == 0)
    metadata = json.loads((out / "croissant.json").read_text())
    assert [records["name"] for records in metadata["recordSet"]] == names
    assert load_dataset(str(out), names[3], split="train", cache_dir=str(tmp_path / "cache")).num_rows == len(each[3])


@pytest.mark.parametrize("to", HELD)
def test_every_file_and_field_is_described(exported, to):
    out = exported(to)
    metadata, header = json.loads((out / "croissant.json").read_text()), header_of(out)
    files = {entry["@id"]: entry for entry in metadata["distribution"] if entry["@type"] == "cr:FileObject"}
    assert {name: entry["sha256"] for name, entry in files.items()} == {
        name: entry["sha256"] for name, entry in header["files"].items()
    }
    fields = [field["name"] for records in metadata["recordSet"] for field in records["field"]]
    assert sorted(fields) == sorted(EXPORTS[to].keeps)
    assert set(fields) <= set(FIELDS)
    assert metadata["license"] == front_of(out)["license"] == "cc-by-4.0"
    sums = outputs.parse_sums((out / "SHA256SUMS").read_text())
    assert {"README.md", "croissant.json", "TRAINING.md"} <= set(sums)


@pytest.mark.parametrize("to", sorted(set(EXPORTS) - set(HELD) - {"hf-indices", "megatron-zero-copy"}))
def test_files_without_records_have_no_card(embedded, tmp_path, to):
    out = make(embedded.replay, tmp_path / "out", to=to)
    assert not (out / "README.md").exists()
    assert "dataset" not in header_of(out)
    with pytest.raises(UsageError, match="holds no records; leave it out"):
        make(embedded.replay, tmp_path / "again", to=to, license="mit")


def test_token_ids_are_a_field(embedded, tmp_path):
    out = make(embedded.replay, tmp_path / "out", to="parquet", ids=True)
    (records,) = json.loads((out / "croissant.json").read_text())["recordSet"]
    (ids,) = [field for field in records["field"] if field["name"] == "input_ids"]
    assert ids["repeated"] is True
    assert header_of(out)["dataset"]["model"] == "tiny-lm"


def test_shares_of_groups_stand_in_the_card(exported, built):
    card = (exported("parquet") / "README.md").read_text()
    mass = {group["group"]: group["population_mass"] for group in built.header["groups"]}
    for name, share in mass.items():
        assert f"| {name} | {share / sum(mass.values()):.2%} |" in card


def test_code_beside_the_data_is_no_loader_of_the_data_set(exported, tmp_path):
    out = shutil.copytree(exported("parquet"), tmp_path / "replay_dataset")
    assert load(out, None, tmp_path / "cache").num_rows == header_of(out)["totals"]["lines"]


def test_code_is_of_the_export_and_no_other_is(exported, tmp_path):
    out = shutil.copytree(exported("parquet"), tmp_path / "out")
    assert header_of(out)["code"] == ["replay_dataset.py"]
    (out / "code/replay_dataset.py").unlink()
    with pytest.raises(VerificationError, match=r"code/replay_dataset\.py: is missing"):
        verify(VerifyConfig(directory=str(out)))
    reseal_export(out, lambda header: header["code"].append("ewc.py"))
    with pytest.raises(
        VerificationError, match=r"export\.json: lists code/ewc\.py, which is no file of a parquet export"
    ):
        verify(VerifyConfig(directory=str(out)))
    assert "code" not in header_of(exported("jsonl"))


@pytest.mark.parametrize("name", ["README.md", "croissant.json", "code/replay_dataset.py"])
def test_another_page_is_named(exported, tmp_path, name):
    out = shutil.copytree(exported("parquet"), tmp_path / "out")
    (out / name).write_bytes((out / name).read_bytes() + b" ")
    with pytest.raises(VerificationError, match="2 problems"):  # the checksum is another one as well
        verify(VerifyConfig(directory=str(out)))
    sums = outputs.parse_sums((out / "SHA256SUMS").read_text())
    sums[name] = outputs.hash_file(str(out / name))[0]
    (out / "SHA256SUMS").write_text(outputs.sums_text(sums))
    with pytest.raises(VerificationError, match=f"1 problem: {name}: is not the page that belongs to export.json"):
        verify(VerifyConfig(directory=str(out)))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("method", "craig", "dataset.method is not what the manifest gives"),
        ("groups", [], "dataset.groups is not what the manifest gives"),
        ("fields", ["text"], "2 problems, the first: export.json: dataset.fields is not what the manifest gives"),
    ],
)
def test_facts_are_those_of_the_manifest(exported, built, tmp_path, key, value, told):
    out = shutil.copytree(exported("parquet"), tmp_path / "out")
    verify(VerifyConfig(directory=str(out), replay=str(built.replay)))
    reseal_export(out, lambda header: header["dataset"].update({key: value}))
    with pytest.raises(VerificationError, match=told):
        verify(VerifyConfig(directory=str(out), replay=str(built.replay)))


def test_a_data_set_that_no_such_export_is_is_named(exported, tmp_path):
    out = shutil.copytree(exported("parquet"), tmp_path / "out")
    reseal_export(out, lambda header: header["dataset"].update(fields=["text"]))
    with pytest.raises(VerificationError, match="says that it is a data set that no parquet export is"):
        verify(VerifyConfig(directory=str(out)))


def test_a_license_that_is_blank_is_refused(built, tmp_path):
    with pytest.raises(UsageError, match="--license is empty"):
        make(built.replay, tmp_path / "out", to="parquet", license=" ")


def test_names_of_groups_can_not_mark_up_the_card(exported, tmp_path):
    out = shutil.copytree(exported("parquet"), tmp_path / "out")
    groups = [{"group": "a|b](x)\n---\n<b>", "mass": 1.0, "tokens": 1}]
    reseal_export(out, lambda header: header["dataset"].update(groups=groups))
    (row,) = [line for line in (out / "README.md").read_text().splitlines() if line.startswith("| a")]
    assert row == r"| a\|b\]\(x\)\\n\-\-\-\\n\<b\> | 100.00% | 100.00% | 1 |"


def test_groups_without_a_visible_name_are_told_apart(exported, tmp_path):
    out = shutil.copytree(exported("parquet"), tmp_path / "out")
    groups = [{"group": name, "mass": 1.0, "tokens": 1} for name in ("", " ")]
    reseal_export(out, lambda header: header["dataset"].update(groups=groups))
    rows = [line for line in (out / "README.md").read_text().splitlines() if line.endswith("50.00% | 1 |")]
    assert rows == ['| "" | 50.00% | 50.00% | 1 |', '| " " | 50.00% | 50.00% | 1 |']


def test_groups_of_what_is_drawn_have_the_shares_that_draws_give(tmp_path):
    """By target mass: a trainer draws by weights."""
    built = build_replay(tmp_path, realisation="sampling")
    out = make(built.replay, tmp_path / "out", to="parquet")
    manifest = json.loads((built.replay / "manifest.json").read_text())
    drawn = manifest["weighting"]["replay_tokens"]["requested"]
    mass = sum(group["target_mass"] for group in manifest["groups"])
    assert {group["group"]: group["tokens"] for group in header_of(out)["dataset"]["groups"]} == {
        group["group"]: round(drawn * group["target_mass"] / mass) for group in manifest["groups"]
    }


def test_the_training_page_names_all_data_sets_where_a_recipe_shows_one(built, exported, tmp_path):
    order(OrderConfig(replay=str(built.replay), out=str(tmp_path / "ordered"), epochs=2))
    page = (make(tmp_path / "ordered", tmp_path / "export", to="hf") / "TRAINING.md").read_text()
    assert "| data sets | `data/epoch-000`, `data/epoch-001`; the recipes below name only the first |\n\n" in page
    assert "| data sets |" not in (exported("hf") / "TRAINING.md").read_text()


@pytest.mark.parametrize("to", ["parquet", "hf"])
def test_the_training_page_of_what_is_drawn_draws(tmp_path, to):
    """And shows no trainer that would play the rows in their order."""
    built = build_replay(tmp_path, realisation="sampling")
    out = make(built.replay, tmp_path / "out", to=to)
    page = (out / "TRAINING.md").read_text()
    assert page.count("\n## ") == 1
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {"SEED": 1}
    exec(compile(code.replace("EXPORT", str(out)), "TRAINING.md", "exec"), names)
    drawn = Counter(play["sample_id"] for play in islice(names["draws"](), 50_000))
    rows = load_dataset("parquet", data_files=str(out / "data/*.parquet"), split="train") if to == "parquet" else None
    rows = rows or load_from_disk(str(out / "data"))
    expected = dict(zip(rows["sample_id"], np.array(rows["weight"]) / sum(rows["weight"]), strict=True))
    assert drawn.keys() == expected.keys()
    for name, share in expected.items():
        assert drawn[name] / 50_000 == pytest.approx(share, abs=5 * (share / 50_000) ** 0.5)


def test_a_format_whose_trainers_do_not_draw_says_so(tmp_path):
    page = (
        make(build_replay(tmp_path, realisation="sampling").replay, tmp_path / "out", to="mds") / "TRAINING.md"
    ).read_text()
    assert "\n## " not in page
    assert "No trainer that reads this format draws by weight" in page
