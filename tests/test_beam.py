"""How pipelines end: options, errors of our own out of workers, and workers that die."""

import threading

import apache_beam as beam
import pytest

from cptsel.pipeline.engine.beam import make_pipeline, pipeline_options
from cptsel.pipeline.errors import BadInputError, PartialError, UsageError


def _run(function, workers=1):
    with make_pipeline(pipeline_options([], workers)) as pipeline:
        _ = pipeline | beam.Create([1, 2, 3]) | beam.Map(function)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_ours_comes_out_of_a_worker_as_it_was(workers):
    def refuse(_):  # pickled by value, unlike a function of this module, which workers can't import
        from cptsel.pipeline.errors import BadInputError

        raise BadInputError("shard 3, row 7: is [wrong]; mend it")

    with pytest.raises(BadInputError, match=r"^shard 3, row 7: is \[wrong\]; mend it$"):
        _run(refuse, workers)


def test_an_error_of_others_stays_what_it_is():
    def fail(_):
        raise KeyError("phase")

    with pytest.raises((RuntimeError, KeyError), match="phase"):
        _run(fail)


def test_a_worker_that_is_killed_ends_the_command_and_not_its_hope():
    def die(_):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    hook = threading.excepthook
    try:
        with pytest.raises(PartialError, match="a worker process ended with code -9"):
            _run(die, workers=2)
    finally:
        threading.excepthook = hook


def test_one_set_of_options_serves_several_pipelines():
    options = pipeline_options([], 2)
    before = options.get_all_options()
    make_pipeline(options)
    assert options.get_all_options() == before


def test_workers_are_for_the_local_runner():
    with pytest.raises(UsageError, match="--workers is for local processes"):
        pipeline_options(["--runner=SparkRunner"], 2)
    with pytest.raises(UsageError, match="--workers 0: must be at least 1"):
        pipeline_options([], 0)


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("Nope", r"--runner=Nope: Beam has no such runner; use one of .*DirectRunner, .*SparkRunner"),
        ("no_such.Runner", r"--runner=no_such\.Runner: can't be loaded \(No module named 'no_such'\)"),
        ("apache_beam.Nope", r"--runner=apache_beam\.Nope: can't be loaded"),
        ("os.path", r"--runner=os\.path: can't be loaded"),
    ],
)
def test_a_runner_that_beam_does_not_have_is_a_usage_error(name, phrase):
    with pytest.raises(UsageError, match=phrase):
        pipeline_options([f"--runner={name}"], 1)


def test_a_remote_runner_without_what_it_needs_is_a_usage_error():
    with pytest.raises(UsageError, match=r"--runner=DataflowRunner: .* \(options after --\)"):
        pipeline_options(("--runner=DataflowRunner", "--region=us-central1", "--no_auth"), workers=1)
