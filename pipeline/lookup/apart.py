"""How far the picks of one selection lie from those of another in an embedding run, by the sketch.

Vectors of the other selection are held a part at a time, and for each part those of the first go by, one embedding
file after the other. Memory is that of a part and a file, and some 200 bytes a pick. The work is the product of the
numbers of picks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline.artifacts.embeddings import read_directions, read_rows
from cptsel.pipeline.artifacts.manifest import Manifest
from cptsel.pipeline.artifacts.run import EmbeddingRuns, RunShard
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.kernels.neighbours import nearest
from cptsel.pipeline.lookup.reading import Row
from cptsel.pipeline.summary import counted

HELD = 256 << 20  # bytes of vectors of the other selection that are held at a time

Picks = Mapping[str, np.ndarray]
"""sample_ids of a selection by the path of their corpus file, (m,) texts each, ascending."""


@dataclass(frozen=True)
class Far:
    """A pick that is far from those of another selection.

    Attributes:
        path: of its corpus file, below the root.
        sample_id: its name.
        distance: to the nearest pick of the other: of the unit sketches, between 0 and 2.
        nearest: sample_id of that.
    """

    path: str
    sample_id: str
    distance: float
    nearest: str


@dataclass(frozen=True)
class Apart:
    """What lies between a selection and another.

    Attributes:
        picks: of the selection.
        alone: those of them that the other has not.
        mean: over all picks of the selection, the distance to the nearest pick of the other; 0 for common ones.
        farthest: picks of the largest distance, by falling distance, equal ones by sample_id.
    """

    picks: int
    alone: int
    mean: float
    farthest: list[Far]


def picks_of(manifest: Manifest, phase: int) -> Picks:
    """The samples that a manifest chose for a phase.

    Raises:
        VerificationError: a file of the manifest is not what its checksum says.
    """
    found = {}
    for path, names in manifest.files_by_path().items():
        table = pa.concat_tables([manifest.table(name, ["sample_id", "phase"]) for name in names])
        ids = table.filter(pc.equal(table["phase"], phase))["sample_id"]
        if len(ids):
            found[path] = np.sort(ids.to_numpy().astype(str))
    return found


def apart(runs: EmbeddingRuns, mine: Picks, others: Picks, most: int, held: int = HELD) -> Apart:
    """How far each pick of one selection is from the nearest of another.

    Args:
        runs: that hold all of them.
        mine: picks of the one.
        others: picks of the other, of which there is one at least.
        most: how many of the farthest are told.
        held: bytes of vectors of the other that are held at a time.

    Raises:
        BadInputError: a file of the run is not the one that was embedded.
        UsageError: a pick is no sample of the runs.
    """
    alone = {path: np.setdiff1d(ids, others.get(path, ids[:0])) for path, ids in mine.items()}
    distance = {path: np.full(len(ids), np.inf) for path, ids in alone.items()}
    beside = {path: np.zeros(len(ids), "U32") for path, ids in alone.items()}
    for names, vectors in _parts(runs, others, held):
        for path, ids, rows in _vectors(runs, alone):
            links = nearest(rows, vectors, 1)
            place = np.searchsorted(alone[path], ids)
            nearer = links.distances[:, 0] < distance[path][place]
            distance[path][place[nearer]] = links.distances[nearer, 0]
            beside[path][place[nearer]] = names[links.indices[nearer, 0]]
    picks = sum(map(len, mine.values()))
    far = [
        Far(path, str(alone[path][at]), float(distance[path][at]), str(beside[path][at]))
        for path in sorted(alone)
        for at in np.lexsort((alone[path], -distance[path]))[:most].tolist()
    ]
    far.sort(key=lambda one: (-one.distance, one.sample_id))
    total = sum(float(distance[path].sum()) for path in sorted(distance))
    return Apart(picks, sum(map(len, alone.values())), total / picks if picks else 0.0, far[:most])


def rows_of_far(manifest: Manifest, phase: int, far: list[Far]) -> dict[str, Row]:
    """Rows of SAMPLES of picks of a manifest, by sample_id; the samples of their corpus files are read."""
    found: dict[str, Row] = {}
    files = manifest.files_by_path()
    for path in sorted({one.path for one in far}):
        names = [one.sample_id for one in far if one.path == path]
        for file in files[path]:
            table = manifest.table(file)
            wanted = pc.and_(pc.equal(table["phase"], phase), pc.is_in(table["sample_id"], pa.array(names)))
            found |= {row["sample_id"]: row for row in table.filter(wanted).to_pylist()}
    return found


def _parts(runs: EmbeddingRuns, picks: Picks, held: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Names and vectors of picks, so many at a time."""
    names: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    for _, ids, rows in _vectors(runs, picks):
        names.append(ids)
        parts.append(rows)
        if sum(part.nbytes for part in parts) >= held:
            yield np.concatenate(names), np.concatenate(parts)
            names, parts = [], []
    if parts:
        yield np.concatenate(names), np.concatenate(parts)


def _vectors(runs: EmbeddingRuns, picks: Picks) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Path, names (m,) and vectors (m, k) float32 of length 1 of the picks in one embedding file after the other."""
    shards: dict[str, list[RunShard]] = {}
    for shard in runs.shards:
        shards.setdefault(shard.source["path"], []).append(shard)
    for path in sorted(picks):
        seen = 0
        for one in (part for shard in shards.get(path, []) for part in _file_by_file(shard)):
            ids = read_rows(one, runs.schema, ["sample_id"])["sample_id"].to_numpy().astype(str)
            mine = np.flatnonzero(np.isin(ids, picks[path]))
            if len(mine):
                seen += len(mine)
                (directions,) = read_directions(one, runs.schema)
                rows = directions[mine]
                length = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
                yield path, ids[mine], (rows / length).astype(np.float32)
        if seen != len(picks[path]):
            raise UsageError(
                f"--run {' '.join(runs.directories)}: lacks {counted(len(picks[path]) - seen, 'sample')} that "
                f"the selection has from {path}; name the runs of the selection whose runs hold the picks of all"
            )


def _file_by_file(shard: RunShard) -> Iterator[RunShard]:
    """A shard, one embedding file at a time."""
    for path, count, footer in zip(shard.files, shard.rows, shard.footers, strict=True):
        yield replace(shard, files=(path,), rows=(count,), footers=(footer,))
