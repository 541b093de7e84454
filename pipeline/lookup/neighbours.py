"""What lies near a chosen sample in its embedding run, and what it stands for: by the sketch, within its cell.

A cell is read file by file, twice: once for the vectors of its chosen samples, once to hold every sample against them.
Memory is that of one embedding file and of these vectors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline.artifacts.embeddings import read_directions, read_rows
from cptsel.pipeline.artifacts.manifest import ALL, NO_GROUP, Manifest
from cptsel.pipeline.artifacts.run import EmbeddingRuns, RunShard
from cptsel.pipeline.artifacts.texts import WINDOW_COLUMNS
from cptsel.pipeline.errors import VerificationError
from cptsel.pipeline.kernels.neighbours import equal_rows
from cptsel.pipeline.lookup.reading import Reader, Row

_CHOSEN = 512  # vectors that samples are held against at a time: most samples are out after the first


@dataclass(frozen=True)
class Neighbour:
    """A sample of the run beside a chosen one.

    Attributes:
        row: sample_id, shard_id, pool_prob and what ``texts.windows`` needs.
        cosine: of the angle between the sketches of the two gradients.
        chosen: whether it was chosen in the phase of the other.
    """

    row: Row
    cosine: float
    chosen: bool


@dataclass
class Surroundings:
    """What lies around a chosen sample in its cell: the samples of its group in its shard.

    Attributes:
        nearest: other samples of the cell, nearest first.
        represented: those of them that were not chosen, and to which no other chosen sample of the cell is nearer.
        samples: how many such there are, the chosen one with them.
        tokens: Σ n_tokens / pool_prob over these: tokens of the corpus.
    """

    nearest: list[Neighbour] = field(default_factory=list)
    represented: list[Neighbour] = field(default_factory=list)
    samples: int = 0
    tokens: float = 0.0


def surroundings(reader: Reader, runs: EmbeddingRuns, targets: Sequence[Row], most: int) -> list[Surroundings]:
    """What lies around chosen samples of one shard.

    Args:
        reader: of the manifest that chose them.
        runs: of ``artifacts.origin.open_origin``.
        targets: rows of SAMPLES of one shard.
        most: neighbours of each kind.

    Returns:
        One for each target. Equal cosines go by sample_id.

    Raises:
        UsageError: a file of the run can't be read.
        BadInputError: a file is not the one that was embedded.
        VerificationError: a target is no sample of the run, or the manifest's file is not the one that was written.
    """
    shard = runs.shards[targets[0]["shard_id"]]
    cells = _cells(reader, runs, shard, targets)
    around = [Surroundings() for _ in targets]
    for rows, directions in _files(shard, runs, reader.manifest, [*WINDOW_COLUMNS, "n_tokens", "pool_prob"]):
        ids, groups = _names(rows["sample_id"]), _names(rows["group"])
        mass = rows["n_tokens"].to_numpy() / rows["pool_prob"].to_numpy()
        unit = _unit(directions)
        for cell in cells:
            mine = np.flatnonzero(groups == cell.group)
            chosen = np.isin(ids[mine], cell.ids)
            owner = np.full(len(mine), -1, np.int64)
            owner[~chosen] = _owners(unit[mine[~chosen]], cell)
            for index, place in cell.targets.items():
                cosine = unit[mine] @ cell.vectors[place]
                found, itself = around[index], ids[mine] == targets[index]["sample_id"]
                owned = owner == place
                found.samples += int((owned | itself).sum())
                found.tokens += float(mass[mine][owned | itself].sum())
                for kept, wanted in ((found.nearest, ~itself), (found.represented, owned)):
                    _merge(kept, rows, mine[wanted], cosine[wanted], chosen[wanted], most)
    return around


@dataclass(frozen=True, eq=False)
class _Cell:
    """What was chosen from a cell in one phase.

    Attributes:
        group: of its samples.
        ids: (m,) sample_ids, ascending.
        vectors: (m, k) float32, of length 1.
        targets: of the targets that are among them the numbers, and places in ``ids``.
        distinct: (u,) int64 places, ascending: of equal vectors the first.
    """

    group: str
    ids: np.ndarray
    vectors: np.ndarray
    targets: dict[int, int]
    distinct: np.ndarray


def _cells(reader: Reader, runs: EmbeddingRuns, shard: RunShard, targets: Sequence[Row]) -> list[_Cell]:
    """The cells of the targets, one for each group and phase."""
    table = reader.samples(targets[0]["shard_id"])
    wanted = {}
    for group, phase in sorted({(row["group"], row["phase"]) for row in targets}):
        mine = table.filter(pc.and_(pc.equal(table["group"].cast(pa.string()), group), pc.equal(table["phase"], phase)))
        wanted[group, phase] = np.sort(_names(mine["sample_id"]))
    every = np.unique(np.concatenate(list(wanted.values())))
    vectors = np.zeros((len(every), runs.schema.field("direction").type.list_size), np.float32)
    seen = np.zeros(len(every), bool)
    for rows, directions in _files(shard, runs, reader.manifest, []):
        ids = _names(rows["sample_id"])
        mine = np.flatnonzero(np.isin(ids, every))
        place = np.searchsorted(every, ids[mine])
        vectors[place], seen[place] = _unit(directions[mine]), True
    if not seen.all():
        name = every[int(np.argmin(seen))]
        raise VerificationError(
            f"{reader.manifest.directory}: sample {name} of shard {shard.source['path']} is none of the run's; run "
            "cptsel verify --run"
        )
    cells = []
    for key, ids in wanted.items():
        numbers = [index for index, row in enumerate(targets) if (row["group"], row["phase"]) == key]
        at = np.searchsorted(ids, [targets[index]["sample_id"] for index in numbers]).tolist()
        mine = vectors[np.searchsorted(every, ids)]
        cells.append(_Cell(key[0], ids, mine, dict(zip(numbers, at, strict=True)), equal_rows(mine).first))
    return cells


def _files(
    shard: RunShard, runs: EmbeddingRuns, manifest: Manifest, columns: list[str]
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Rows with their ``group``, and directions (n, k) float32, of one embedding file after the other."""
    group_by = manifest.header["selection"]["options"].get("group_by")
    names = ["sample_id", "shard_id", *columns, *([group_by] if group_by else [])]
    for path, count, footer in zip(shard.files, shard.rows, shard.footers, strict=True):
        one = replace(shard, files=(path,), rows=(count,), footers=(footer,))
        rows = read_rows(one, runs.schema, names)
        if group_by:
            groups = rows[group_by].fill_null(NO_GROUP)
            rows = rows.drop_columns([group_by])
        else:
            groups = pa.array([ALL] * count, pa.string())
        (directions,) = read_directions(one, runs.schema)
        yield rows.append_column("group", groups), directions


def _names(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) texts, which compare faster than objects."""
    return column.to_numpy().astype(str)


def _unit(directions: np.ndarray) -> np.ndarray:
    """Rows of (n, k) at length 1: as stored they are so up to rounding."""
    return directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _owners(rows: np.ndarray, cell: _Cell) -> np.ndarray:
    """(n,) int64: which target of a cell no other chosen sample is nearer than, for each of (n, k) unit rows; else -1.

    Targets are numbered by their places in the cell.
    """
    targets = np.intersect1d(list(cell.targets.values()), cell.distinct)
    owner = np.full(len(rows), -1, np.int64)
    if not len(targets) or not len(rows):
        return owner
    cosine = rows @ cell.vectors[targets].T
    best = np.argmax(cosine, axis=1)
    nearest, left = cosine[np.arange(len(rows)), best], np.arange(len(rows))
    others = np.setdiff1d(cell.distinct, targets)
    for start in range(0, len(others), _CHOSEN):
        cosine = rows[left] @ cell.vectors[others[start : start + _CHOSEN]].T
        left = left[cosine.max(axis=1) <= nearest[left]]
    owner[left] = targets[best[left]]
    return owner


def _merge(
    kept: list[Neighbour], rows: pa.Table, at: np.ndarray, cosine: np.ndarray, chosen: np.ndarray, most: int
) -> None:
    """Put rows at places ``at`` (n,) among the nearest that are kept; ``cosine`` and ``chosen`` are theirs."""
    ids = _names(rows["sample_id"].take(pa.array(at)))
    first = np.lexsort((ids, -cosine))[:most]
    for row, near, picked in zip(
        rows.take(pa.array(at[first])).to_pylist(), cosine[first].tolist(), chosen[first].tolist(), strict=True
    ):
        kept.append(Neighbour(row, min(1.0, max(-1.0, near)), picked))
    kept.sort(key=lambda neighbour: (-neighbour.cosine, neighbour.row["sample_id"]))
    del kept[most:]
