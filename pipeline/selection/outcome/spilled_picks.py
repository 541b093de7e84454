"""The picks of a phase by their narrow columns, on disk: a selection may have more of them than memory takes.

Rows are in corpus order: shard after shard, each by row and window.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.selection.picks import list_picks
from cptsel.pipeline.spill.columns import Column
from cptsel.pipeline.spill.sorting import ID, packed

_PICK = np.dtype([("cell", np.int32), ("n_tokens", np.int32), ("found_mass", np.float64)])


@dataclass(frozen=True)
class Scored:
    """What a curriculum needs of every pick.

    Attributes:
        column: of picks, whose values order them.
        per_token: whether they are divided by tokens.
        purpose: of a uniform variate a pick (see hashing.uniform), drawn with ``seed``; None needs none.
        seed: of the variates.
    """

    column: str
    per_token: bool
    purpose: str | None
    seed: int


@dataclass(frozen=True, eq=False)
class SpilledPicks:
    """Columns of m picks.

    Attributes:
        offsets: for each shard with picks, where its rows begin and end.
        group: (c,) int64, by cell the place of its group in the plan.
        picks: (m,) records of ``cell`` int32 (a group in a shard), ``n_tokens`` int32 and ``found_mass`` float64.
        ids: (m,) records of ID, or empty.
        score: (m,) float64, or empty.
        u: (m,) float64 uniform variates, or empty.
    """

    offsets: dict[int, tuple[int, int]]
    group: np.ndarray
    picks: Column
    ids: Column
    score: Column
    u: Column

    def __len__(self) -> int:
        return len(self.picks)


def spill_picks(work: str, groups: Sequence[str], *, ids: bool = False, scored: Scored | None = None) -> SpilledPicks:
    """Put narrow columns of the picks under ``work`` on this machine's disk.

    Args:
        work: directory of the phase.
        groups: names of the plan's groups.
        ids: whether names of samples are needed.
        scored: what a curriculum needs, which includes names.
    """
    found = SpilledPicks({}, np.empty(0, np.int64), Column(_PICK), Column(ID), Column(np.float64), Column(np.float64))
    columns = ["group", "n_tokens", "found_mass"]
    columns += ["sample_id"] if ids or scored else []
    columns += [scored.column] if scored else []
    names, of_cells, cells = pa.array(groups, pa.string()), [found.group], 0
    files = list_picks(work)
    for shard, table in zip(files, io.read_tables(list(files.values()), columns), strict=True):
        n_tokens = table["n_tokens"].to_numpy()
        of_cell, cell = np.unique(pc.index_in(table["group"], names).to_numpy(), return_inverse=True)
        rows = np.empty(table.num_rows, _PICK)
        rows["cell"], rows["n_tokens"], rows["found_mass"] = cells + cell, n_tokens, table["found_mass"].to_numpy()
        found.offsets[shard] = (len(found), len(found) + len(rows))
        found.picks.append(rows)
        of_cells.append(of_cell.astype(np.int64))
        cells += len(of_cell)
        if ids or scored:
            found.ids.append(packed(table["sample_id"].to_pylist()))
        if scored:
            score = table[scored.column].to_numpy().astype(np.float64)
            found.score.append(score / n_tokens if scored.per_token else score)
            if scored.purpose is not None:
                found.u.append(uniform(scored.seed, scored.purpose, table["sample_id"].to_pylist()))
    return replace(found, group=np.concatenate(of_cells))
