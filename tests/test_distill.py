"""Teacher targets against the model's own logits, over the ids that were embedded; equal bytes; resumed; refused."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from model_builder import SMALL

from cptsel.cli.main import main
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.chosen import model as chosen_model
from cptsel.pipeline.chosen import targets as chosen_targets
from cptsel.pipeline.chosen.config import DistillConfig
from cptsel.pipeline.chosen.model import resolve_model
from cptsel.pipeline.distill import distill
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.errors import BadInputError, UsageError, VerificationError
from cptsel.pipeline.inspect import inspect
from cptsel.schemas.arrow import check_schema, targets_schema


def run(embedded, model, out, **options):
    """The folder, once it is written."""
    config = DistillConfig(replay=str(embedded.replay), model=str(model), out=str(out), **options)
    return Path(out), distill(config, make_steps=InlineSteps)


def tree(folder):
    names = set(outputs.list_tree(str(folder))) - {"stats.json", "config.yaml"}
    return {name: (folder / name).read_bytes() for name in names}


def rows_of(folder):
    return {row["sample_id"]: row for path in sorted(folder.glob("data/*")) for row in pq.read_table(path).to_pylist()}


def chosen(embedded):
    return [row for path in sorted(embedded.replay.glob("samples/*")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def windows(embedded, tiny_lm):
    """{sample_id: the model's log-probabilities (n, V) and last hidden states (n, d)} of what was played, alone."""
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32).eval()
    found = {}
    for name, ids in embedded.plays:
        with torch.no_grad():
            tokens = torch.tensor([[model.config.bos_token_id, *ids[:-1]]])
            states = model(tokens, output_hidden_states=True)
        found[name] = (ids, torch.log_softmax(states.logits[0].float(), 1), states.hidden_states[-1][0])
    return found


@pytest.fixture(scope="module")
def logits(embedded, tiny_lm, tmp_path_factory):
    return run(embedded, tiny_lm, tmp_path_factory.mktemp("logits") / "out", top_k=8, unit_tokens=100)


def test_targets_are_those_of_the_model_at_the_ids_that_were_embedded(logits, embedded, windows):
    found = rows_of(logits[0])
    assert found.keys() == {row["sample_id"] for row in chosen(embedded)}  # also what no epoch plays
    for name, (ids, log_probs, _) in windows.items():
        row = found[name]
        assert row["input_ids"] == ids
        assert row["n_tokens"] == len(ids) == len(row["top_ids"])
        top = log_probs.gather(1, torch.tensor(row["top_ids"]))
        np.testing.assert_allclose(top, log_probs.topk(8).values, atol=1e-4)
        np.testing.assert_allclose(np.array(row["top_log_probs"], np.float32), top, rtol=1e-3, atol=1e-3)
        rest = torch.log1p(-top.exp().sum(1))
        np.testing.assert_allclose(np.array(row["rest_log_prob"], np.float32), rest, rtol=2e-3, atol=2e-3)


def test_files_are_as_the_schema_and_the_header_say(logits, embedded):
    folder, summary = logits
    header = json.loads((folder / "targets.json").read_text())
    assert len(header["files"]) > 2  # two shards, so that some were cut
    for name, entry in header["files"].items():
        table = pq.read_table(folder / name)
        assert check_schema(table.schema, targets_schema("logits", 8)) is None
        assert outputs.hash_file(str(folder / name)) == (entry["sha256"], entry["bytes"])
        assert (len(table), sum(table["n_tokens"].to_pylist())) == (entry["samples"], entry["tokens"])
    assert header["totals"]["samples"] == len(chosen(embedded)) == summary.totals["samples"]
    assert header["parent"] == load_manifest(str(embedded.replay)).manifest_id
    assert header["model"]["of_manifest"]
    assert inspect(str(folder)).status == "teacher targets, finished"


def test_bfloat16_is_near(embedded, tiny_lm, windows, tmp_path):
    folder, _ = run(embedded, tiny_lm, tmp_path / "out", top_k=8, dtype="bfloat16")
    found = rows_of(folder)
    for name, (_, log_probs, _) in windows.items():
        values = np.array(found[name]["top_log_probs"], np.float32)
        assert (np.diff(values, axis=1) <= 0).all()
        np.testing.assert_allclose(values, log_probs.gather(1, torch.tensor(found[name]["top_ids"])), atol=0.3)


@pytest.mark.parametrize("project", [None, 16])
def test_hidden_states_are_those_that_the_head_reads(embedded, tiny_lm, windows, tmp_path, project):
    folder, _ = run(embedded, tiny_lm, tmp_path / "out", targets="hidden", project=project, unit_tokens=100)
    matrix = np.eye(256)
    if project:
        matrix = np.array(pq.read_table(folder / "projection.parquet")["row"].to_pylist())
        assert matrix.shape == (256, 16)
        np.testing.assert_allclose(np.abs(matrix), 0.25)
    found = rows_of(folder)
    for name, (_, _, states) in windows.items():
        np.testing.assert_allclose(np.array(found[name]["hidden"], np.float32), states @ matrix, rtol=2e-3, atol=2e-2)


def test_equal_bytes_with_two_workers(logits, embedded, tiny_lm, tmp_path):
    config = DistillConfig(
        replay=str(embedded.replay), model=str(tiny_lm), out=str(tmp_path / "2"), top_k=8, unit_tokens=100, workers=2
    )
    distill(config)
    assert tree(tmp_path / "2") == tree(logits[0])


def count_units(monkeypatch, stop_after=10**9):
    """Names of the units that are computed; the one after so many is interrupted."""
    computed, table = [], chosen_targets.WriteTargets._table

    def counting(self, unit, *rest):
        if len(computed) == stop_after:
            raise KeyboardInterrupt
        computed.append(unit.name)
        return table(self, unit, *rest)

    monkeypatch.setattr(chosen_targets.WriteTargets, "_table", counting)
    return computed


def test_what_is_finished_is_not_computed_again(logits, embedded, tiny_lm, tmp_path, monkeypatch):
    options = {"top_k": 8, "unit_tokens": 100}
    all_units = sorted(path.stem for path in logits[0].glob("data/*"))
    first = count_units(monkeypatch, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        run(embedded, tiny_lm, tmp_path / "out", **options)
    monkeypatch.undo()
    assert not (tmp_path / "out/_SUCCESS").exists()
    computed = count_units(monkeypatch)
    folder, summary = run(embedded, tiny_lm, tmp_path / "out", **options)
    assert summary.status == "resumed"
    assert sorted(first + computed) == all_units
    assert len(first) == 2
    assert tree(folder) == tree(logits[0])
    computed.clear()
    assert run(embedded, tiny_lm, folder, **options)[1].status == "already done"
    assert computed == []
    path = folder / f"data/{all_units[1]}.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert run(embedded, tiny_lm, folder, **options)[1].status == "resumed"
    assert computed == [all_units[1]]
    assert tree(folder) == tree(logits[0])


KILLED = """
import os, signal, sys
from cptsel.cli.main import main
from cptsel.pipeline import io

replace = os.replace

def until_killed(temporary, path):
    if path.endswith(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(temporary, path)

io.os.replace = until_killed
main(sys.argv[2:])
"""


def test_a_killed_call_goes_on_with_the_same_bytes(logits, embedded, tiny_lm, tmp_path, monkeypatch):
    units = sorted(path.name for path in logits[0].glob("data/*"))
    out = tmp_path / "out"
    command = ["distill", str(embedded.replay), "--model", str(tiny_lm), "--top-k", "8", "--unit-tokens", "100"]
    command = [sys.executable, "-c", KILLED, units[-1], *command, "--out", str(out)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert any(outputs.temporary_of(name) for name in outputs.list_tree(str(out)))
    left = {path.stem for path in out.glob("data/[0-9]*")}
    assert left
    computed = count_units(monkeypatch)
    folder, summary = run(embedded, tiny_lm, out, top_k=8, unit_tokens=100)
    assert summary.status == "resumed"
    assert {f"{name}.parquet" for name in {*computed, *left}} == set(units)
    assert not left & set(computed)
    assert tree(folder) == tree(logits[0])


def test_another_call_is_refused_and_replaced_with_overwrite(logits, embedded, tiny_lm, tmp_path):
    folder = shutil.copytree(logits[0], tmp_path / "out")
    with pytest.raises(UsageError, match=r"was begun with targets\.width 8, now 4; use another --out, or --overwrite"):
        run(embedded, tiny_lm, folder, top_k=4, unit_tokens=100)
    assert tree(folder) == tree(logits[0])
    _, summary = run(embedded, tiny_lm, folder, top_k=4, overwrite=True)
    assert (summary.status, summary.totals["files"]) == ("done", 2)


def other_checkpoint(tiny_lm, folder, **changes):
    """The same tokenizer with other weights."""
    shutil.copytree(tiny_lm, folder)
    torch.manual_seed(1)
    config = transformers.LlamaConfig(**SMALL | {"vocab_size": 4096} | changes)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def test_another_checkpoint_is_taken_when_that_is_said(embedded, tiny_lm, tmp_path):
    other = other_checkpoint(tiny_lm, tmp_path / "other")
    with pytest.raises(UsageError, match=r"is not the model that .* names \(.*tiny-lm\).*--any-model"):
        run(embedded, other, tmp_path / "out")
    folder, summary = run(embedded, other, tmp_path / "out", any_model=True)
    assert summary.totals["the manifest's model"] == "no"
    assert json.loads((folder / "targets.json").read_text())["model"]["of_manifest"] is False
    short = other_checkpoint(tiny_lm, tmp_path / "short", max_position_embeddings=16)
    with pytest.raises(UsageError, match="has 16 positions, and windows of this corpus need 17"):
        run(embedded, short, tmp_path / "no", any_model=True)


def test_another_tokenizer_is_never_taken(embedded, tiny_lm, tmp_path):
    other = shutil.copytree(tiny_lm, tmp_path / "other")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_lm)
    tokenizer.add_tokens(["replay"])
    tokenizer.save_pretrained(other)
    with pytest.raises(UsageError, match=r"--model .*other: not the tokenizer that the corpus was embedded with"):
        run(embedded, other, tmp_path / "out", any_model=True)


def test_the_model_before_a_lookahead_is_named_too(embedded, tiny_lm, tmp_path):
    manifest = load_manifest(str(embedded.replay))
    named = manifest.header["provenance"]["model"]
    here, named["weights"] = named["weights"], "0" * 64
    config = DistillConfig(replay="x", model=str(tiny_lm), out=str(tmp_path))
    with pytest.raises(UsageError, match="--any-model"):
        resolve_model(manifest, config, here=True)
    named["before_lookahead"] = here
    assert resolve_model(manifest, config, here=True).facts["of_manifest"]


def test_a_changed_text_and_a_lost_shard_are_named(embedded, tiny_lm, tmp_path):
    moved = shutil.copytree(embedded.corpus, tmp_path / "moved")
    path = moved / "1.jsonl"
    path.write_text(path.read_text().replace("words", "wordz"))
    with pytest.raises(VerificationError, match=r"1\.jsonl: row \d is not the text that was embedded"):
        run(embedded, tiny_lm, tmp_path / "out", root=str(moved))
    path.unlink()
    with pytest.raises(BadInputError, match=r"1\.jsonl is missing; restore it, or pass --root"):
        run(embedded, tiny_lm, tmp_path / "out2", root=str(moved))


def test_numbers_beyond_float16_are_an_error(embedded, tiny_lm, tmp_path, monkeypatch):
    monkeypatch.setattr(chosen_targets, "projection_of", lambda *_: np.full((256, 2), 1e6, np.float32))
    with pytest.raises(BadInputError, match=r"row \d: sample [0-9a-f]{32} has hidden that are not finite, or beyond"):
        run(embedded, tiny_lm, tmp_path / "out", targets="hidden", project=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top_k": 4097}, "--top-k 4097: the model has 4,096 tokens"),
        ({"targets": "hidden", "top_k": 5}, "--top-k is read with --targets logits"),
        ({"project": 5}, "--project is read with --targets hidden"),
        ({"seed": 5}, "--seed is read with --project"),
        ({"targets": "attention"}, "--targets attention: must be one of logits, hidden"),
    ],
)
def test_options_that_are_refused(embedded, tiny_lm, tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        run(embedded, tiny_lm, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_dry_run_writes_nothing_and_counts_right(logits, embedded, tiny_lm, tmp_path):
    _, summary = run(embedded, tiny_lm, tmp_path / "out", top_k=8, unit_tokens=100, dry_run=True)
    assert not (tmp_path / "out").exists()
    assert summary.status == "dry-run"
    for key in ("samples", "tokens", "files"):
        assert summary.totals[key] == logits[1].totals[key]


def test_outputs_inside_what_is_read_are_refused(embedded, tiny_lm, tmp_path):
    for place in (embedded.replay, tiny_lm):
        with pytest.raises(UsageError, match="lies inside the input"):
            run(embedded, tiny_lm, place / "out")


def test_the_command_line_on_beam(embedded, tiny_lm, tmp_path, capsys):
    command = ["distill", str(embedded.replay), "--model", str(tiny_lm), "--top-k", "2", "--out", str(tmp_path / "out")]
    assert main([*command, "--json", "--", "--runner=DirectRunner"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["numbers a token"] == 2
    assert chosen_model._load.cache_info().currsize == 0  # the model is let go
