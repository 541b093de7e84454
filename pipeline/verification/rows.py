"""Narrow columns of all rows of a manifest, for what can be checked only after the last file.

They are on disk, file after file in the order in which they are added, and each file's as they stand in it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.spill.columns import PART_ROWS, Column
from cptsel.pipeline.spill.sorting import ID, packed, records, sorted_parts
from cptsel.pipeline.verification.curricula import score_of

_ROW = np.dtype(
    [
        *ID,
        ("phase", np.int16),
        ("cell", np.int32),  # a phase and group of a file: its place in ``Rows.cells``
        ("n_tokens", np.int64),
        ("weight", np.float64),
        ("repeat", np.int64),
        ("rank", np.int64),  # order_rank
        ("place", np.int64),  # in the phase, in order of the corpus
        ("score", np.float64),  # of the phase's curriculum, NaN where it can't be told
    ]
)
_KEYS = np.dtype([("key", np.uint64), ("low", np.uint64), ("phase", np.int64), ("index", np.int64)])


class Rows:
    """Rows of all files.

    Attributes:
        files: of each its name, its number of rows, and whether each sample_id in it is one.
        cells: phase and group of each cell.
        samples: by phase.

    Args:
        curricula: of the manifest.
        part_rows: that are held at once.
    """

    def __init__(self, curricula: dict[int, str], part_rows: int = PART_ROWS) -> None:
        self.files: list[tuple[str, int, bool]] = []
        self.cells: list[tuple[int, str]] = []
        self.samples: Counter[int] = Counter()
        self.part_rows = part_rows
        self._curricula = curricula
        self._table = Column(_ROW)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def named(self) -> bool:
        """Whether every sample_id is one."""
        return all(named for _, _, named in self.files)

    def add(self, name: str, table: pa.Table) -> dict[tuple[int, str], np.ndarray]:
        """Add a file, of which columns have their types; returns the rows (m,) bool of each phase and group."""
        phase = table["phase"].to_numpy().astype(np.int64)
        group = pc.cast(table["group"], pa.string()).to_numpy(zero_copy_only=False)
        ids = packed_ids(table["sample_id"].to_pylist())
        rows = records(_ROW, np.zeros(len(phase), ID) if ids is None else ids, phase=phase, score=np.nan)
        for column in ("n_tokens", "weight", "repeat"):
            rows[column] = table[column].to_numpy()
        rows["rank"] = table["order_rank"].to_numpy()
        order = np.lexsort([table["window"].to_numpy(), table["row_index"].to_numpy()])
        for number in np.unique(phase).tolist():
            mine = order[phase[order] == number]
            rows["place"][mine] = np.arange(self.samples[number], self.samples[number] + len(mine))
            self.samples[number] += len(mine)
            score = score_of(table, self._curricula.get(number, ""))
            if score is not None:
                rows["score"][mine] = score[mine]
        cells = {}
        for cell in sorted(set(zip(phase.tolist(), group.tolist(), strict=True))):
            cells[cell] = (phase == cell[0]) & (group == cell[1])
            rows["cell"][cells[cell]] = len(self.cells)
            self.cells.append(cell)
        self.files.append((name, len(rows), ids is not None))
        self._table.append(rows)
        return cells

    def by_file(self) -> Iterator[tuple[str, slice, np.ndarray]]:
        """Name, place among all rows and rows of every file."""
        start = 0
        for name, count, _ in self.files:
            yield name, slice(start, start + count), self._table.read(start, start + count)
            start += count

    def of_phase(self, phase: int) -> Iterator[np.ndarray]:
        """Rows of a phase, in order, a part at a time."""
        for part in self._table.parts(self.part_rows):
            yield part[part["phase"] == phase]

    def column(self, phase: int, names: Sequence[str]) -> Column:
        """Fields of the rows of a phase, as records, or as values where it is one."""
        dtype = np.dtype([(name, _ROW[name]) for name in names]) if len(names) > 1 else _ROW[names[0]]
        found = Column(dtype)
        for part in self.of_phase(phase):
            found.append(np.rec.fromarrays([part[name] for name in names], dtype) if len(names) > 1 else part[names[0]])
        return found

    def again(self, keys: Sequence[str]) -> Column:
        """(n,) bool, whether an earlier row of the same phase has the same values of one or two integer fields."""
        table = Column(_KEYS)
        for part in self._table.parts(self.part_rows):
            index = np.arange(len(table), len(table) + len(part))
            fields = [part[name].astype(np.uint64) for name in keys]
            low = fields[1] if len(fields) > 1 else np.zeros(len(part), np.uint64)
            table.append(np.rec.fromarrays([fields[0], low, part["phase"], index], _KEYS))
        found = Column.zeros(np.bool_, len(self))
        for part in sorted_parts(table, ["key", "low", "phase"], self.part_rows):
            same = np.ones(len(part) - 1, bool)
            for name in ("key", "low", "phase"):
                same &= part[name][1:] == part[name][:-1]
            found.put(part["index"][1:][same], np.ones(int(same.sum()), bool))
        return found


def packed_ids(sample_ids: Sequence[str]) -> np.ndarray | None:
    """(n,) records of ID; None where one is not 32 hexadecimal digits."""
    if any(len(key) != 32 for key in sample_ids) or set("".join(sample_ids)) - set("0123456789abcdef"):
        return None
    return packed(sample_ids)


def check_unique_ids(rows: Rows, problems: Problems) -> None:
    """No sample is there twice in a phase."""
    again, start = rows.again(["high", "low"]), 0
    for name, count, named in rows.files:
        here = again.read(start, start + count)
        start += count
        if named:  # else other checks tell
            problems.add_rows(name, here, "an earlier row of the same phase has its sample_id")
