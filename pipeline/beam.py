"""How our pipelines are run: runner options, workers, and the one place that decides which local runner is used."""

import logging
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from cptsel.pipeline.errors import UsageError


def pipeline_options(beam_args: Sequence[str], workers: int) -> PipelineOptions:
    """Options from what follows ``--`` on the command line and from ``--workers``.

    Raises:
        UsageError: an option that Beam does not know, or ``--workers`` together with another runner.
    """
    args = list(beam_args)
    named = [arg for arg in args if arg == "--runner" or arg.startswith("--runner=")]
    local = not named or named[-1].split("=", 1)[-1] in {"DirectRunner", "FnApiRunner"}
    if workers < 1:
        raise UsageError(f"--workers {workers}: must be at least 1")
    if workers > 1:
        if not local:
            raise UsageError("--workers is for local processes; set the runner's own option for parallelism after --")
        args += ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
    try:
        return PipelineOptions(args)
    except SystemExit as error:  # argparse has already printed what is wrong
        raise UsageError(f"Beam does not accept these options: {' '.join(args)}") from error


def make_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """A pipeline on the named runner. DirectRunner, the default, always means Beam's in-process FnApiRunner.

    Left alone, Beam 2.77 tries Prism first, which downloads a binary.
    """
    name = options.view_as(StandardOptions).runner or "DirectRunner"
    if name in {"DirectRunner", "FnApiRunner"}:
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner

        logging.getLogger("apache_beam").setLevel(logging.WARNING)
        return beam.Pipeline(runner=FnApiRunner(), options=options)
    return beam.Pipeline(options=options)
