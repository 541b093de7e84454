"""One function over many tasks on any runner. Tasks and results travel in files, never inside the pipeline.

The driver writes the tasks to one file, pickled one after another, and cuts them into parts. What the pipeline shuffles
is a part's number and its range of bytes. A worker reads the part, and writes the results of its tasks to a file of the
part's number, which the driver reads in order. So the graph has a few kilobytes and the driver holds one part, however
many tasks there are; two attempts of a part write the same file.
"""

import json
import logging
import pickle
import socket
import threading
import uuid
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import apache_beam as beam
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.windowed_value import WindowedValue

from cptsel.pipeline import errors, io
from cptsel.pipeline.engine.beam import is_local, make_pipeline
from cptsel.pipeline.engine.handed import Handed
from cptsel.pipeline.engine.site import check_versions, missing_here, versions

PARTS = 8192  # fewer tasks are a part each; there are fewer than twice as many parts
LINES = 1000  # of a file of results that come in no order
_AHEAD = 16  # files that the driver reads at once: on a remote store each takes a while
PATIENCE_S = 300.0  # until a worker begins
_NAMES = "names.json"

_log = logging.getLogger("cptsel")

Part = tuple[int, int, int]


@dataclass(frozen=True)
class TaskFiles:
    """The files of one list of tasks.

    Attributes:
        folder: that holds them, and nothing else.
        parts: how many parts there are.
    """

    folder: str
    parts: int

    @property
    def tasks(self) -> str:
        """Tasks, pickled, one after another."""
        return io.join(self.folder, "tasks.pickle")

    @property
    def bounds(self) -> str:
        """Byte at which each part begins, and the end of the last."""
        return io.join(self.folder, "parts.json")

    @property
    def began(self) -> str:
        """Written by the first worker that begins."""
        return io.join(self.folder, "began")

    def results(self, part: int) -> str:
        """Results of a part, a JSON line each."""
        return io.join(self.folder, "results", f"{part:06d}.jsonl")


def write_tasks(folder: str, tasks: Iterable[Any]) -> TaskFiles:
    """Write tasks, one at a time, for ``ReadTasks``.

    Args:
        folder: for their files; what is in it is deleted.
        tasks: picklable, small.
    """
    io.delete_tree(folder)
    files, starts, end = TaskFiles(folder, 0), array("Q"), 0
    with io.atomic_writer(files.tasks, durable=False) as handle:
        for task in tasks:
            record = pickle.dumps(task, pickle.HIGHEST_PROTOCOL)
            handle.write(record)
            starts.append(end)
            end += len(record)
    bounds = [*starts[:: max(1, len(starts) // PARTS)], end]
    io.write_scratch(files.bounds, json.dumps(bounds).encode())
    return TaskFiles(folder, len(bounds) - 1)


@contextmanager
def awaiting(options: PipelineOptions, files: TaskFiles) -> Iterator[None]:
    """While a pipeline runs on another engine: warn if no worker has begun after a while. Such a job waits for ever."""
    ended = threading.Event()

    def wait() -> None:
        if not ended.wait(PATIENCE_S) and not io.exists(files.began):
            _log.warning(
                "no worker has begun after %.0f s: the engine has none free, or workers do not come up; see that a "
                "worker pool with cptsel's Python runs on every worker machine at --environment_config",
                PATIENCE_S,
            )

    thread = threading.Thread(target=wait, daemon=True)
    if not is_local(options):
        thread.start()
    try:
        yield
    finally:
        ended.set()


class ListParts(beam.PTransform):
    """Pipeline → (number, first byte, end) of every part of the tasks, spread over the workers."""

    def __init__(self, files: TaskFiles):
        super().__init__()
        self.files = files

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        return (
            pipeline
            | "Begin" >> beam.Create([None])
            | "ListParts" >> beam.FlatMap(_anywhere(_ListPartsDoFn(self.files, versions())))
            | "Spread" >> beam.Reshuffle()
        )


class ReadTasks(beam.PTransform):
    """Pipeline → the tasks, spread over the workers."""

    def __init__(self, files: TaskFiles):
        super().__init__()
        self.files = files

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        return pipeline | "Parts" >> ListParts(self.files) | "Read" >> beam.ParDo(_ReadDoFn(self.files, versions()))


class _AtSite(beam.DoFn):
    """What reads tasks: at its first element it makes sure that the worker is one that may.

    Not in ``setup``: Beam's Spark runner waits for ever for a worker whose setup failed.
    """

    def __init__(self, files: TaskFiles, expected: dict[str, str]):
        self.files = files
        self.expected = expected
        self.checked = False

    def check(self) -> None:
        if not self.checked:
            check_versions(self.expected)
            if not io.exists(self.files.began):
                io.write_scratch(self.files.began, socket.gethostname().encode())
            self.checked = True

    def tasks_of(self, part: Part) -> Iterator[Any]:
        self.check()
        _, first, end = part
        try:
            with io.open_read(self.files.tasks) as handle:
                handle.seek(first)
                records = BytesIO(handle.read(end - first))
        except FileNotFoundError as error:
            raise missing_here(self.files.tasks) from error
        while records.tell() < end - first:
            yield pickle.load(records)


class _ListPartsDoFn(_AtSite):
    def process(self, _: None) -> Iterator[Part]:
        self.check()
        try:
            bounds = json.loads(io.read_bytes(self.files.bounds))
        except FileNotFoundError as error:
            raise missing_here(self.files.bounds) from error
        for number, first in enumerate(bounds[:-1]):
            yield number, first, bounds[number + 1]


def _anywhere(do_fn: beam.DoFn) -> Callable[[Any], Iterable[Any]]:
    """The ``process`` of a DoFn, for the first step of a job: a worker without cptsel loads it, and fails in its call.

    Beam's Spark runner waits for ever for a worker that can't load a step. What this returns has no name to be found by
    in a module, so it is pickled by value.
    """
    packed = pickler.dumps(do_fn)

    def process(element: Any) -> Iterable[Any]:
        from apache_beam.internal import pickler

        found: Iterable[Any] = pickler.loads(packed).process(element)
        return found

    return process


class _ReadDoFn(_AtSite):
    def process(self, part: Part) -> Iterator[Any]:
        return self.tasks_of(part)


class _CallDoFn(_AtSite):
    """Part → nothing; the results of its tasks are written, with errors that are the user's to mend among them."""

    def __init__(self, files: TaskFiles, function: Handed[Callable[[Any], Any]], expected: dict[str, str]):
        super().__init__(files, expected)
        self.function = function

    def process(self, part: Part) -> None:
        lines = [json.dumps(self._call(task)) + "\n" for task in self.tasks_of(part)]
        io.write_scratch(self.files.results(part[0]), "".join(lines).encode())

    def _call(self, task: Any) -> tuple[str | None, Any]:
        try:
            return None, self.function.value(task)
        except errors.CptselError as error:
            return type(error).__name__, str(error)


def call_on_tasks(
    options: PipelineOptions, folder: str, function: Callable[[Any], Any], tasks: Iterable[Any]
) -> Iterator[Any]:
    """Call ``function`` on every task, wherever the runner likes; its JSON-able values, in task order.

    All tasks are done when this returns. The iterator raises the CptselError of a task in that task's place.

    Args:
        options: of the pipeline.
        folder: for the files of this call; it is deleted when the last value was read.
        function: picklable; what it raises of CptselError comes back, anything else ends the pipeline.
        tasks: picklable, small.
    """
    files = write_tasks(folder, tasks)
    if files.parts:
        call = _CallDoFn(files, Handed(io.join(folder, "function.pickle"), function), versions())
        with awaiting(options, files), make_pipeline(options) as pipeline:
            _ = pipeline | "Parts" >> ListParts(files) | "Call" >> beam.ParDo(call)
    return _values(files)


def _values(files: TaskFiles) -> Iterator[Any]:
    for lines in _read_ahead(files.results(part) for part in range(files.parts)):
        for line in lines.splitlines():
            kind, value = json.loads(line)
            if kind is not None:
                raise getattr(errors, kind)(value)
            yield value
    io.delete_tree(files.folder)


def _read_ahead(paths: Iterable[str]) -> Iterator[bytes]:
    """The files' bytes, in order; a few are read at a time.

    Raises:
        UsageError: one is missing.
    """
    with ThreadPoolExecutor(_AHEAD) as pool:
        reading = []
        for path in paths:
            reading.append(pool.submit(_read, path))
            if len(reading) == _AHEAD:
                yield reading.pop(0).result()
        for read in reading:
            yield read.result()


def _read(path: str) -> bytes:
    try:
        return io.read_bytes(path)
    except FileNotFoundError as error:
        raise errors.UsageError(
            f"{path}: a worker wrote this file and the command does not see it; --out must lie where the command and "
            "all workers see it under the same path"
        ) from error


class WriteLines(beam.PTransform):
    """Lines → files in a folder, for ``read_lines``: for results of which a task has many, at any stage of a pipeline.

    Workers write files of many lines; what is gathered is their names. A file of an attempt that failed is not named.
    """

    def __init__(self, folder: str):
        super().__init__()
        self.folder = folder

    def expand(self, lines: beam.PCollection) -> beam.PCollection:
        return (
            lines
            | "WriteFiles" >> beam.ParDo(_WriteLinesDoFn(self.folder))
            | "GatherNames" >> beam.combiners.ToList()
            | "WriteNames" >> beam.ParDo(_WriteNamesDoFn(self.folder))
        )


class _WriteLinesDoFn(beam.DoFn):
    def __init__(self, folder: str):
        self.folder = folder

    def start_bundle(self) -> None:
        self.lines: list[str] = []

    def process(self, line: str) -> Iterator[str]:
        self.lines.append(line)
        if len(self.lines) == LINES:
            yield self._write()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self.lines:
            window = beam.transforms.window.GlobalWindow()
            yield WindowedValue(self._write(), window.max_timestamp(), [window])

    def _write(self) -> str:
        name = f"{uuid.uuid4().hex}.jsonl"
        io.write_scratch(io.join(self.folder, name), "".join(f"{line}\n" for line in self.lines).encode())
        self.lines = []
        return name


class _WriteNamesDoFn(beam.DoFn):
    def __init__(self, folder: str):
        self.folder = folder

    def process(self, names: list[str]) -> None:
        io.write_scratch(io.join(self.folder, _NAMES), json.dumps(sorted(names)).encode())


def read_lines(folder: str) -> Iterator[str]:
    """The lines that ``WriteLines`` wrote, in no order, file by file."""
    names = json.loads(_read(io.join(folder, _NAMES)))
    for lines in _read_ahead(io.join(folder, name) for name in names):
        yield from map(bytes.decode, lines.splitlines())
