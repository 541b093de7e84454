"""A disk that is full: one sentence with the path, one exit code, whatever the command and the step.

A limit on the size of files stands for the full disk: writes beyond it fail in the same way.
"""

import subprocess
import sys

import pytest
from manifest_builder import build_replay
from run_builder import build_run

LIMITED = """
import resource, sys
from cptsel.cli.main import main
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(main(sys.argv[2:]))
"""


def call(limit, *args):
    command = [sys.executable, "-c", LIMITED, str(limit), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("limit", [2000])
@pytest.mark.parametrize("command", ["select", "select globally", "order", "export"])
def test_the_sentence_names_the_path_and_the_code_is_5(tmp_path, command, limit):
    out = tmp_path / "out"
    if command.startswith("select"):
        run = build_run(tmp_path / "run", rows=(300, 300))
        options = ["--budget", "50%", "--method", "craig"]
        options += ["--scope", "global"] if command.endswith("globally") else []
        done = call(limit, "select", run, "--out", out, *options)
    else:
        replay = build_replay(tmp_path, shards=2, documents=40).replay
        done = call(limit, command, replay, "--out", out)
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("cptsel: error:")]
    assert done.returncode == 5, error
    assert error.startswith(f"cptsel: error: {out}/")
    assert error.endswith("can't be written (file too large); make room and run the command again")
    assert not out.exists()


def test_a_full_disk_is_no_fault_of_a_manifest(tmp_path):
    replay = build_replay(tmp_path, shards=2, documents=40).replay
    done = call(2000, "verify", replay)
    assert done.returncode == 5, done.stdout
    assert "(set TMPDIR to use another folder): can't be written (file too large); make room" in done.stderr
    assert "Problems" not in done.stdout
    assert call(1 << 40, "verify", replay).returncode == 0


def test_embed_keeps_what_it_has(tiny_lm, sample_data, tmp_path):
    out = tmp_path / "run"
    options = ["--model", tiny_lm, "--out", out, "--limit", 8, "--max-tokens", 64]
    done = call(8000, "embed", sample_data / "old" / "*" / "*", *options)
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("cptsel: error:")]
    assert done.returncode == 5, error
    assert error.startswith(f"cptsel: error: {out}/")
    assert "can't be written (file too large)" in error
    assert (out / "config.yaml").exists()
    again = call(1 << 40, "embed", sample_data / "old" / "*" / "*", *options)
    assert again.returncode == 0, again.stderr
