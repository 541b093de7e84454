"""The whole chain as a user runs it, on the sample data: embed, select, order, verify, export, inspect."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from cptsel.cli.main import main

DOMAINS = "dict_en", "docs_de", "docs_ru"


def run(*arguments, code=0):
    """Run ``cptsel`` and return its summary, or what it says on stderr where it is to fail with ``code``."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        returned = main([*map(str, arguments), "--json"])
    assert returned == code, err.getvalue()
    return json.loads(out.getvalue()) if code == 0 else err.getvalue()


def embed_arguments(sample_data, tiny_lm, folder, *, limit, workers):
    old = sample_data / "old"
    globs = [old / domain / "*.jsonl.gz" for domain in DOMAINS]
    options = ["--max-tokens", 256, "--limit", limit, "--workers", workers, "--out", folder / "run"]
    return ["embed", *globs, "--root", old, "--model", tiny_lm, "--group-by", "source", *options]


def chain(sample_data, tiny_lm, folder, *, limit, workers):
    """Run the passes into ``folder`` and return their summaries."""
    common = ["--workers", workers]
    return [
        run(*embed_arguments(sample_data, tiny_lm, folder, limit=limit, workers=workers)),
        run("select", folder / "run", "--budget", "25%", "--group-by", "source", "--out", folder / "replay", *common),
        run("order", folder / "replay", "--epochs", 2, "--world-size", 2, "--out", folder / "ordered"),
        run("verify", folder / "ordered", "--sources", *common),
        run("export", folder / "ordered", "--out", folder / "corpus", *common),
    ]


def digests(folder):
    """SHA-256 of every file below ``folder`` whose bytes are promised: not times, nor where it was written."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {"stats.json", "config.yaml"} and ".work" not in path.parts
    }


@pytest.fixture(scope="module")
def results(sample_data, tiny_lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    return folder, chain(sample_data, tiny_lm, folder, limit=4, workers=1)


def test_the_chain_runs_and_its_counts_agree(results):
    _, (embed, select, order, verify, _) = results
    assert embed["totals"]["rows read"] == 4 * len(DOMAINS)
    assert select["totals"]["samples"] == embed["totals"]["samples"]
    assert select["totals"]["selected samples"] == verify["totals"]["samples"] > 0
    assert select["totals"]["selected tokens"] == order["totals"]["tokens per epoch"]
    assert verify["totals"]["problems"] == 0


def test_inspect_knows_every_directory(results):
    folder, _ = results
    said = [run("inspect", folder / name)["status"] for name in ("run", "replay", "ordered", "corpus")]
    assert len(set(said)) == 4
    totals = run("inspect", folder / "ordered")["totals"]
    assert {"budget", "scope", "group by", "mass", "seed", "phases", "runs"} <= set(totals)


def test_a_finished_run_is_not_done_again_and_a_finished_manifest_not_replaced(results, sample_data, tiny_lm):
    folder, _ = results
    before = digests(folder)
    again = run(*embed_arguments(sample_data, tiny_lm, folder, limit=4, workers=1))
    assert again["status"] == "already done"
    assert "--overwrite" in run("select", folder / "run", "--out", folder / "replay", code=2)
    assert digests(folder) == before


def test_a_changed_byte_is_found(results, tmp_path):
    folder, _ = results
    copy = tmp_path / "ordered"
    shutil.copytree(folder / "ordered", copy)
    sample = next((copy / "samples").iterdir())
    data = bytearray(sample.read_bytes())
    data[len(data) // 2] ^= 1
    sample.write_bytes(data)
    assert sample.name in run("verify", copy, code=4)


def test_an_empty_glob_and_a_wrong_path_are_one_sentence(tmp_path, tiny_lm):
    said = run("embed", tmp_path / "*.jsonl", "--model", tiny_lm, "--out", tmp_path / "run", code=2)
    assert said.count("\n") == 1
    assert "*.jsonl" in said
    said = run("select", tmp_path / "absent", "--out", tmp_path / "replay", code=2)
    assert said.count("\n") == 1
    assert "absent" in said


@pytest.mark.slow
def test_the_bytes_are_the_same_with_two_workers_and_after_a_kill(sample_data, tiny_lm, tmp_path):
    chain(sample_data, tiny_lm, tmp_path / "one", limit=40, workers=1)
    folder = tmp_path / "two"
    arguments = embed_arguments(sample_data, tiny_lm, folder, limit=40, workers=2)
    command = [sys.executable, "-m", "cptsel", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list((folder / "run").glob("embeddings/*.parquet")):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "run" / "_SUCCESS").exists()
    chain(sample_data, tiny_lm, folder, limit=40, workers=2)
    for name in ("run", "replay", "ordered", "corpus"):
        assert digests(tmp_path / "one" / name) == digests(folder / name), name
