"""Ctrl-C and SIGTERM end a command with one line and exit code 130, and what is done stays."""

import signal
import subprocess
import sys
import time

import pytest


def _hear_interrupts():
    """What a shell starts in the background ignores SIGINT, and so do its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def interrupted(argv, number, begun):
    """Exit code and stderr of a command that gets a signal once ``begun()``."""
    command = [sys.executable, "-m", "cptsel", *argv]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=_hear_interrupts, **pipes) as process:
        deadline = time.monotonic() + 120
        while not begun() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    return process.returncode, [line for line in err.splitlines() if line and " INFO " not in line]


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (signal.SIGINT, 1),
        (signal.SIGTERM, 2),
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.slow),
    ],
)
def test_an_interrupt_ends_embed(tmp_path, tiny_lm, sample_data, number, workers):
    out = tmp_path / "run"
    corpus = str(sample_data / "old" / "*" / "*.jsonl.gz")
    argv = ["embed", corpus, "--model", str(tiny_lm), "--limit", "8", "--workers", str(workers), "--out", str(out)]
    code, err = interrupted(argv, number, lambda: any((out / "embeddings").glob("*.parquet")))
    assert (code, err) == (130, ["cptsel: interrupted"])
    assert not (out / "_SUCCESS").exists()
    kept = len(list((out / "embeddings").glob("*.parquet")))
    assert 0 < kept < 11
