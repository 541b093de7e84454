"""Servers on loopback that stand in for S3 (moto), Google Cloud Storage (gcp-storage-emulator) and HDFS (ours)."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cptsel.pipeline import stores

HERE = Path(__file__).parent
START_S = 60  # for the servers to come up


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _wait(port: int, child: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert child.poll() is None, "a stand-in ended"
            assert time.monotonic() < end, "a stand-in did not come up"
            time.sleep(0.1)


@contextmanager
def store_servers() -> Iterator[None]:
    """All three stand-ins, with a bucket each; the environment points to them, as a user's would.

    Skips where the packages are not there: they are in an environment that ``environments.py`` makes.
    """
    for name in ("boto3", "moto", "google.cloud.storage", "gcp_storage_emulator", "hdfs"):
        pytest.importorskip(name, reason="run by .engines/stores/bin/python, which tests/environments.py makes")
    s3, gs, hdfs = _port(), _port(), _port()
    commands = {
        s3: ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(s3)],
        gs: ["-m", "gcp_storage_emulator", "start", "-H", "127.0.0.1", "--port", str(gs), "-M", "-q"],
        hdfs: [str(HERE / "engines/webhdfs.py"), str(hdfs)],
    }
    commands[gs] += ["--default-bucket", "bucket"]
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{gs}",
        "NO_GCE_CHECK": "true",
        stores.OPTIONS: f"--hdfs_host=127.0.0.1 --hdfs_port={hdfs} --hdfs_user=test",
    }
    children = {
        port: subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=HERE.parent
        )
        for port, command in commands.items()
    }
    try:
        for port, child in children.items():
            _wait(port, child)
        from apache_beam.internal.gcp import auth
        from apache_beam.io.filesystems import FileSystems

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(auth._Credentials, "_credentials_init", True)  # none, without a search of half a minute
            for name, value in settings.items():
                patch.setenv(name, value)
            patch.setattr(FileSystems, "_pipeline_options", None)  # of servers that other tests had
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{s3}/bucket", method="PUT")).close()
            yield
    finally:
        for child in children.values():
            child.kill()
            child.wait()
