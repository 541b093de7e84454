"""The pool of worker processes for other engines: it takes its own Python, listens on loopback, and ends with them."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

#: 127.0.0.1, as it is and within version 6, and ::1, as /proc writes them.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def _wait(ready, what):
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def _listening(port: int) -> set[str]:
    """Addresses, as the system writes them in hexadecimal, at which something listens on a port."""
    found = set()
    for name in ("tcp", "tcp6"):
        with open(f"/proc/net/{name}") as table:
            rows = [line.split() for line in list(table)[1:]]
        found |= {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    return found


def _children(parent: int) -> list[int]:
    """Of all threads of a process."""
    listings = [path.read_text() for path in Path(f"/proc/{parent}/task").glob("*/children")]
    return [int(number) for listing in listings for number in listing.split()]


def test_a_pool_starts_workers_by_its_own_python_and_ends_with_them(tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")  # what Beam's pool would start
    (tmp_path / "python").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-m", "cptsel.pipeline.engine.pool", f"--service_port={port}"]
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with open(tmp_path / "log", "wb") as log:
        pool = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait(lambda: _listening(port), "the pool listens")
        assert _listening(port) <= LOOPBACK
        request = beam_fn_api_pb2.StartWorkerRequest(worker_id="1")
        request.control_endpoint.url = "127.0.0.1:1"  # at which nothing answers: the worker waits for it
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
            assert stub.StartWorker(request, timeout=60).error == ""
        _wait(lambda: len(_children(pool.pid)) == 1, "the worker starts")
        (worker,) = _children(pool.pid)
        with open(f"/proc/{worker}/cmdline") as words:
            assert words.read().split("\0")[0] == sys.executable
        pool.send_signal(signal.SIGTERM)
        assert pool.wait(60) == 128 + signal.SIGTERM
        assert not os.path.exists(f"/proc/{worker}")
    finally:
        pool.kill()
