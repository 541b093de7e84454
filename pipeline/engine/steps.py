"""Running one plain function over many tasks by Beam; ``select``, ``export`` and ``verify`` use Beam in no other way.

A step's function reads and writes files of its own and returns a few small values. They come back to the driver by a
file, which works with remote runners too. So no vector crosses a shuffle, and a step can be tested as a function.
"""

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import grpc

from cptsel.pipeline import errors, io
from cptsel.pipeline.engine.beam import make_pipeline, pipeline_options
from cptsel.pipeline.engine.progress import Progress, Watch


class Steps:
    """Where and how the steps of one call of a command run.

    Args:
        work: directory for what steps hand to each other.
        beam_args: what follows ``--`` on the command line.
        workers: local processes.
        progress: told how many of a step's tasks are done.
    """

    def __init__(self, work: str, beam_args: Sequence[str], workers: int, progress: Progress | None):
        self.work = work
        self.options = pipeline_options(beam_args, workers)
        self.progress = progress

    def within(self, name: str) -> "Steps":
        """The same, with a work directory of its own below this one."""
        other = copy.copy(self)
        other.work = io.join(self.work, name)
        return other

    def run(self, what: str, function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        """Call ``function`` on every task, wherever the runner likes, and return its JSON-able values in task order.

        Args:
            what: name of the step, for progress; also its directory under ``work``, where ``function`` may write.
            function: picklable; a CptselError that it raises is raised here again, that of the first task first.
            tasks: picklable, small.

        Raises:
            PartialError: the runner or a worker failed, or files can't be read or written.
        """
        if not tasks:
            return []
        path = io.join(self.work, f"{what}.jsonl")
        written = io.join(self.work, what)
        with Watch(self.progress, lambda: len(io.list_names(written)), len(tasks), what):
            try:
                with make_pipeline(self.options) as pipeline:
                    numbered = pipeline | "CreateTasks" >> beam.Create(list(enumerate(tasks)))
                    _ = numbered | "RunTasks" >> RunTasks(function) | "GatherResults" >> GatherResults(path)
            except (RuntimeError, OSError, MemoryError, grpc.RpcError) as error:  # of the runner, or what it reads
                cause = str(error).strip().splitlines()[-1:] or [type(error).__name__]
                if cause[0].startswith("KeyboardInterrupt"):  # Beam may wrap it
                    raise KeyboardInterrupt from error
                sentence = (
                    f"the step {what!r} failed: {cause[0][:300]}; run the command again, with --debug to see more"
                )
                raise errors.PartialError(sentence) from error
        if self.progress is not None:
            self.progress(len(tasks), len(tasks), what)
        lines = [json.loads(line) for line in io.read_bytes(path).splitlines()]
        for _number, kind, value in lines:
            if kind is not None:
                raise getattr(errors, kind)(value)
        return [value for _number, _kind, value in lines]


class InlineSteps(Steps):
    """Steps in this process and without Beam, task by task: for tests, and for a debugger."""

    def run(self, what: str, function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        """Call ``function`` on every task; its values go through JSON, as they would with Beam."""
        return [json.loads(json.dumps(function(task))) for task in tasks]


class RunTasks(beam.PTransform):
    """(number, task) → (number, None, value), or (number, class, sentence) of an error that is the user's to mend."""

    def __init__(self, function: Callable[[Any], Any]):
        super().__init__()
        self.function = function

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        return tasks | "Spread" >> beam.Reshuffle() | "Call" >> beam.ParDo(_CallDoFn(self.function))


class GatherResults(beam.PTransform):
    """Results, in order of their numbers, as JSON lines of one file."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def expand(self, results: beam.PCollection) -> beam.PCollection:
        return results | "Gather" >> beam.combiners.ToList() | "WriteResults" >> beam.ParDo(_WriteDoFn(self.path))


class _CallDoFn(beam.DoFn):
    def __init__(self, function: Callable[[Any], Any]):
        self.function = function

    def setup(self) -> None:
        """Give FAISS and BLAS one thread, so that bytes don't depend on a worker's cores; the runner is parallel."""
        import faiss
        from threadpoolctl import threadpool_limits

        faiss.omp_set_num_threads(1)
        threadpool_limits(1, user_api="blas")

    def process(self, element: tuple[int, Any]) -> Iterator[tuple[int, str | None, Any]]:
        number, task = element
        try:
            yield number, None, self.function(task)
        except errors.CptselError as error:
            yield number, type(error).__name__, str(error)


class _WriteDoFn(beam.DoFn):
    def __init__(self, path: str):
        self.path = path

    def process(self, results: Iterable[tuple[int, str | None, Any]]) -> None:
        ordered = sorted(results, key=lambda result: result[0])
        io.write_bytes(self.path, "".join(json.dumps(list(result)) + "\n" for result in ordered).encode())
