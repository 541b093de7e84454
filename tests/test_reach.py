"""Mistakes of set-up of another engine end in a sentence before a job waits for what is not there."""

import logging
import re
import socket
import sys
import time
from importlib import import_module
from types import SimpleNamespace
from urllib.error import URLError

import pytest
from apache_beam import Create
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.subprocess_server import JavaJarServer

from cptsel.pipeline.engine import pool, tasks
from cptsel.pipeline.engine.beam import _own_error, make_pipeline, pipeline_options
from cptsel.pipeline.engine.reach import check_credentials
from cptsel.pipeline.engine.tasks import TaskFiles, awaiting
from cptsel.pipeline.errors import UsageError


@pytest.fixture
def closed():
    """An address on this machine at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def java(tmp_path, monkeypatch):
    """A Java that is never run."""
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))


POOL = ("--environment_type=EXTERNAL", "--environment_config=pool:50000")  # nothing is asked of it


def refused(*options):
    with pytest.raises(UsageError) as caught:
        make_pipeline(pipeline_options(list(options), 1))
    return str(caught.value)


def test_no_java(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for runner in ("SparkRunner", "FlinkRunner"):
        assert refused(f"--runner={runner}").startswith(
            f"--runner={runner}: its job server needs Java and there is none by PATH;"
        )
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert f"none by JAVA_HOME={tmp_path}/jdk; install Java" in refused("--runner=SparkRunner")


@pytest.mark.parametrize("engine", ["Spark", "Flink"])
def test_no_jar(java, tmp_path, engine):
    option = f"--{engine.lower()}_job_server_jar={tmp_path}/no.jar"
    assert refused(f"--runner={engine}Runner", option).startswith(f"{option}: there is no such file;")


def test_an_uber_jar_has_somewhere_to_go():
    assert refused("--runner=SparkRunner", "--spark_submit_uber_jar").startswith(
        "--spark_submit_uber_jar: needs --spark"
    )


@pytest.mark.parametrize(
    ("options", "option"),
    [
        (["--runner=SparkRunner", "--spark_master_url=spark://{}", *POOL], "spark_master_url"),
        (["--runner=SparkRunner", "--spark_master_url=spark://{0},{0}", *POOL], "spark_master_url"),
        (["--runner=SparkRunner", "--job_endpoint={}", *POOL], "job_endpoint"),
        (["--runner=PortableRunner", "--job_endpoint={}", *POOL], "job_endpoint"),
        (["--runner=FlinkRunner", "--flink_master={}", *POOL], "flink_master"),
        (["--runner=FlinkRunner", "--flink_master=http://{}", *POOL], "flink_master"),
        (["--runner=SparkRunner", "--environment_type=EXTERNAL", "--environment_config={}"], "environment_config"),
    ],
)
def test_a_port_that_does_not_answer(java, closed, options, option):
    sentence = refused(*(part.format(closed) for part in options))
    assert sentence.startswith(f"--{option}={closed}: nothing answers there (Connection refused); ")


@pytest.mark.parametrize("engine", ["Spark", "Flink"])
def test_a_job_server_that_can_not_be_downloaded(java, tmp_path, monkeypatch, engine):
    def offline(*_args):
        raise URLError("no network")

    monkeypatch.setattr(JavaJarServer, "_download_jar_to_cache", offline)
    monkeypatch.setattr(JavaJarServer, "JAR_CACHE", str(tmp_path / "jars"))
    with (
        pytest.raises(UsageError) as caught,
        make_pipeline(pipeline_options([f"--runner={engine}Runner"], 1)) as pipeline,
    ):
        _ = pipeline | Create([1])
    server = rf"beam-runners-{engine.lower()}\S*-job-server-\S+\.jar"
    remedy = rf"it by --{engine.lower()}_job_server_jar=FILE \(after --\)"
    assert re.fullmatch(
        rf"Beam's job server can't be downloaded from https://\S+/{server}; .* {remedy}", str(caught.value)
    )


def test_the_pool_to_start_is_ours_which_listens_on_loopback(java, closed):
    sentence = refused("--runner=SparkRunner", "--environment_type=EXTERNAL", f"--environment_config={closed}")
    (module,) = re.findall(r"start the pool \(python -m ([\w.]+) --service_port=PORT\)", sentence)
    assert import_module(module) is pool


def test_an_address_without_a_port(java):
    assert refused("--runner=SparkRunner", "--spark_master_url=spark://master", *POOL) == (
        "--spark_master_url=master: must be HOST:PORT"
    )


def test_what_answers_is_let_through(java, closed):
    with socket.create_server(("127.0.0.1", 0)) as server:
        open_port = f"127.0.0.1:{server.getsockname()[1]}"
        for master in (open_port, f"{closed},{open_port}"):
            options = ["--runner=SparkRunner", f"--spark_master_url=spark://{master}", *POOL]
            make_pipeline(pipeline_options(options, 1))


def test_a_pool_on_other_machines_is_not_looked_for_here(java, closed, monkeypatch):
    """``localhost`` is each executor's own."""
    monkeypatch.setattr("socket.create_connection", lambda address, _: socket.socket())
    pool = ["--environment_type=EXTERNAL", f"--environment_config={closed}"]
    make_pipeline(pipeline_options(["--runner=SparkRunner", "--spark_master_url=spark://master:7077", *pool], 1))


@pytest.mark.parametrize("installed", [True, False])
def test_dataflow_without_packages_or_credentials(monkeypatch, installed):
    class Missing(Exception):
        pass

    def default():
        raise Missing

    modules = {
        "google.auth": SimpleNamespace(default=default),
        "google.auth.exceptions": SimpleNamespace(DefaultCredentialsError=Missing),
        "google.cloud.storage": SimpleNamespace() if installed else None,
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    sentence = "there are no usable Google credentials here; " if installed else "Google's packages are not installed; "
    with pytest.raises(UsageError, match=f"^--runner=DataflowRunner: {sentence}"):
        check_credentials(PipelineOptions(["--runner=DataflowRunner"]))
    check_credentials(PipelineOptions(["--runner=DataflowRunner", "--no_auth"]))
    check_credentials(PipelineOptions(["--runner=SparkRunner"]))


def test_a_worker_without_cptsel():
    error = _own_error(RuntimeError("Traceback ...\nModuleNotFoundError: No module named 'cptsel'"))
    assert isinstance(error, UsageError)
    assert str(error).startswith("a worker can't import cptsel; install")
    assert _own_error(RuntimeError("No module named 'cptselector'")) is None


@pytest.mark.parametrize("begun", [False, True])
def test_a_job_that_waits_for_workers_says_so(tmp_path, monkeypatch, caplog, begun):
    monkeypatch.setattr(tasks, "PATIENCE_S", 0.05)
    monkeypatch.setattr(tasks, "is_local", lambda options: False)
    files = TaskFiles(str(tmp_path), 1)
    if begun:
        (tmp_path / "began").write_text("here")
    with caplog.at_level(logging.WARNING), awaiting(pipeline_options([], 1), files):
        time.sleep(0.5)
    assert ("no worker has begun" in caplog.text) == (not begun)


@pytest.mark.parametrize(
    ("master", "sentence"),
    [
        ("locl[2]", "--spark_master_url=locl[2]: is no master of Spark's; give spark://HOST:PORT, local[N], yarn or"),
        ("yarn", "--spark_master_url=yarn: Spark finds YARN by the files in HADOOP_CONF_DIR, which is not set"),
    ],
)
def test_a_master_that_spark_does_not_have(java, monkeypatch, master, sentence):
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("YARN_CONF_DIR", raising=False)
    assert refused("--runner=SparkRunner", f"--spark_master_url={master}", *POOL).startswith(sentence)


def test_a_portable_runner_needs_a_job_server():
    assert refused("--runner=PortableRunner", *POOL).startswith("--runner=PortableRunner: needs --job_endpoint=")
