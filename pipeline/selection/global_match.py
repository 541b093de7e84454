"""``--scope global`` for matching: oversampled parts, then a second pass over their picks against the summed target.

The picks of a part stand for its target with their weights u, so the merge matches Σ of the parts' targets, which is
the exact global one, by the union of their picks. A group's candidates, about 4 m vectors, must fit into one worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.kernels.matching.mass import tokens_of_atoms, with_mass
from cptsel.pipeline.selection.families import Picks, Settings, picks_table, played
from cptsel.pipeline.selection.global_cover import places
from cptsel.pipeline.selection.picks import STEP, write_picks
from cptsel.pipeline.selection.plan import Plan, Share
from cptsel.pipeline.selection.reading.cells import CellReader, read_cells
from cptsel.pipeline.selection.reading.tables import matrix
from cptsel.pipeline.selection.scopes.parts import TARGETS, Part, part_path, pick_candidates, read_candidates

MATCHED = "matched"


@dataclass(frozen=True)
class MatchTask:
    """A group and the parts that have some of it."""

    number: int
    group: Share
    parts: tuple[int, ...]


@dataclass(frozen=True)
class MatchGroup:
    """MatchTask → the report of the merge; what is chosen goes to ``<work>/matched/<group>.parquet`` by sample_id."""

    settings: Settings
    work: str

    def __call__(self, task: MatchTask) -> dict[str, Any]:
        rows = read_candidates(self.work, task.number, task.parts)
        targets = [io.read_parquet(part_path(self.work, TARGETS, task.number, part)) for part in task.parts]
        goals = (
            np.sum([table[name][0].values.to_numpy() for table in targets], axis=0) for name in ("target0", "target1")
        )
        n_tokens = rows["n_tokens"].to_numpy().astype(np.int64)
        tokens = tokens_of_atoms(n_tokens, even=self.settings.even)
        (g, target), (validation, validation_target) = (
            with_mass(x, n_tokens, goal, task.group.choice_mass, even=self.settings.even)
            for x, goal in zip((matrix(rows), matrix(rows, "validation")), goals, strict=True)
        )
        result = self.settings.entry.load_merge()(
            g,
            rows["u"].to_numpy() * n_tokens / tokens,
            n_tokens,
            task.group.budget,
            self.settings.unit,
            validation=validation,
            target=target,
            validation_target=validation_target,
            counts=tokens,
            **self.settings.match_options(),
            **played(rows["free"].to_numpy(), rows["rounds"].to_numpy(), self.settings, covers=False),
        )
        order = np.argsort(result.picks)
        chosen = {
            "sample_id": rows["sample_id"].take(pa.array(result.picks[order])),
            "raw": result.u[order] * tokens[result.picks[order]],
            "score": result.gains[order].astype(np.float32),
        }
        io.write_parquet(_matched_path(self.work, task.number), pa.table(chosen))
        return {
            "group": task.group.group,
            "mass": task.group.choice_mass,
            **result.report,
            "candidates": rows.num_rows,
        }


@dataclass(frozen=True)
class CollectPicks:
    """RunShard → None; those of its samples that were chosen are its picks."""

    reader: CellReader
    work: str
    groups: tuple[str, ...]

    def __call__(self, shard: RunShard) -> None:
        tables = []
        for cell in read_cells(shard, self.reader):
            path = _matched_path(self.work, self.groups.index(cell.group))
            merged = io.read_parquet(path) if io.exists(path) else None
            if merged is None or not merged.num_rows:
                continue
            own = places(cell.names, merged["sample_id"].to_pylist())
            index = np.flatnonzero(own >= 0)
            raw, score = (merged[name].to_numpy()[own[index]] for name in ("raw", "score"))
            tables.append(picks_table(cell, Picks(index, raw, np.ones(len(index)), score)))
        write_picks(self.work, shard.shard_id, tables)


def match_globally(
    shards: Sequence[RunShard],
    parts: Sequence[Part],
    plan: Plan,
    reader: CellReader,
    settings: Settings,
    steps: Steps,
) -> list[dict[str, Any]]:
    """Write the picks of every shard and return one report a group."""
    candidates = pick_candidates(parts, plan, reader, settings, steps)
    tasks = [
        MatchTask(number, group, candidates[group.group])
        for number, group in enumerate(plan.groups)
        if group.group in candidates
    ]
    reports = steps.run(MATCHED, MatchGroup(settings, steps.work), tasks)
    there = plan.by_shard()
    names = tuple(group.group for group in plan.groups)
    steps.run(STEP, CollectPicks(reader, steps.work, names), [shard for shard in shards if shard.shard_id in there])
    return reports


def _matched_path(work: str, group: int) -> str:
    return io.join(work, MATCHED, f"{group:05d}.parquet")
