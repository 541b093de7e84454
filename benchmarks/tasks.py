"""Size of a pipeline's graph and memory of the driver, by the number of tasks: neither is to grow with it.

    python benchmarks/tasks.py --tasks 1000 100000 1000000

Trivial tasks go through a step (``Steps.each``) on the local runner with two worker processes, each count in a
process of its own. Beside it stands what the same tasks take inside a pipeline, by ``beam.Create``
(up to ``--most-created``).
"""

from __future__ import annotations

import os
import sys

if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:  # where select.py would hide the standard module
    sys.path.remove(here)

import argparse
import json
import resource
import subprocess
import tempfile
import time
from typing import Any

import apache_beam as beam

from cptsel.pipeline.engine.steps import Steps


def task(number: int) -> dict[str, Any]:
    """A task as large as those of ``select``: names, and a few numbers."""
    path = f"/corpus/language=de/source=web/part-{number:08d}.parquet"
    return {"number": number, "path": path, "counts": dict.fromkeys(("rows", "tokens", "bytes"), number)}


def double(task: dict[str, Any]) -> dict[str, int]:
    """The work of a task."""
    return {"number": task["number"], "double": 2 * task["number"]}


def through_steps(count: int) -> dict[str, Any]:
    """Run ``count`` tasks in this process and its workers."""
    sizes: list[int] = []
    run = beam.Pipeline.run

    def measured(pipeline: beam.Pipeline, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(pipeline.to_runner_api().SerializeToString()))
        return run(pipeline, *args, **kwargs)

    beam.Pipeline.run = measured
    before, began = _peak(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cptsel-") as work:
        values = Steps(work, (), 2, None).each("double", double, map(task, range(count)), count)
        done = 0
        for number, value in enumerate(values):
            if value != {"number": number, "double": 2 * number}:
                raise AssertionError(f"task {number} gave {value}")
            done += 1
    if done != count:
        raise AssertionError(f"{done} of {count} tasks gave a value")
    return {"graph": sizes[0], "seconds": time.monotonic() - began, "memory": _peak(), "before": before}


def created(count: int) -> int:
    """Bytes of the graph with all tasks in it."""
    pipeline = beam.Pipeline()
    _ = pipeline | beam.Create(list(enumerate(map(task, range(count))))) | beam.Map(print)
    return len(pipeline.to_runner_api().SerializeToString())


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Run each count in a child, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--most-created", type=int, default=100_000, help="tasks inside a pipeline, to compare")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(through_steps(options.child)))
        return
    print(
        "| tasks | bytes of the graph | with the tasks inside | peak memory of the driver, MB | before, MB | seconds |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for count in options.tasks:
        command = [sys.executable, __file__, "--child", str(count)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)
        inside = f"{created(count):,}" if count <= options.most_created else ""
        memory, before = (found[name] / 1e6 for name in ("memory", "before"))
        print(f"| {count:,} | {found['graph']:,} | {inside} | {memory:.0f} | {before:.0f} | {found['seconds']:.0f} |")


if __name__ == "__main__":
    main()
