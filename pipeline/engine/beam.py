"""How our pipelines are run: runner options, local worker processes, and the errors that come back from workers."""

import argparse
import logging
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from copy import deepcopy
from io import StringIO
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners import create_runner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from cptsel.pipeline import errors, stores
from cptsel.pipeline.engine.environment import check_environment, refuse_misspelt
from cptsel.pipeline.engine.loopback import keep_to_loopback
from cptsel.pipeline.engine.reach import check_credentials, check_reach
from cptsel.pipeline.errors import CptselError, PartialError, UsageError

_LOCAL_RUNNERS = frozenset({"directrunner", "fnapirunner"})
_RUNNERS = ("DirectRunner", "DataflowRunner", "FlinkRunner", "PortableRunner", "SparkRunner")  # of docs/engines.md
_OWN_ERROR = re.compile(r"cptsel\.pipeline\.errors\.(\w+): (.+?)(?: \[while running .*\])?$", re.MULTILINE)
_NO_JAR = re.compile(r"Unable to fetch remote job server jar at (\S+?-(spark|flink)-\S+): ")
_NOT_INSTALLED = re.compile(r"No module named '(cptsel|torch|transformers)\b")


def pipeline_options(beam_args: Sequence[str], workers: int) -> PipelineOptions:
    """Options from what follows ``--`` on the command line and from ``--workers``.

    Raises:
        UsageError: an option or runner that Beam does not know, or ``--workers`` together with another runner.
    """
    if workers < 1:
        raise UsageError(f"--workers {workers}: must be at least 1")
    args = [*stores.options(), *beam_args]
    printed = StringIO()
    try:
        with redirect_stderr(printed):  # argparse prints all options that Beam has, and then what is wrong
            options = PipelineOptions(args)
            unknown, known = _unknown(args)
    except SystemExit as error:
        wrong = printed.getvalue().rpartition("error: ")[2].strip() or " ".join(args)
        raise UsageError(f"Beam does not take the options after --: {wrong}") from error
    if is_local(options):
        if unknown:
            raise UsageError(f"Beam has no option {unknown[0]}; what follows -- goes to Beam: check the spelling")
        if workers > 1:
            args += ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
    else:
        _check_runner(options.view_as(StandardOptions).runner)
        if workers > 1:
            raise UsageError("--workers is for local processes; set the runner's own option for parallelism after --")
        refuse_misspelt(unknown, known)
        check_credentials(PipelineOptions(args))
        _check_complete(PipelineOptions(args))
        check_environment(PipelineOptions(args))
    return PipelineOptions(args)


def is_local(options: PipelineOptions) -> bool:
    """Whether the workers are this process or children of it."""
    runner = options.view_as(StandardOptions).runner
    return runner is None or runner.lower() in _LOCAL_RUNNERS


def _check_runner(name: str) -> None:
    """Refuse a runner that Beam can't make, before a pipeline is built."""
    try:
        create_runner(name)
    except ValueError as error:
        raise UsageError(f"--runner={name}: Beam has no such runner; use one of {', '.join(_RUNNERS)}") from error
    except (AttributeError, ImportError, TypeError) as error:
        detail = errors.first_line(error)
        raise UsageError(f"--runner={name}: can't be loaded ({detail}); install it, or use another runner") from error


def _check_complete(options: PipelineOptions) -> None:
    """Refuse options without which the runner can't start, as Beam itself would, but before anything is done."""
    runner = create_runner(options.view_as(StandardOptions).runner)
    for problem in PipelineOptionsValidator(options, runner).validate():
        raise UsageError(f"--runner={options.view_as(StandardOptions).runner}: {problem.strip()} (options after --)")


def _unknown(args: list[str]) -> tuple[list[str], list[str]]:
    """Arguments that are no options of Beam for Python, which drops them or leaves them to a job server; its flags."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(args)
    return unknown, [flag for action in parser._actions for flag in action.option_strings]


def make_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """A pipeline on the named runner. DirectRunner, the default, always means Beam's in-process FnApiRunner.

    Left alone, Beam 2.77 tries Prism first, which downloads a binary. The pipeline is to be used in a ``with`` block,
    and raises in this process the CptselError that a worker raised.

    Raises:
        UsageError: another engine that this machine can't start or reach.
    """
    if not is_local(options):
        check_reach(options)
        return _Pipeline(options=options)
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    options = deepcopy(options)  # it is changed below, and the caller may run a second pipeline with it
    direct = options.view_as(DirectOptions)
    if direct.direct_running_mode != "multi_processing":
        return _Pipeline(runner=FnApiRunner(), options=options)
    keep_to_loopback()
    direct.direct_running_mode = "in_memory"  # otherwise Beam replaces the environment that it is given
    # The thread that reads from a worker logs a traceback when the worker ends; errors are raised by another way.
    logging.getLogger("apache_beam.runners.worker.data_plane").setLevel(logging.CRITICAL)
    lifeline = _Lifeline()
    command = shlex.join([sys.executable, "-m", "cptsel.pipeline.engine.worker", lifeline.path])
    # Ctrl-C reaches every process of the terminal. Workers ignore it, as their shell does; this process ends them.
    runner = FnApiRunner(SubprocessSDKEnvironment.from_command_string(f"trap '' INT; exec {command}"))
    return _Pipeline(runner=runner, options=options, lifeline=lifeline)


class _Lifeline:
    """A named pipe that worker processes read: they end when this process closes it, or when it ends."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cptsel-")
        self.path = os.path.join(self._folder.name, "lifeline")
        os.mkfifo(self.path)
        # For reading too: opening for writing alone would wait for a reader.
        self._descriptor: int | None = os.open(self.path, os.O_RDWR)

    @property
    def held(self) -> bool:
        """Whether workers are to live."""
        return self._descriptor is not None

    def close(self) -> None:
        """Let the workers end."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._folder.cleanup()  # first, so that no worker opens a pipe that nobody will close
            os.close(descriptor)


class _Pipeline(beam.Pipeline):
    """A pipeline whose ``with`` block ends with our own errors, and with its worker processes."""

    def __init__(self, *args: Any, lifeline: _Lifeline | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lifeline = lifeline

    def __exit__(self, *exception: Any) -> None:
        try:
            with _watching(self._lifeline):
                super().__exit__(*exception)
        except (RuntimeError, CptselError) as error:
            raise _own_error(error) or error from error
        finally:
            if self._lifeline is not None:
                self._lifeline.close()


@contextmanager
def _watching(lifeline: _Lifeline | None) -> Iterator[None]:
    """Let the workers end at an interrupt, and turn the death of one into a PartialError.

    Beam's runner alone would wait for the blocks in work after an interrupt, and for ever after the death of a worker.
    It has a thread that waits for each worker process and raises when that dies. The hook below sees this and
    interrupts the main thread.
    """
    if lifeline is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    deaths: list[str] = []

    def interrupted(number: int, frame: Any) -> None:
        before = handlers[signal.Signals(number)]
        if before == signal.SIG_IGN and not deaths:
            return
        lifeline.close()
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # it would log every stream that is cut
        if callable(before) and not deaths:  # somebody has asked for it, not the hook below
            before(number, frame)
        signal.default_int_handler(number, frame)

    def raised(event: "threading.ExceptHookArgs") -> None:
        if isinstance(event.exc_value, grpc.RpcError):
            return  # a stream that the end of a worker cut; the worker's own thread, below, reports that
        if event.thread is None or event.thread.name != "run_worker":
            hook(event)
        elif lifeline.held and not deaths:
            deaths.append(str(event.exc_value).rpartition(" ")[2])
            os.kill(os.getpid(), signal.SIGINT)

    hook = threading.excepthook
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, interrupted)
    if callable(handlers[signal.SIGTERM]):
        signal.signal(signal.SIGTERM, interrupted)
    threading.excepthook = raised
    try:
        yield
        threading.excepthook = hook  # after an error it stays, for threads that end later
    except KeyboardInterrupt:
        if not deaths:
            raise
        raise PartialError(
            f"a worker process ended with code {deaths[0]}, perhaps because memory ran out; "
            "run the same command again, with fewer --workers, to go on from what is done"
        ) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _own_error(error: Exception) -> CptselError | None:
    """The CptselError that a worker raised: Beam adds to its text, or brings back a traceback as text.

    What Beam raises where a worker has no cptsel, or the command no job server, is put into a sentence of ours.
    """
    name = f"{type(error).__module__}.{type(error).__name__}: " if isinstance(error, CptselError) else ""
    found = _OWN_ERROR.findall(name + str(error))
    if not found and _NOT_INSTALLED.search(str(error)):
        return UsageError(
            "a worker can't import cptsel; install the command's version of it, and of its packages, in the Python "
            "that runs the workers"
        )
    if not found and (jar := _NO_JAR.search(str(error))):
        return UsageError(
            f"Beam's job server can't be downloaded from {jar[1]}; fetch that file where there is a network, and name "
            f"it by --{jar[2]}_job_server_jar=FILE (after --)"
        )
    kind = getattr(errors, found[-1][0], None) if found else None
    return kind(found[-1][1]) if kind is not None else None
