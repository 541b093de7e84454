"""No process that a command starts can be reached from another machine."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

LISTENING = "0A"
LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}  # as /proc has them

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc of Linux")


def processes(root: int) -> set[int]:
    """A process and all below it."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.parent.name)] = int(fields[1])
    found = {root}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def sockets(process: int) -> set[str]:
    """Inodes of the sockets of a process."""
    found = set()
    try:
        for entry in Path(f"/proc/{process}/fd").iterdir():
            target = os.readlink(entry)
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass
    return found


def addresses(root: int) -> set[str]:
    """Local addresses on which a process or one below it listens, in hexadecimal."""
    mine = set().union(*(sockets(process) for process in processes(root)))
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(table):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and fields[9] in mine:
                    found.add(fields[1].split(":")[0])
    return found


def listened_on(argv: list[str]) -> set[str]:
    """Every address that was seen while a command ran."""
    command = [sys.executable, "-m", "cptsel", *argv]
    found: set[str] = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while process.poll() is None:
            found |= addresses(process.pid)
            time.sleep(0.02)
        assert process.returncode == 0, process.stdout.read().decode()
    return found


def embed(tmp_path, tiny_lm, sample_data):
    corpus = str(sample_data / "old" / "docs_de" / "*.jsonl.gz")
    return ["embed", corpus, "--model", str(tiny_lm), "--limit", "2", "--out", f"{tmp_path}/run"]


def test_worker_processes_listen_on_loopback_alone(tmp_path, tiny_lm, sample_data):
    found = listened_on([*embed(tmp_path, tiny_lm, sample_data), "--workers", "2"])
    assert found, "no listening socket was seen, so that this says nothing"
    assert found <= LOOPBACK


@pytest.mark.slow
def test_so_do_those_of_the_other_commands(tmp_path, tiny_lm, sample_data):
    listened_on(embed(tmp_path, tiny_lm, sample_data))
    for argv in (
        ["select", f"{tmp_path}/run", "--method", "uniform", "--budget", "50%", "--out", f"{tmp_path}/replay"],
        ["verify", f"{tmp_path}/replay", "--sources"],
        ["export", f"{tmp_path}/replay", "--out", f"{tmp_path}/export"],
    ):
        found = listened_on([*argv, "--workers", "2"])
        assert found
        assert found <= LOOPBACK


def test_commands_without_worker_processes_do_not_listen(tmp_path, tiny_lm, sample_data):
    assert listened_on(embed(tmp_path, tiny_lm, sample_data)) == set()
