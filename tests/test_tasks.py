"""Tasks and results travel in files: one size of graph and of memory whatever their number, and sentences where not."""

import json
import os
import pickle
import random
import re
import subprocess
import sys
import tracemalloc

import apache_beam as beam
import pytest
from apache_beam.internal import pickler
from selection_builder import choose

from cptsel.pipeline import io
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.engine import site, tasks
from cptsel.pipeline.engine.beam import make_pipeline, pipeline_options
from cptsel.pipeline.engine.handed import Handed
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.engine.tasks import ReadTasks, TaskFiles, WriteLines, call_on_tasks, read_lines, write_tasks
from cptsel.pipeline.errors import BadInputError, UsageError

LIMIT = 100_000  # bytes of a graph


def double(number):
    return 2 * number


class AddAll:
    """A function that carries much."""

    def __init__(self, numbers):
        self.numbers = numbers

    def __call__(self, number):
        return number + len(self.numbers)


@pytest.fixture
def graphs(monkeypatch):
    """Sizes of the serialised graphs of all pipelines that run."""
    found = []
    run = beam.Pipeline.run

    def measured(pipeline, *args, **kwargs):
        found.append(len(pipeline.to_runner_api().SerializeToString()))
        return run(pipeline, *args, **kwargs)

    monkeypatch.setattr(beam.Pipeline, "run", measured)
    return found


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_every_task_is_done_once_and_values_come_in_order(tmp_path, monkeypatch, count):
    monkeypatch.setattr(tasks, "PARTS", 8)
    values = call_on_tasks(pipeline_options([], 1), str(tmp_path / "work"), double, iter(range(count)))
    assert list(values) == [2 * number for number in range(count)]
    assert not (tmp_path / "work").exists()
    files = write_tasks(str(tmp_path / "work"), range(count))
    assert count <= 8 or 8 < files.parts < 16 or files.parts <= 2 * 8
    assert files.parts == count or count > 8


@pytest.mark.parametrize("count", [10_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_the_graph_has_one_size_and_the_driver_holds_a_part(tmp_path, monkeypatch, graphs, count):
    """Tasks of a kilobyte each, with as large results: 20 MB, and 400."""
    monkeypatch.setattr(tasks, "PARTS", 256 if count < 100_000 else tasks.PARTS)
    padding = "x" * 1000

    def pad(number):
        return [number, "y" * 1000]

    peaks = []
    for number in (2, count):
        steps = Steps(str(tmp_path / "work"), (), 1, None)
        # The local runner is in this process: what it holds counts as well.
        tracemalloc.start()
        values = steps.each("pad", pad, ((n, padding) for n in range(number)))
        seen = 0
        for place, ((index, _), text) in enumerate(values):
            assert (index, len(text)) == (place, 1000)
            seen += 1
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        peaks.append(peak)
        assert seen == number
    assert max(graphs) < LIMIT
    assert max(graphs) - min(graphs) < 100
    assert peaks[1] - peaks[0] < count * 2000 / 4


def test_what_a_function_carries_is_not_in_the_graph(tmp_path, graphs):
    steps = Steps(str(tmp_path / "work"), (), 1, None)
    assert steps.run("add", AddAll(list(range(1_000_000))), [1, 2]) == [1_000_001, 1_000_002]
    assert max(graphs) < LIMIT


def test_graphs_of_the_commands_are_small(run, tiny_lm, tmp_path, graphs):
    """Embed with groups that have rates of their own and long names, which can't be compressed; select."""
    names = [random.Random(row).randbytes(500).hex() for row in range(400)]
    rows = [{"text": f"the text of row {row}", "language": name} for row, name in enumerate(names)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = EmbedConfig(
        inputs=(f"{tmp_path}/a.jsonl",), model=str(tiny_lm), out=str(tmp_path / "run"), max_tokens=16,
        sketch_dim=16, validation_dim=16, block_bytes=40_000, group_by=("language",), pool="50%", pool_alpha=0.5,
    )  # fmt: skip
    embed(config)
    assert len(os.listdir(tmp_path / "run" / "embeddings")) > 5
    choose(run, tmp_path / "replay", make_steps=Steps, method="craig", scope="global")
    assert len(graphs) > 5
    assert max(graphs) < LIMIT


def test_an_error_comes_in_its_place(tmp_path):
    def refuse(number):
        from cptsel.pipeline.errors import BadInputError

        if number % 2:
            raise BadInputError(f"{number} is odd")
        return number

    values = call_on_tasks(pipeline_options([], 1), str(tmp_path / "work"), refuse, [2, 4, 5, 7])
    assert [next(values), next(values)] == [2, 4]
    with pytest.raises(BadInputError, match="5 is odd"):
        next(values)


def test_a_handed_value_is_its_path(tmp_path):
    value = Handed(str(tmp_path / "value"), list(range(10_000)))
    data = pickle.dumps(value)
    assert len(data) < 1000
    assert pickle.loads(data).value == value.value


def test_lines_of_attempts_that_failed_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "LINES", 3)
    folder = str(tmp_path / "lines")
    io.write_bytes(io.join(folder, "0123.jsonl"), b"of an attempt that failed\n")
    files = write_tasks(str(tmp_path / "tasks"), range(100))
    with make_pipeline(pipeline_options([], 1)) as pipeline:
        _ = pipeline | ReadTasks(files) | beam.Map(str) | WriteLines(folder)
    assert sorted(map(int, read_lines(folder))) == list(range(100))
    assert len(os.listdir(folder)) > 100 / 3


def test_nothing_to_write_is_no_line(tmp_path):
    files = write_tasks(str(tmp_path / "tasks"), [])
    with make_pipeline(pipeline_options([], 1)) as pipeline:
        _ = pipeline | ReadTasks(files) | beam.Map(str) | WriteLines(str(tmp_path / "lines"))
    assert list(read_lines(str(tmp_path / "lines"))) == []


@pytest.mark.parametrize("name", ["torch", "cptsel", "Python"])
def test_a_worker_of_another_version_says_so(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tasks, "versions", lambda: site.versions() | {name: "0.0.1"})  # the driver's
    here = re.escape(site.versions()[name])
    with pytest.raises(UsageError, match=rf"^a worker on \S+ has {name} {here} \(the command: 0\.0\.1\); install "):
        call_on_tasks(pipeline_options([], 1), str(tmp_path / "work"), double, [1])


@pytest.mark.parametrize("lost", ["tasks.pickle", "parts.json", "function.pickle"])
def test_a_worker_that_does_not_see_what_the_command_wrote_says_so(tmp_path, monkeypatch, lost):
    make = tasks.make_pipeline

    def lose(options):
        os.remove(tmp_path / "work" / lost)
        return make(options)

    monkeypatch.setattr(tasks, "make_pipeline", lose)
    with pytest.raises(UsageError, match=rf"work/{lost}: a worker on \S+ does not see this file, .* same path$"):
        list(call_on_tasks(pipeline_options([], 1), str(tmp_path / "work"), double, [1]))


def test_results_that_only_the_worker_sees_are_missed(tmp_path):
    values = call_on_tasks(pipeline_options([], 1), str(tmp_path / "work"), double, [1, 2])
    os.remove(tmp_path / "work" / "results" / "000001.jsonl")
    with pytest.raises(UsageError, match="a worker wrote this file and the command does not see it"):
        list(values)


def test_a_worker_without_cptsel_loads_the_first_step_and_says_in_its_call_what_is_missing(tmp_path):
    """Beam's Spark runner waits for ever for a worker that can't load a step."""
    step = tasks._anywhere(tasks._ListPartsDoFn(TaskFiles(str(tmp_path), 1), {}))
    (tmp_path / "step").write_bytes(pickler.dumps(step))
    script = (
        "import sys; from apache_beam.internal import pickler\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'cptsel': raise ModuleNotFoundError(\"No module named 'cptsel'\")\n"
        "sys.meta_path.insert(0, Without())\n"
        "step = pickler.loads(open(sys.argv[1], 'rb').read())\n"
        "try: list(step(None))\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "step"], capture_output=True, text=True)
    assert done.stdout == "No module named 'cptsel'\n", done.stderr
