"""All samples: there is nothing to choose."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.selection.families.base import Chooser, Picks
from cptsel.pipeline.selection.methods import Everything
from cptsel.pipeline.selection.plan import Plan
from cptsel.pipeline.selection.reading.cells import Cell, CellReader
from cptsel.pipeline.selection.scopes.shard import select_in_shards


class EverythingChooser(Chooser[Everything]):
    """Takes all that is free."""

    def pick(self, cell: Cell, budget: int) -> Picks:
        index = np.flatnonzero(cell.free)
        return Picks(index, cell.mass[index], np.ones(len(index)))

    def choose_globally(
        self, shards: Sequence[RunShard], plan: Plan, reader: CellReader, steps: Steps, partitions: int | None
    ) -> list[dict[str, Any]]:
        return select_in_shards(shards, plan, reader, self, steps)
