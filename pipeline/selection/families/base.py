"""What all families share: the options of a choice, what a choice from a cell is, and what a family must be able to do.

A scope needs to know no more of a method than this.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypedDict, TypeVar

import numpy as np
import pyarrow as pa

from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.kernels.budget import deal
from cptsel.pipeline.selection.methods import Method
from cptsel.pipeline.selection.picks import PICKS
from cptsel.pipeline.selection.plan import Plan, Unit
from cptsel.pipeline.selection.reading.cells import Cell, CellReader, Vectors
from cptsel.pipeline.selection.tuning import DEFAULT, Tuning
from cptsel.schemas.arrow import LOCATOR_COLUMNS

_LEAST = 1e-100  # a discount of many rounds is never 0: what was played often may still be picked

AnyMethod = TypeVar("AnyMethod", bound=Method)


@dataclass(frozen=True)
class Settings:
    """Options of methods, the same for every cell.

    Attributes:
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
        tuning: sizes.
    """

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
    tuning: Tuning = DEFAULT

    def discounts(self, rounds: np.ndarray) -> np.ndarray:
        """What scores and gains are multiplied by after so many rounds, (n,) float64 above 0."""
        return np.maximum(self.discount**rounds, _LEAST)


@dataclass(frozen=True, eq=False)
class Picks:
    """What a method chose from one cell, by its atoms: samples, or batches of them."""

    index: np.ndarray  # (m,) int64
    found_mass: np.ndarray  # (m,) float64 above 0
    inclusion_prob: np.ndarray  # (m,) float64; 1 where the choice is not random
    score: np.ndarray | None = None  # (m,) why it was chosen, in the method's own terms
    report: dict[str, Any] = field(default_factory=dict)
    crossing: "Picks | None" = None  # with about one sample more, where budget is left and nothing fits it


class Offer(TypedDict):
    """What a choice says to the driver, which deals out what choices leave of their budgets (``budget.deal``)."""

    report: dict[str, Any]  # of the method
    left: int  # what is left of the budget
    cost: int  # what ``Picks.crossing`` takes more; 0 where there is none
    crossing: dict[str, Any] | None  # its report


def offer(picks: Picks, costs: np.ndarray, budget: int, **report: Any) -> Offer:
    """What there is to say of picks from atoms of costs (n,) under a budget; ``report`` is added to the method's."""
    used, more = int(costs[picks.index].sum()), picks.crossing
    return {
        "report": picks.report | report,
        "left": budget - used,
        "cost": 0 if more is None else int(costs[more.index].sum()) - used,
        "crossing": None if more is None else more.report | report,
    }


def deal_out(offers: Sequence[Offer]) -> tuple[list[bool], list[dict[str, Any]]]:
    """Which choices take their crossing sample, and the report of each as it is then."""
    dealt = deal([found["left"] for found in offers], [found["cost"] for found in offers])
    reports = [
        found["report"] if found["crossing"] is None or not takes else found["crossing"]
        for found, takes in zip(offers, dealt, strict=True)
    ]
    return dealt, reports


@dataclass(frozen=True)
class Chooser(ABC, Generic[AnyMethod]):
    """A method at work, with its options.

    Attributes:
        method: what is chosen by.
        settings: its options.
        vectors: the vectors that cells are read with.
        validates: whether their second sketch is wanted too.
    """

    method: AnyMethod
    settings: Settings

    vectors: ClassVar[Vectors | None] = None
    validates: ClassVar[bool] = False

    @abstractmethod
    def pick(self, cell: Cell, budget: int) -> Picks:
        """Choose from one cell, which was read with ``vectors``."""

    @abstractmethod
    def choose_globally(
        self, shards: Sequence[RunShard], plan: Plan, reader: CellReader, steps: Steps, partitions: int | None
    ) -> list[dict[str, Any]]:
        """Choose from whole groups: write the picks of every shard and return one report a group.

        Args:
            shards: of the runs.
            plan: budgets.
            reader: how cells are read.
            steps: where steps run; picks go under its work directory.
            partitions: clusters of each group that samples are routed to first, 0 for as many as its size asks for;
                None to take the shards as parts.
        """

    def costs_of(self, n_tokens: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, str]:
        """Costs of atoms and the kind of budget as kernels take them.

        A batch costs its samples as a sample does its tokens.
        """
        if self.settings.unit == "samples" and (samples > 1).any():
            return samples, "tokens"
        return n_tokens, self.settings.unit

    def left_by_history(self, free: np.ndarray, rounds: np.ndarray) -> dict[str, np.ndarray]:
        """What history and other choices leave of some atoms, as kernels take it; nothing where they leave all."""
        options = {}
        if not free.all():
            options["candidates"] = free
        if self.settings.discount < 1 and rounds.any():
            options["gain_factor"] = self.settings.discounts(rounds)
        return options


class MergingChooser(Chooser[AnyMethod]):
    """A family whose global choice is a second one among what parts picked (see ``scopes/parts.py``)."""

    @abstractmethod
    def hand_on(self, cell: Cell, picks: Picks, client_rate: float) -> dict[str, pa.Table]:
        """What a merge needs of a part's cell: a table a step, ``parts.CANDIDATES`` among them.

        Args:
            cell: the part's cell.
            picks: what was picked from it.
            client_rate: share of its samples that score the merge.
        """


AnyChooser = Chooser[Any]


def picks_table(cell: Cell, picks: Picks) -> pa.Table:
    """Rows of PICKS for what was chosen from a cell; the mass of a batch is shared by its samples' tokens."""
    place, row = cell.members(picks.index)
    chosen = cell.rows.select([*LOCATOR_COLUMNS, "group", "grad_norm", "loss_sum"]).take(row)
    tokens = chosen.column("n_tokens").to_numpy().astype(np.float64)
    found_mass = picks.found_mass[place]
    if cell.order is not None:
        found_mass = found_mass * (tokens / cell.columns["n_tokens"][picks.index][place])
    score = pa.nulls(len(row), pa.float32())
    if picks.score is not None:
        score = pa.array(picks.score.astype(np.float32)[place])
    columns = [*chosen.columns, pa.array(found_mass), pa.array(picks.inclusion_prob[place]), score]
    return pa.Table.from_arrays(columns, schema=PICKS)
