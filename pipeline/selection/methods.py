"""The methods of ``select``, in one place. A new one is a kernel and a line in METHODS.

Two families so far, and a scope needs to know no more than which it has before it: *draws* differ in the scores they
draw by; *coverage* methods choose by vectors, and every sample's mass goes to the pick that stands for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.craig import CraigResult, craig
from cptsel.pipeline.kernels.draws import priority_sample, uniform_scores
from cptsel.pipeline.kernels.merge import merge
from cptsel.pipeline.selection.cells import Cell
from cptsel.pipeline.selection.plan import Unit
from cptsel.schemas.arrow import LOCATOR_COLUMNS, LOCATOR_FIELDS

PICKS = pa.schema(
    [
        *LOCATOR_FIELDS,
        pa.field("group", pa.string(), nullable=False),
        pa.field("grad_norm", pa.float32(), nullable=False),
        pa.field("raw", pa.float64(), nullable=False),  # the mass the method found, in any scale within the group
        pa.field("inclusion_prob", pa.float64(), nullable=False),
        pa.field("score", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Settings:
    """Options of methods, the same for every cell."""

    unit: Unit
    seed: int
    neighbours: int
    refine: int
    phase: int = 0


@dataclass(frozen=True, eq=False)
class Picks:
    """What a method chose from one cell."""

    index: np.ndarray  # (m,) int64
    raw: np.ndarray  # (m,) float64 above 0
    inclusion_prob: np.ndarray  # (m,) float64; 1 where the choice is not random
    score: np.ndarray | None  # (m,) why it was chosen, in the method's own terms
    report: dict[str, Any]


@dataclass(frozen=True)
class Draw:
    """A random choice with known inclusion probabilities: priority sampling by the scores."""

    scores: Callable[[Cell], np.ndarray]
    needs_vectors = False

    def variates(self, cell: Cell, settings: Settings) -> np.ndarray:
        """One uniform variate a sample, by its name alone."""
        return uniform(settings.seed, f"draw {settings.phase}", cell.sample_ids)

    def pick(self, cell: Cell, budget: int, settings: Settings) -> Picks:
        """Draw from one cell; raw = mass / π."""
        n_tokens = cell.n_tokens if settings.unit == "tokens" else None
        draw = priority_sample(self.scores(cell), self.variates(cell, settings), budget, n_tokens)
        raw = cell.mass[draw.picked] / draw.inclusion_prob
        return Picks(draw.picked, raw, draw.inclusion_prob, None, {})


@dataclass(frozen=True)
class Coverage:
    """A choice of samples that the others lie near to, by facility location; raw is the mass of a pick's cluster."""

    kernel: Callable[..., CraigResult]  # of one cell
    merge_kernel: Callable[..., CraigResult]  # of the candidates of several
    needs_vectors = True

    def pick(self, cell: Cell, budget: int, settings: Settings) -> Picks:
        """Choose from one cell."""
        assert cell.vectors is not None
        result = self.kernel(
            cell.vectors,
            cell.mass,
            cell.n_tokens,
            budget,
            settings.unit,
            neighbours=settings.neighbours,
            refine=settings.refine,
            seed=settings.seed,
        )
        return Picks(result.picks, result.cluster_mass, np.ones(len(result.picks)), result.gains, {**result.report})


METHODS: dict[str, Draw | Coverage] = {
    "uniform": Draw(lambda cell: uniform_scores(cell.column("pool_prob"))),
    "craig": Coverage(craig, merge),
}


def picks_table(cell: Cell, picks: Picks) -> pa.Table:
    """Rows of PICKS for what was chosen from a cell."""
    chosen = cell.rows.select([*LOCATOR_COLUMNS, "group", "grad_norm"]).take(picks.index)
    count = len(picks.index)
    score = pa.nulls(count, pa.float32()) if picks.score is None else pa.array(picks.score.astype(np.float32))
    columns = [*chosen.columns, pa.array(picks.raw), pa.array(picks.inclusion_prob), score]
    return pa.Table.from_arrays(columns, schema=PICKS)
