"""One unit's part of ``fisher``: weighted squared gradients of its samples, added up in one file; and the whole's."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.tensors import TensorFile, tensors_sha256, write_tensors
from cptsel.pipeline.chosen.model import loaded
from cptsel.pipeline.chosen.units import ReadWindows, Unit
from cptsel.pipeline.errors import BadInputError, UsageError
from cptsel.pipeline.model.fisher import SquaredGradients
from cptsel.pipeline.model.frozen import ModelSpec

STEP = "fisher"
PARTIALS = "partials"
_KEY = "cptsel"


@dataclass(frozen=True)
class WriteSquares:
    """Unit → {unit, samples, tokens, mass, nats}; a partial sum that an earlier call finished is not made again.

    ``mass`` is Σ weight · n_tokens and ``nats`` Σ weight · loss over its samples. ``seed`` is that of the labels, None
    for the text's own. ``plan`` names what decides the bytes.
    """

    spec: ModelSpec
    read: ReadWindows
    prefix: tuple[int, ...]
    seed: int | None
    out: str
    work: str
    plan: str

    def __call__(self, unit: Unit) -> dict[str, Any]:
        path = partial_path(self.out, unit)
        found = _stored(path, self.plan, unit)
        if found is None:
            found = self._write(path, unit)
        io.write_scratch(io.join(self.work, STEP, unit.name), b"")
        return found

    def _write(self, path: str, unit: Unit) -> dict[str, Any]:
        prefix = np.asarray(self.prefix, dtype=np.int32)
        with loaded(self.spec) as model:
            squares = SquaredGradients(model)
            windows = self.read(unit, model.path)
            losses = [
                squares.add(window.sample_id, np.concatenate([prefix, window.ids]), window.weight, self.seed)
                for window in windows
            ]
            sums = {name: total.cpu().numpy() for name, total in squares.sums.items()}
        for name, total in sums.items():
            if not np.isfinite(total).all():
                raise BadInputError(
                    f"{unit.uri}: rows {unit.first} to {unit.last}: squared gradients of {name} are not finite; use "
                    "--dtype float32, or another --model"
                )
        found = {
            "unit": unit.name,
            "samples": len(windows),
            "tokens": sum(window.n_tokens for window in windows),
            "mass": math.fsum(window.weight * window.n_tokens for window in windows),
            "nats": math.fsum(window.weight * loss for window, loss in zip(windows, losses, strict=True)),
        }
        stamp = {"plan": self.plan, "found": found, "sha256": tensors_sha256(sums.values())}
        shapes = {name: total.shape for name, total in sums.items()}
        write_tensors(path, shapes, sums.values(), {_KEY: json.dumps(stamp, sort_keys=True)})
        return found


def partial_path(out: str, unit: Unit) -> str:
    """Where the sums of a unit lie."""
    return io.join(out, PARTIALS, f"{unit.name}.safetensors")


def _stored(path: str, plan: str, unit: Unit) -> dict[str, Any] | None:
    """What an earlier call found of a unit, where its file is whole and of the same plan."""
    if not io.exists(path):
        return None
    try:
        file = TensorFile(path)
    except UsageError:  # damaged: the unit is made again
        return None
    stamp = json.loads(file.metadata.get(_KEY, "{}"))
    if stamp.get("plan") != plan or stamp["found"]["unit"] != unit.name or stamp["sha256"] != file.sha256():
        return None
    return dict(stamp["found"])


def write_mean(path: str, partials: Sequence[str], mass: float) -> dict[str, Any]:
    """Add up partial sums, in their order and in float64, and divide by the mass.

    Args:
        path: of the file, float32 by names of parameters.
        partials: paths; at least one.
        mass: Σ weight · n_tokens over all of them.

    Returns:
        ``parameters``, the numbers that were written, and ``trace``, their sum.

    Raises:
        UsageError: a file can't be read.
    """
    files = [TensorFile(partial) for partial in partials]
    shapes = files[0].shapes
    traces: list[float] = []

    def mean(name: str) -> np.ndarray:
        total = np.zeros(shapes[name])
        for file in files:
            total += file.read(name)
        found = (total / mass).astype(np.float32)
        traces.append(float(found.sum(dtype=np.float64)))
        return found

    write_tensors(path, shapes, (mean(name) for name in shapes), {"format": "pt"})
    return {
        "parameters": sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes.values()),
        "trace": math.fsum(traces),
    }
