"""What another engine needs of this machine, looked at before a job is handed over: Java, jars, ports that answer.

Beam starts a job server that waits, for minutes or for ever, for what is not there.
"""

import os
import re
import shutil
import socket
from importlib import import_module

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    SparkRunnerOptions,
)
from apache_beam.utils.subprocess_server import JavaHelper

from cptsel.pipeline.engine.environment import LOCAL_SPARK, runner_name
from cptsel.pipeline.errors import UsageError

WAIT_S = 5.0  # for a port to answer
_OTHER_SPARK = re.compile(r"yarn$|(k8s|mesos)://|local-cluster\[")
_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


def check_reach(options: PipelineOptions) -> None:
    """Refuse options of an engine that this machine can't start or reach.

    Raises:
        UsageError: no Java or no jar for the job server; nothing listens where a master, a job server or, with all of
            the engine on this machine, a worker pool is to be.
    """
    runner = runner_name(options)
    portable = options.view_as(PortableOptions)
    endpoint = portable.job_endpoint
    if endpoint and endpoint != "embed":
        _check_port("--job_endpoint", endpoint, "start the job server there")
        return
    if runner == "portablerunner" and not endpoint:
        raise UsageError("--runner=PortableRunner: needs --job_endpoint=HOST:PORT of a job server that runs")
    spark, flink = options.view_as(SparkRunnerOptions), options.view_as(FlinkRunnerOptions)
    if runner == "sparkrunner":
        _check_jar("--spark_job_server_jar", spark.spark_job_server_jar)
        if spark.spark_submit_uber_jar:
            if not spark.spark_rest_url:
                raise UsageError("--spark_submit_uber_jar: needs --spark_rest_url=http://HOST:PORT of Spark's master")
            return
        _check_java("SparkRunner")
        _check_spark(spark.spark_master_url, portable)
    elif runner == "flinkrunner":
        _check_jar("--flink_job_server_jar", flink.flink_job_server_jar)
        if flink.flink_submit_uber_jar:
            return
        _check_java("FlinkRunner")
        if not flink.flink_master.startswith("["):
            _check_port("--flink_master", flink.flink_master.rpartition("//")[2], "start Flink there")


def check_credentials(options: PipelineOptions) -> None:
    """Refuse Dataflow where Google's packages or credentials are missing.

    Beam looks for credentials for half a minute, goes on without, and asks the bucket for minutes.

    Raises:
        UsageError: they are.
    """
    if runner_name(options) != "dataflowrunner" or options.view_as(GoogleCloudOptions).no_auth:
        return
    try:
        auth, exceptions = import_module("google.auth"), import_module("google.auth.exceptions")
        import_module("google.cloud.storage")
    except ImportError as error:
        raise UsageError(
            "--runner=DataflowRunner: Google's packages are not installed; pip install 'cptsel[gcs]'"
        ) from error
    try:
        auth.default()
    except exceptions.DefaultCredentialsError as error:
        raise UsageError(
            "--runner=DataflowRunner: there are no usable Google credentials here; run gcloud auth "
            "application-default login, or give a key by GOOGLE_APPLICATION_CREDENTIALS"
        ) from error


def _check_jar(option: str, jar: str | None) -> None:
    if jar and "://" not in jar and not os.path.exists(jar):
        raise UsageError(f"{option}={jar}: there is no such file; name a jar, or leave the option out")


def _check_java(runner: str) -> None:
    java = JavaHelper.get_java()
    if shutil.which(java) is None:
        where = f"JAVA_HOME={os.environ['JAVA_HOME']}" if os.environ.get("JAVA_HOME") else "PATH"
        raise UsageError(
            f"--runner={runner}: its job server needs Java and there is none by {where}; install Java 11 or 17, or "
            "give --job_endpoint of a job server that runs elsewhere"
        )


def _check_spark(master: str, portable: PortableOptions) -> None:
    """A standalone master answers; so does the pool, where executors are on this machine for certain."""
    standalone, local = master.startswith("spark://"), LOCAL_SPARK.fullmatch(master) is not None
    if master == "yarn" and not (os.environ.get("HADOOP_CONF_DIR") or os.environ.get("YARN_CONF_DIR")):
        raise UsageError(
            "--spark_master_url=yarn: Spark finds YARN by the files in HADOOP_CONF_DIR, which is not set; set it"
        )
    if not standalone and not local and not _OTHER_SPARK.match(master):
        raise UsageError(
            f"--spark_master_url={master}: is no master of Spark's; give spark://HOST:PORT, local[N], yarn or k8s://..."
        )
    masters = master.removeprefix("spark://").split(",") if standalone else []
    for number, address in enumerate(masters):
        try:
            _check_port("--spark_master_url", address, "start Spark's master, or correct the address")
            break
        except UsageError:
            if number == len(masters) - 1:  # of several one is enough
                raise
    near = local or (standalone and all(_host(address) in _HERE for address in masters))
    pool = portable.environment_config or ""
    if near and portable.environment_type == "EXTERNAL" and _host(pool) in _HERE:
        remedy = "start the pool (python -m cptsel.pipeline.engine.pool --service_port=PORT)"
        _check_port("--environment_config", pool, f"{remedy}, or correct the address")


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]").lower()


def _check_port(option: str, address: str, remedy: str) -> None:
    host, port = _host(address), address.rpartition(":")[2]
    if not host or not port.isdigit():
        raise UsageError(f"{option}={address}: must be HOST:PORT")
    try:
        socket.create_connection((host, int(port)), WAIT_S).close()
    except (OSError, OverflowError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{option}={address}: nothing answers there ({detail}); {remedy}") from error
