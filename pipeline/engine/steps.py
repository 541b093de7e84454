"""Running one plain function over many tasks by Beam; ``select``, ``export`` and ``verify`` use Beam in no other way.

A step's function reads and writes files of its own and returns a few small values. So no vector crosses a shuffle, and
a step can be tested as a function. How tasks and values travel: ``tasks.py``.
"""

import copy
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import grpc

from cptsel.pipeline import errors, io
from cptsel.pipeline.engine.beam import pipeline_options
from cptsel.pipeline.engine.cause import cause_of
from cptsel.pipeline.engine.progress import Progress, Watch
from cptsel.pipeline.engine.tasks import call_on_tasks
from cptsel.pipeline.engine.threads import one_blas_thread


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
        return list(self.each(what, function, tasks, len(tasks))) if tasks else []

    def each(
        self, what: str, function: Callable[[Any], Any], tasks: Iterable[Any], total: int | None = None
    ) -> Iterator[Any]:
        """As ``run``, for more tasks or values than fit into memory: neither is ever held as a whole.

        All tasks are done when this returns; the iterator reads their values.

        Args:
            what, function, tasks: as of ``run``.
            total: how many tasks there are, for progress; None where that is not known.
        """
        folder = io.join(self.work, f"{what}.{uuid.uuid4().hex[:8]}")  # an attempt of an earlier call may still write
        written = io.join(self.work, what)
        # Workers may be this process, which then gets its threads of BLAS back.
        with one_blas_thread(), Watch(self.progress, lambda: len(io.list_names(written)), total, what):
            try:
                values = call_on_tasks(self.options, folder, _OnOneThread(function), tasks)
            except (RuntimeError, OSError, MemoryError, grpc.RpcError) as error:  # of the runner, or what it reads
                cause = cause_of(error)
                if cause.startswith("KeyboardInterrupt"):  # Beam may wrap it
                    raise KeyboardInterrupt from error
                sentence = f"the step {what!r} failed: {cause}; run the command again, with --debug to see more"
                raise errors.PartialError(sentence) from error
        if self.progress is not None and total is not None:
            self.progress(total, total, what)
        return values


class InlineSteps(Steps):
    """Steps in this process and without Beam, task by task: for tests, and for a debugger."""

    def each(
        self, what: str, function: Callable[[Any], Any], tasks: Iterable[Any], total: int | None = None
    ) -> Iterator[Any]:
        """Call ``function`` on every task; its values go through JSON, as they would with Beam."""
        return iter([json.loads(json.dumps(function(task))) for task in tasks])


class _OnOneThread:
    """A function during which FAISS and BLAS have one thread.

    So bytes don't depend on a worker's cores; the runner is parallel. OpenMP, which FAISS uses, keeps the number for
    each thread by itself, and a worker may call from another thread every time.
    """

    def __init__(self, function: Callable[[Any], Any]):
        self.function = function
        self.limited = False

    def __call__(self, task: Any) -> Any:
        import faiss
        from threadpoolctl import threadpool_limits

        before = faiss.omp_get_max_threads()  # which a limit of BLAS may change
        if not self.limited:  # for good: another thread of this process may be in a task
            threadpool_limits(1, user_api="blas")
            self.limited = True
        faiss.omp_set_num_threads(1)
        try:
            return self.function(task)
        finally:
            faiss.omp_set_num_threads(before)
