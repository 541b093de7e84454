"""One writer a directory: a second is refused by name, and a dead one holds nothing."""

import errno
import os
import signal
import subprocess
import sys

import pytest
from selection_builder import choose

from cptsel.pipeline.artifacts.lock import LOCK, locked
from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.errors import UsageError

HOLD = """
import sys, time
from cptsel.pipeline.artifacts.lock import locked
with locked(sys.argv[1], "select"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that writes ``out``."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_second_writer_is_refused_and_says_who_the_first_is(holder, run, tmp_path):
    with pytest.raises(UsageError, match=rf"out is being written by cptsel select \(process {holder.pid} on "):
        choose(run, tmp_path / "out", method="uniform")
    assert os.listdir(tmp_path / "out") == [LOCK]


def test_the_lock_of_a_killed_writer_is_no_lock(holder, run, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / LOCK).exists()
    choose(run, tmp_path / "out", method="uniform")
    load_manifest(str(tmp_path / "out"))
    assert not (tmp_path / "out" / LOCK).exists()


def test_a_call_that_writes_nothing_leaves_no_directory(tmp_path):
    with pytest.raises(RuntimeError), locked(str(tmp_path / "a" / "b"), "select"):
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with locked(str(tmp_path / "a" / "b"), "select"):
        (tmp_path / "a" / "b" / "file").write_text("kept")
    assert os.listdir(tmp_path / "a" / "b") == ["file"]


def test_one_of_two_calls_at_once_wins_and_its_output_is_its_own(run, tmp_path):
    """Both start together, with other options; whoever is refused leaves no trace in the winner's output."""
    call = [sys.executable, "-c", "import sys; from cptsel.cli.main import main; sys.exit(main())", "select", str(run)]
    call += ["--method", "uniform", "--out", str(tmp_path / "out"), "--budget"]
    commands = [[*call, budget] for budget in ("10%", "30%")]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for command in commands]
    errors = [racer.communicate()[1].decode() for racer in racers]
    codes = [racer.returncode for racer in racers]
    assert sorted(codes) == [0, 2], errors
    refused = errors[codes.index(2)]
    assert "is being written by" in refused or "pass --overwrite or another --out" in refused
    budget = load_manifest(str(tmp_path / "out")).header["selection"]["budget"]["requested"]
    assert budget == ("10%", "30%")[codes.index(0)]


def test_a_filesystem_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(str(tmp_path / "out"), "select"):
        (tmp_path / "out" / "file").write_text("written")
    assert "its filesystem has no locks" in caplog.text
    assert os.listdir(tmp_path / "out") == ["file"]
