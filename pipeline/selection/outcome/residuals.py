"""How well a selection matches the gradient of the whole: residuals on the sketch it could see and on one it never saw.

For every group of a phase, target t = Σ_{i∈g} a_i g_i and matched s = Σ_{j∈S∩g} weight_j g_j, with a_i = mass_i / n_i.
The residual is ‖Σ_g (T_g / mass_g) t_g − Σ_g s_g‖ / ‖Σ_g (T_g / mass_g) t_g‖. Beside it stands what a random choice of
as many samples of each group would have, in expectation, and the target's length against its sampling noise: a model at
the end of its pre-training is nearly stationary on its own corpus, and a target that is noise is not worth matching.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import samples_name
from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.selection.outcome.weighted import GroupResult
from cptsel.pipeline.selection.plan import Plan
from cptsel.pipeline.selection.reading.cells import CellReader, read_cells
from cptsel.schemas.headers import Residuals

STEP = "residuals"
SKETCHES = ("selection", "validation")


@dataclass(frozen=True)
class SumShard:
    """RunShard → None; sums over its samples and picks go to ``<work>/residuals/<shard>.parquet``, one row a group.

    Attributes:
        reader: how cells are read.
        out: the manifest, whose samples files are written already.
        work: directory for the sums.
        phase: the phase that is looked at.
    """

    reader: CellReader
    out: str
    work: str
    phase: int

    def __call__(self, shard: RunShard) -> None:
        path = io.join(self.out, samples_name(shard.shard_id))
        weights: dict[str, float] = {}
        if io.exists(path):
            chosen = io.read_parquet(path, ["sample_id", "weight", "phase"])
            chosen = chosen.filter(pc.equal(chosen["phase"], self.phase))
            weights = dict(zip(chosen["sample_id"].to_pylist(), chosen["weight"].to_pylist(), strict=True))
        rows = []
        for cell in read_cells(shard, self.reader, "match", validation=True):
            assert cell.vectors is not None
            assert cell.validation is not None
            weight = np.array([weights.get(name, 0.0) for name in cell.names])
            picked = np.flatnonzero(weight)
            lengths = [np.einsum("ij,ij->i", x, x, dtype=np.float64) for x in (cell.vectors, cell.validation)]
            row: dict[str, Any] = {"group": cell.group, "samples": len(cell), "mass": float(cell.mass.sum())}
            for sketch, x, target, squares in zip(
                SKETCHES, (cell.vectors, cell.validation), cell.targets, lengths, strict=True
            ):
                row[f"{sketch}_target"] = target
                row[f"{sketch}_matched"] = weight[picked] @ x[picked].astype(np.float64)
                row[f"{sketch}_squares"] = float(cell.weights**2 @ squares)
            rows.append(row)
        io.write_scratch(io.join(self.work, STEP, f"{shard.shard_id:06d}.parquet"), pa.Table.from_pylist(rows))


def measure(
    shards: Sequence[RunShard],
    plan: Plan,
    results: Sequence[GroupResult],
    reader: CellReader,
    out: str,
    phase: int,
    steps: Steps,
) -> dict[str | None, Residuals]:
    """Residuals of one phase, by group and, under None, of the whole.

    Keys of each: ``residual`` and ``validation_residual`` of the final weights, ``random_residual`` and
    ``random_validation_residual``, ``method_residual`` and ``method_validation_residual`` of the weights that the
    method itself found, ``target_norm`` and ``target_noise`` (lengths, under the selection sketch).
    """
    there = plan.by_shard()
    shards = [shard for shard in shards if shard.shard_id in there]
    steps.run(STEP, SumShard(reader, out, steps.work, phase), shards)
    sums: dict[str, dict[str, Any]] = {}
    files = [io.join(steps.work, STEP, f"{shard.shard_id:06d}.parquet") for shard in shards]
    for table in io.read_tables(files):  # in this order, so that rounding is always the same
        for row in table.to_pylist():
            mine = sums.setdefault(row["group"], dict.fromkeys(row, 0.0))
            for name, value in row.items():
                if name != "group":
                    mine[name] = mine[name] + (np.asarray(value) if isinstance(value, list) else value)
    picks = {result.group: result for result in results}
    targets = {group.group: group.target_mass for group in plan.groups if group.group in picks}
    parts = {name: _Part(sums[name], picks[name], target) for name, target in targets.items()}
    found: dict[str | None, Residuals] = {name: _figures([part]) for name, part in parts.items()}
    found[None] = _figures(list(parts.values()))
    return found


class _Part:
    """What one group brings to the residual of the whole."""

    def __init__(self, sums: dict[str, Any], result: GroupResult, target_mass: float) -> None:
        scale = target_mass / sums["mass"] if sums["mass"] > 0 else 0.0
        n, m = sums["samples"], result.samples
        self.target = {sketch: scale * sums[f"{sketch}_target"] for sketch in SKETCHES}
        self.matched = {sketch: sums[f"{sketch}_matched"] for sketch in SKETCHES}
        # weight_j is scaled to T_g; what the method found is found_mass_j / n_j, in the scale of the group's mass.
        self.own = {sketch: self.matched[sketch] * (result.found_mass / sums["mass"]) for sketch in SKETCHES}
        # Σ a² ‖g − mean‖², the squared sampling noise of a sum of n rows.
        self.noise = {
            sketch: scale**2
            * max(0.0, sums[f"{sketch}_squares"] - float(sums[f"{sketch}_target"] @ sums[f"{sketch}_target"]) / n)
            * (n / max(1, n - 1))
            for sketch in SKETCHES
        }
        # m of n drawn at random, each for n/m: the variance of their sum is n/m − 1 times that.
        self.random = {sketch: noise * (n / m - 1) for sketch, noise in self.noise.items()}


def _figures(parts: Sequence[_Part]) -> Residuals:
    figures: dict[str, float | None] = {}
    for sketch, prefix in zip(SKETCHES, ("", "validation_"), strict=True):
        target = np.sum([part.target[sketch] for part in parts], axis=0)
        length = float(np.linalg.norm(target))
        if sketch == "selection":
            noise = math.sqrt(math.fsum(part.noise[sketch] for part in parts))
            figures |= {"target_norm": length, "target_noise": noise}
        for name, matched in (("", "matched"), ("method_", "own")):
            gap = float(np.linalg.norm(target - np.sum([getattr(part, matched)[sketch] for part in parts], axis=0)))
            figures[f"{name}{prefix}residual"] = gap / length if length > 0 else None
        random = math.sqrt(math.fsum(part.random[sketch] for part in parts))
        figures[f"random_{prefix}residual"] = random / length if length > 0 else None
    return cast(Residuals, figures)
