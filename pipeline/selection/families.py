"""The families of methods at work: from a cell and a budget to picks.

A scope needs to know no more of a method than its family: *draws* differ in their scores, *coverage* and *matching* in
their kernels, and ``all`` takes what there is. ``methods.py`` lists them.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.matching.mass import tokens_of_atoms, whole_tolerance, with_mass
from cptsel.pipeline.kernels.sampling.draws import PriorityDraw, priority_sample
from cptsel.pipeline.selection.methods import METHODS, Family, Method
from cptsel.pipeline.selection.picks import PICKS
from cptsel.pipeline.selection.plan import Unit
from cptsel.pipeline.selection.reading.cells import Cell, Vectors
from cptsel.schemas.arrow import LOCATOR_COLUMNS

_LEAST = 1e-100  # a discount of many rounds is never 0: what was played often may still be picked
VECTORS: dict[Family, Vectors | None] = {"draw": None, "all": None, "cover": "cover", "match": "match"}


@dataclass(frozen=True)
class Settings:
    """Options of methods, the same for every cell.

    Attributes:
        method: a key of METHODS.
        unit: of budgets.
        seed: of every draw.
        phase: draws of different phases are independent.
        purpose: draws of different purposes in one phase are independent.
        discount: what a round takes off scores and gains, 1 for nothing.
        cover_history: whether coverage starts from what was replayed before.
        importance: ``norm`` or ``loss``.
        neighbours: of coverage.
        refine: medoid passes of coverage.
        ridge: of matching, None for the one that validates best; so are parts.
        parts: see there.
        tolerance: residual at which matching stops.
    """

    method: str
    unit: Unit
    seed: int
    phase: int = 0
    purpose: str = "draw"
    discount: float = 1.0
    cover_history: bool = False
    importance: str = "norm"
    neighbours: int = 128
    refine: int = 2
    ridge: float | None = None
    parts: int | None = None
    tolerance: float = 0.0

    @property
    def entry(self) -> Method:
        """The method's line in the table."""
        return METHODS[self.method]

    @property
    def vectors(self) -> Vectors | None:
        """The vectors that the method wants."""
        return VECTORS[self.entry.family]

    def cover_options(self) -> dict[str, Any]:
        """Arguments of kernels of coverage."""
        return {"neighbours": self.neighbours, "refine": self.refine, "seed": self.seed} | self.entry.settings

    @property
    def even(self) -> bool:
        """Whether matching gives equal weights."""
        return bool(self.entry.settings.get("uniform_weights"))

    def match_options(self) -> dict[str, Any]:
        """Arguments of kernels of matching."""
        tolerance = whole_tolerance(self.tolerance, even=self.even)
        options = {"ridge": self.ridge, "parts": self.parts, "tolerance": tolerance, "seed": self.seed}
        return options | self.entry.settings


@dataclass(frozen=True, eq=False)
class Picks:
    """What a method chose from one cell, by its atoms: samples, or batches of them."""

    index: np.ndarray  # (m,) int64
    raw: np.ndarray  # (m,) float64 above 0
    inclusion_prob: np.ndarray  # (m,) float64; 1 where the choice is not random
    score: np.ndarray | None = None  # (m,) why it was chosen, in the method's own terms
    report: dict[str, Any] = field(default_factory=dict)


def pick(cell: Cell, budget: int, settings: Settings) -> Picks:
    """Choose from one cell, which was read with ``settings.vectors``."""
    return {"draw": _draw, "cover": _cover, "match": _match, "all": _all}[settings.entry.family](cell, budget, settings)


def _all(cell: Cell, budget: int, settings: Settings) -> Picks:
    index = np.flatnonzero(cell.free)
    return Picks(index, cell.mass[index], np.ones(len(index)))


def draw_keys(cell: Cell, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Scores s, 0 for what may not be picked, and uniform variates u of the atoms, by their names alone."""
    scores = settings.entry.load()(cell.columns, settings.importance)
    # A rise of the loss counts as more of the sample, as does the pool's rate, which is in the scores already.
    scores = (
        scores
        * (cell.mass / cell.columns["corpus_mass"])
        * np.maximum(settings.discount**cell.rounds, _LEAST)
        * cell.free
    )
    return scores, uniform(settings.seed, f"{settings.purpose} {settings.phase}", cell.names)


def _draw(cell: Cell, budget: int, settings: Settings) -> Picks:
    """raw = mass / π."""
    scores, u = draw_keys(cell, settings)
    draw = priority_sample(scores, u, budget, _draw_costs(cell, settings))
    return drawn(cell, draw)


def drawn(cell: Cell, draw: PriorityDraw) -> Picks:
    """Picks of a draw from a cell."""
    return Picks(draw.picked, cell.mass[draw.picked] / draw.inclusion_prob, draw.inclusion_prob)


def _draw_costs(cell: Cell, settings: Settings) -> np.ndarray | None:
    costs = cell.costs(settings.unit)
    return None if settings.unit == "samples" and cell.order is None else costs


def _cover(cell: Cell, budget: int, settings: Settings) -> Picks:
    """raw is the mass of a pick's cluster."""
    result = settings.entry.load()(
        cell.vectors,
        cell.mass,
        *budget_of(cell, budget, settings),
        **settings.cover_options(),
        **played(cell.free, cell.rounds, settings),
    )
    return Picks(result.picks, result.cluster_mass, np.ones(len(result.picks)), result.gains, result.report)


def _match(cell: Cell, budget: int, settings: Settings) -> Picks:
    """raw: the tokens that a pick stands for, which the matching knows of (``kernels.matching.mass``)."""
    assert cell.vectors is not None
    assert cell.validation is not None
    counted = np.flatnonzero(cell.mass > 0)  # what the new domain leaves alone is neither matched nor picked
    costs, budget, kind = budget_of(cell, budget, settings)
    n_tokens, mass = cell.columns["n_tokens"][counted], float(cell.mass.sum())
    tokens = tokens_of_atoms(n_tokens, even=settings.even)
    # The targets are those of the samples: batches whose samples came into the pool at different rates don't add up.
    (g, target), (validation, validation_target) = (
        with_mass(x[counted], n_tokens, goal, mass, even=settings.even)
        for x, goal in zip((cell.vectors, cell.validation), cell.targets, strict=True)
    )
    result = settings.entry.load()(
        g,
        cell.mass[counted] / tokens,
        costs[counted],
        budget,
        kind,
        validation=validation,
        target=target,
        validation_target=validation_target,
        counts=tokens,
        **settings.match_options(),
        **played(cell.free[counted], cell.rounds[counted], settings, covers=False),
    )
    picks = counted[result.picks]
    return Picks(picks, result.u * tokens[result.picks], np.ones(len(picks)), result.gains, result.report)


def budget_of(cell: Cell, budget: int, settings: Settings) -> tuple[np.ndarray, int, str]:
    """Costs, budget and its kind as kernels take them: a batch costs its samples as a sample does its tokens."""
    if settings.unit == "samples" and cell.order is not None:
        return cell.samples, budget, "tokens"
    return cell.n_tokens, budget, settings.unit


def played(free: np.ndarray, rounds: np.ndarray, settings: Settings, covers: bool = True) -> dict[str, np.ndarray]:
    """What history and other choices leave of some atoms, as kernels take it; nothing where they leave all."""
    options = {}
    if not free.all():
        options["candidates"] = free
    if settings.discount < 1 and rounds.any():
        options["gain_factor"] = np.maximum(settings.discount**rounds, _LEAST)
    if covers and settings.cover_history and rounds.any():
        options["covered"] = np.flatnonzero(rounds > 0)
    return options


def picks_table(cell: Cell, picks: Picks) -> pa.Table:
    """Rows of PICKS for what was chosen from a cell; the mass of a batch is shared by its samples' tokens."""
    place, row = cell.members(picks.index)
    chosen = cell.rows.select([*LOCATOR_COLUMNS, "group", "grad_norm", "loss_sum"]).take(row)
    tokens = chosen.column("n_tokens").to_numpy().astype(np.float64)
    raw = picks.raw[place]
    if cell.order is not None:
        raw = raw * (tokens / cell.columns["n_tokens"][picks.index][place])
    score = pa.nulls(len(row), pa.float32())
    if picks.score is not None:
        score = pa.array(picks.score.astype(np.float32)[place])
    columns = [*chosen.columns, pa.array(raw), pa.array(picks.inclusion_prob[place]), score]
    return pa.Table.from_arrays(columns, schema=PICKS)
