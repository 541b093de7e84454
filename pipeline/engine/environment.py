"""What the options of another engine say of its workers: where they run, and whether they can have cptsel there.

Beam takes most of these as they are. A job with a wrong one ends in a traceback of Java's, or waits for ever for
workers that can't come up.
"""

import difflib
import json
import re

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    SparkRunnerOptions,
    StandardOptions,
    WorkerOptions,
)

from cptsel.pipeline.errors import UsageError

LOCAL_SPARK = re.compile(r"local(\[.+\])?")
_PORTABLE = frozenset({"sparkrunner", "flinkrunner", "portablerunner"})
_KINDS = ("DOCKER", "EXTERNAL", "LOOPBACK", "PROCESS")
_WITHOUT_CPTSEL = "Beam's own image, which workers have by default, has no cptsel"
_IMAGE = "docs/engines.md, A worker image"
_NEAR = 0.92  # a letter more, less or other in a name of eight; options of job servers are farther from Python's


def check_environment(options: PipelineOptions) -> None:
    """Refuse options by which no worker can come up that has cptsel.

    Raises:
        UsageError: there is one.
    """
    runner = runner_name(options)
    if runner == "dataflowrunner":
        if not options.view_as(WorkerOptions).sdk_container_image and not _installs(options):
            raise UsageError(
                f"--runner=DataflowRunner: {_WITHOUT_CPTSEL}; name one by --sdk_container_image ({_IMAGE})"
            )
    elif runner in _PORTABLE:
        portable = options.view_as(PortableOptions)
        for name in ("environment_cache_millis", "sdk_worker_parallelism"):
            if not str(value := getattr(portable, name)).isdigit():
                raise UsageError(f"--{name}={value}: must be a whole number")
        _check_kind(portable.environment_type, options)


def runner_name(options: PipelineOptions) -> str:
    """The class of the runner in small letters, without its module."""
    return (options.view_as(StandardOptions).runner or "").rpartition(".")[2].lower()


def refuse_misspelt(unknown: list[str], known: list[str]) -> None:
    """Refuse an option that Beam does not know and that is nearly one of those that it does.

    An engine's job server has options of its own, and Beam drops in the end what nobody knows.

    Args:
        unknown: arguments that Beam's parser left over.
        known: flags.

    Raises:
        UsageError: there is one.
    """
    for argument in unknown:
        name = argument.partition("=")[0]
        if name.startswith("--") and (near := difflib.get_close_matches(name, known, 1, _NEAR)):
            raise UsageError(f"Beam has no option {argument} (after --); did you mean {near[0]}?")


def _check_kind(kind: str | None, options: PipelineOptions) -> None:
    portable = options.view_as(PortableOptions)
    config = portable.environment_config
    if kind is not None and kind not in _KINDS and not kind.startswith("beam:env:"):
        raise UsageError(f"--environment_type={kind}: Beam has {', '.join(_KINDS)}")
    if kind == "EXTERNAL":
        address = config or portable.lookup_environment_option("external_service_address")
        if not address.lstrip().startswith("{") and not re.fullmatch(r".+:\d+", address):
            raise UsageError(f"--environment_config={address}: must be HOST:PORT of the worker pool")
    elif kind == "PROCESS" and config and not _has_command(config):
        raise UsageError(f'--environment_config={config}: must be JSON such as {{"command": "/opt/beam/boot"}}')
    elif kind == "DOCKER" or (kind is None and not _is_local(options)):
        image = config or portable.lookup_environment_option("docker_container_image")
        if not image and not _installs(options):
            raise UsageError(
                f"{_WITHOUT_CPTSEL}; name one by --environment_type=DOCKER --environment_config=IMAGE ({_IMAGE}), or "
                "a worker pool by --environment_type=EXTERNAL --environment_config=localhost:PORT"
            )


def _is_local(options: PipelineOptions) -> bool:
    """Whether Beam lets this process be the worker where nothing else is said."""
    runner = runner_name(options)
    if runner == "sparkrunner":
        return LOCAL_SPARK.fullmatch(options.view_as(SparkRunnerOptions).spark_master_url) is not None
    return runner == "flinkrunner" and options.view_as(FlinkRunnerOptions).flink_master.startswith("[")


def _installs(options: PipelineOptions) -> bool:
    """Whether workers install packages when they start, among which cptsel may be."""
    setup = options.view_as(SetupOptions)
    return bool(setup.requirements_file or setup.setup_file or setup.extra_packages)


def _has_command(config: str) -> bool:
    try:
        return bool(json.loads(config).get("command"))
    except (ValueError, AttributeError):
        return False
