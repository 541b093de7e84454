"""Matching: the sum of all gradients by a weighted few.

A global choice is oversampled parts, then a second pass over their picks against the summed target. The picks of a part
stand for its target with the mass they got there, so the merge matches Σ of the parts' targets, which is the exact
global one, by the union of their picks. A group's candidates, about 4 m vectors, must fit into one worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.kernels.matching.gradmatch import MatchResult
from cptsel.pipeline.kernels.matching.mass import tokens_of_atoms, whole_tolerance, with_mass
from cptsel.pipeline.selection.families.base import MergingChooser, Offer, Picks, deal_out, offer, picks_table
from cptsel.pipeline.selection.methods import Match
from cptsel.pipeline.selection.picks import STEP, write_picks
from cptsel.pipeline.selection.plan import Plan
from cptsel.pipeline.selection.reading.cells import Cell, CellReader, read_cells
from cptsel.pipeline.selection.reading.tables import matrix, places, vectors_table
from cptsel.pipeline.selection.scopes.merged import MergedGroups
from cptsel.pipeline.selection.scopes.parts import (
    CANDIDATES,
    MergeTask,
    part_path,
    pick_candidates,
    plan_parts,
    read_candidates,
)

TARGETS, MATCHED, CROSSING = "targets", "matched", "crossing"


@dataclass(frozen=True)
class MatchGroup:
    """MergeTask → what the merge offers.

    What it chose goes to ``<work>/matched/<group>.parquet``, by sample_id, and with the crossing sample, where there is
    one, to ``<work>/crossing``.
    """

    chooser: "MatchChooser"
    work: str

    def __call__(self, task: MergeTask) -> Offer:
        rows = read_candidates(self.work, task)
        atoms = self._atoms(task, rows)
        samples, budget = rows["samples"].to_numpy(), task.group.budget
        costs, kind = self.chooser.costs_of(atoms.n_tokens, samples)
        picks = self.chooser.solve(atoms, costs, budget, kind)
        self._write(task, rows, picks, crossing=False)
        if picks.crossing is not None:
            self._write(task, rows, picks.crossing, crossing=True)
        return offer(
            picks,
            atoms.n_tokens if self.chooser.settings.unit == "tokens" else samples,
            budget,
            group=task.group.group,
            mass=task.group.choice_mass,
            candidates=rows.num_rows,
        )

    def _atoms(self, task: MergeTask, rows: pa.Table) -> "Atoms":
        """What the parts have picked, and the sums of their targets."""
        parts = [io.read_parquet(part_path(self.work, TARGETS, task.number, part)) for part in task.parts]
        targets = [[table[name][0].values.to_numpy() for table in parts] for name in ("target0", "target1")]
        return Atoms(
            vectors=(matrix(rows), matrix(rows, "validation")),
            targets=tuple(np.sum(of_parts, axis=0) for of_parts in targets),
            n_tokens=rows["n_tokens"].to_numpy().astype(np.int64),
            mass=rows["mass"].to_numpy(),
            whole_mass=task.group.choice_mass,
            free=rows["free"].to_numpy(),
            rounds=rows["rounds"].to_numpy(),
        )

    def _write(self, task: MergeTask, rows: pa.Table, picks: Picks, crossing: bool) -> None:
        order = np.argsort(picks.index)
        assert picks.score is not None
        columns = {
            "sample_id": rows["sample_id"].take(pa.array(picks.index[order])),
            "found_mass": picks.found_mass[order],
            "score": picks.score[order].astype(np.float32),
        }
        io.write_scratch(_matched_path(self.work, task.number, crossing), pa.table(columns))


@dataclass(frozen=True)
class CollectPicks:
    """RunShard → None; those of its samples that were chosen are its picks."""

    reader: CellReader
    work: str
    groups: dict[str, int]  # their numbers
    crossing: frozenset[str]  # groups that take their crossing sample
    merged: MergedGroups = field(default_factory=MergedGroups)

    def __call__(self, shard: RunShard) -> None:
        tables = []
        for cell in read_cells(shard, self.reader):
            path = _matched_path(self.work, self.groups[cell.group], cell.group in self.crossing)
            merged = self.merged.read(path)
            if merged is None:
                continue
            own = places(cell.names, merged.names)
            index = np.flatnonzero(own >= 0)
            found_mass, score = (merged.rows[name].to_numpy()[own[index]] for name in ("found_mass", "score"))
            tables.append(picks_table(cell, Picks(index, found_mass, np.ones(len(index)), score)))
        write_picks(self.work, shard.shard_id, tables)


@dataclass(frozen=True, eq=False)
class Atoms:
    """What is matched, of a cell or of the candidates of a merge.

    Attributes:
        vectors: gradient sums in both sketches, (n, k) and (n, k') float32.
        targets: what they are to match, (k,) and (k',) float64.
        n_tokens: (n,) int64.
        mass: (n,) float64 above 0, what each stands for before the choice.
        whole_mass: Σ a n of all that the targets are sums of.
        free: (n,) bool, whether an atom may be picked.
        rounds: (n,) int64, in how many earlier rounds it was played.
    """

    vectors: tuple[np.ndarray, np.ndarray]
    targets: tuple[np.ndarray, ...]
    n_tokens: np.ndarray
    mass: np.ndarray
    whole_mass: float
    free: np.ndarray
    rounds: np.ndarray


class MatchChooser(MergingChooser[Match]):
    """Matches by non-negative OMP."""

    vectors = "match"
    validates = True

    def solve(self, atoms: Atoms, costs: np.ndarray, budget: int, kind: str) -> Picks:
        """Match them; the matching knows of the mass that the picks are to stand for (``kernels.matching.mass``)."""
        settings, even = self.settings, self.method.even
        tokens = tokens_of_atoms(atoms.n_tokens, even=even)
        (g, target), (validation, validation_target) = (
            with_mass(x, atoms.n_tokens, goal, atoms.whole_mass, even=even)
            for x, goal in zip(atoms.vectors, atoms.targets, strict=True)
        )
        result = self.method.kernel(
            g,
            atoms.mass / tokens,
            costs,
            budget,
            kind,
            validation=validation,
            target=target,
            validation_target=validation_target,
            counts=tokens,
            ridge=settings.ridge,
            parts=settings.parts,
            tolerance=whole_tolerance(settings.tolerance, even=even),
            uniform_weights=even,
            seed=settings.seed,
            **self.left_by_history(atoms.free, atoms.rounds),
        )
        return _picks(result, tokens)

    def pick(self, cell: Cell, budget: int) -> Picks:
        assert cell.vectors is not None
        assert cell.validation is not None
        counted = np.flatnonzero(cell.mass > 0)  # what the new domain leaves alone is neither matched nor picked
        costs, kind = self.costs_of(cell.n_tokens, cell.samples)
        atoms = Atoms(
            vectors=(cell.vectors[counted], cell.validation[counted]),
            # The targets are those of the samples: batches whose samples came into the pool at different rates don't
            # add up.
            targets=cell.targets,
            n_tokens=cell.columns["n_tokens"][counted],
            mass=cell.mass[counted],
            whole_mass=float(cell.mass.sum()),
            free=cell.free[counted],
            rounds=cell.rounds[counted],
        )
        picks = self.solve(atoms, costs[counted], budget, kind)
        crossing = picks.crossing and replace(picks.crossing, index=counted[picks.crossing.index])
        return replace(picks, index=counted[picks.index], crossing=crossing)

    def hand_on(self, cell: Cell, picks: Picks, client_rate: float) -> dict[str, pa.Table]:
        """Candidates of a part with the mass that they stand for there, and what the part adds to the target."""
        chosen, mass = np.zeros(len(cell), dtype=bool), np.zeros(len(cell))
        chosen[picks.index] = True
        mass[picks.index] = picks.found_mass
        targets = {f"target{i}": [target] for i, target in enumerate(cell.targets)}
        return {CANDIDATES: vectors_table(cell, chosen, mass=mass), TARGETS: pa.table(targets)}

    def choose_globally(
        self, shards: Sequence[RunShard], plan: Plan, reader: CellReader, steps: Steps, partitions: int | None
    ) -> list[dict[str, Any]]:
        parts = plan_parts(self, shards, plan, reader, steps, partitions)
        tasks = pick_candidates(self, parts, plan, reader, steps)
        dealt, reports = deal_out(steps.run(MATCHED, MatchGroup(self, steps.work), tasks))
        crossing = frozenset(task.group.group for task, takes in zip(tasks, dealt, strict=True) if takes)
        there = plan.by_shard()
        collect = CollectPicks(reader, steps.work, plan.numbers, crossing)
        steps.run(STEP, collect, [shard for shard in shards if shard.shard_id in there])
        return reports


def _picks(result: MatchResult, tokens: np.ndarray) -> Picks:
    """Picks, each with the tokens that it stands for."""
    return Picks(
        result.picks,
        result.u * tokens[result.picks],
        np.ones(len(result.picks)),
        result.gains,
        result.report,
        None if result.crossing is None else _picks(result.crossing, tokens),
    )


def _matched_path(work: str, group: int, crossing: bool) -> str:
    return io.join(work, CROSSING if crossing else MATCHED, f"{group:05d}.parquet")
