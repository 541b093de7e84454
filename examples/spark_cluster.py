"""A standalone Spark cluster on this machine's loopback address, to try a command of cptsel on: nothing is left behind.

    pip install 'cptsel[spark]'
    python examples/spark_cluster.py --job-server job-server.jar -- \
        cptsel embed 'sample_data/old/*/*.jsonl.gz' --model sample_data/tiny-lm --max-tokens 64 --limit 10 --out run

Starts a master, two workers of one core each and a pool of Python workers, runs the command with the options of the
engine behind it, and stops everything that it has started, by process group, however the command ends. Java 11 or 17 is
needed. Without --job-server Beam downloads its own.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = "127.0.0.1"
WORKERS = 2
START_S = 120  # for the cluster to come up
_OPEN = (
    "java.lang java.lang.invoke java.io java.net java.nio java.util java.util.concurrent sun.nio.ch sun.nio.cs "
    "sun.security.action"
)
_JAVA = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPEN.split()]
_JAVA += ["--add-exports=java.base/sun.nio.ch=ALL-UNNAMED"]


def missing() -> str | None:
    """What this machine lacks, in a sentence."""
    if shutil.which("java") is None:
        return "no java on PATH; install Java 11 or 17"
    if importlib.util.find_spec("pyspark") is None:
        return "no pyspark; pip install 'cptsel[spark]'"
    return None


@contextlib.contextmanager
def cluster(job_server: str | None, log: Path) -> Iterator[tuple[list[str], dict[str, "subprocess.Popen[bytes]"]]]:
    """A cluster, while a ``with`` block runs.

    Args:
        job_server: Beam's job server, a jar; None to have Beam download it.
        log: folder for what the processes print and Spark's work.

    Yields:
        The options that send a command to it, for behind ``--``; its processes, each the first of a session.

    Raises:
        TimeoutError: it did not come up.
    """
    home = Path(importlib.util.find_spec("pyspark").submodule_search_locations[0])
    environment = os.environ | {
        "SPARK_HOME": str(home),
        "SPARK_SCALA_VERSION": "2.12",
        "SPARK_LOCAL_IP": HERE,
    }
    java = ["java", *_JAVA, "-cp", f"{home}/jars/*"]
    port, page, pool = _free_ports(3)
    master = f"spark://{HERE}:{port}"
    commands = {"master": [*java, "org.apache.spark.deploy.master.Master", "--host", HERE, "--port", str(port)]}
    commands["master"] += ["--webui-port", str(page)]
    for number in range(WORKERS):
        worker = [*java, "org.apache.spark.deploy.worker.Worker", master, "--host", HERE, "--cores", "1"]
        worker += ["--memory", "1g", "--webui-port", "0", "--work-dir", str(log / f"work-{number}")]
        commands[f"worker-{number}"] = worker
    commands["pool"] = [sys.executable, "-m", "cptsel.pipeline.engine.pool", f"--service_port={pool}"]
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            with open(log / f"{name}.log", "wb") as output:
                children[name] = subprocess.Popen(
                    command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
                )
        _wait(children, lambda: _workers(page) == WORKERS and _answers(pool), log)
        engine = ["--runner=SparkRunner", f"--spark_master_url={master}", "--environment_type=EXTERNAL"]
        engine += [f"--environment_config={HERE}:{pool}", "--environment_cache_millis=600000"]
        yield [*engine, *([f"--spark_job_server_jar={job_server}"] if job_server else [])], children
    finally:
        stop(*reversed(children.values()))


def run(command: list[str], limit_s: float, **streams: Any) -> int:
    """Run a command in a process group of its own, so that its job server ends with it; returns its exit code.

    Raises:
        TimeoutError: it ran longer than ``limit_s``, and was killed.
    """
    environment = os.environ | {"SPARK_LOCAL_IP": HERE}
    process = subprocess.Popen(command, start_new_session=True, env=environment, **streams)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"still running after {limit_s:.0f} s: {' '.join(command)}") from error
    finally:
        stop(process)


def stop(*children: "subprocess.Popen[bytes]") -> None:
    """End processes that were started in sessions of their own, and what they have started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server((HERE, 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def _wait(children: "dict[str, subprocess.Popen[bytes]]", ready: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + START_S
    while not ready():
        for name, child in children.items():
            if child.poll() is not None:
                raise TimeoutError(f"{name} ended with code {child.returncode}; see {log / name}.log")
        if time.monotonic() > end:
            raise TimeoutError(f"the cluster did not come up within {START_S} s; see {log}")
        time.sleep(0.5)


def _workers(page: int) -> int:
    """Workers that the master counts."""
    try:
        with urllib.request.urlopen(f"http://{HERE}:{page}/json/", timeout=5) as answer:
            return json.load(answer)["aliveworkers"]
    except (OSError, ValueError):
        return 0


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((HERE, port), 1).close()
        return True
    return False


def main() -> int:
    """Start, run, stop."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--job-server", help="jar of Beam's Spark job server; Beam downloads it by default")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which the command is killed")
    parser.add_argument("command", nargs="+", help="what to run, behind --")
    options = parser.parse_args()
    if sentence := missing():
        parser.error(sentence)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="cptsel-spark-") as folder:
        try:
            with cluster(options.job_server, Path(folder)) as (engine, _):
                return run([*options.command, "--", *engine], options.limit)
        except TimeoutError as error:
            print(f"spark_cluster.py: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
