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
from cptsel.pipeline.artifacts.run import EmbeddingRuns
from cptsel.pipeline.errors import VerificationError
from cptsel.pipeline.kernels.neighbours import nearest
from cptsel.pipeline.lookup.reading import Row, narrow

HELD = 256 << 20  # bytes of vectors of the other selection that are held at a time

Picks = Mapping[int, np.ndarray]
"""sample_ids of a selection by shard, (m,) texts each, ascending."""


@dataclass(frozen=True)
class Far:
    """A pick that is far from those of another selection.

    Attributes:
        shard_id: of its shard.
        sample_id: its name.
        distance: to the nearest pick of the other: of the unit sketches, between 0 and 2.
        nearest: sample_id of that.
    """

    shard_id: int
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
        UsageError: a file is missing or damaged.
    """
    found = {}
    for shard_id in manifest.sample_files():
        table = narrow(manifest, shard_id, ["sample_id", "phase"])
        ids = table.filter(pc.equal(table["phase"], phase))["sample_id"]
        if len(ids):
            found[shard_id] = np.sort(ids.to_numpy().astype(str))
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
        VerificationError: a pick is no sample of the run.
    """
    alone = {shard: np.setdiff1d(ids, others.get(shard, ids[:0])) for shard, ids in mine.items()}
    distance = {shard: np.full(len(ids), np.inf) for shard, ids in alone.items()}
    beside = {shard: np.zeros(len(ids), "U32") for shard, ids in alone.items()}
    for names, vectors in _parts(runs, others, held):
        for shard, ids, rows in _vectors(runs, alone):
            links = nearest(rows, vectors, 1)
            place = np.searchsorted(alone[shard], ids)
            nearer = links.distances[:, 0] < distance[shard][place]
            distance[shard][place[nearer]] = links.distances[nearer, 0]
            beside[shard][place[nearer]] = names[links.indices[nearer, 0]]
    picks = sum(map(len, mine.values()))
    far = [
        Far(shard, str(alone[shard][at]), float(distance[shard][at]), str(beside[shard][at]))
        for shard in sorted(alone)
        for at in np.lexsort((alone[shard], -distance[shard]))[:most].tolist()
    ]
    far.sort(key=lambda one: (-one.distance, one.sample_id))
    total = sum(float(distance[shard].sum()) for shard in sorted(distance))
    return Apart(picks, sum(map(len, alone.values())), total / picks if picks else 0.0, far[:most])


def rows_of_far(manifest: Manifest, phase: int, far: list[Far]) -> dict[str, Row]:
    """Rows of SAMPLES of picks of a manifest, by sample_id; the files of their shards are read."""
    found: dict[str, Row] = {}
    for shard_id in sorted({one.shard_id for one in far}):
        table = manifest.table(manifest.sample_files()[shard_id])
        names = [one.sample_id for one in far if one.shard_id == shard_id]
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


def _vectors(runs: EmbeddingRuns, picks: Picks) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Shard, names (m,) and vectors (m, k) float32 of length 1 of the picks in one embedding file after the other."""
    for shard_id in sorted(picks):
        shard, seen = runs.shards[shard_id], 0
        for path, count, footer in zip(shard.files, shard.rows, shard.footers, strict=True):
            one = replace(shard, files=(path,), rows=(count,), footers=(footer,))
            ids = read_rows(one, runs.schema, ["sample_id"])["sample_id"].to_numpy().astype(str)
            mine = np.flatnonzero(np.isin(ids, picks[shard_id]))
            if len(mine):
                seen += len(mine)
                (directions,) = read_directions(one, runs.schema)
                rows = directions[mine]
                length = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
                yield shard_id, ids[mine], (rows / length).astype(np.float32)
        if seen != len(picks[shard_id]):
            raise VerificationError(
                f"{runs.directories[0]}: {len(picks[shard_id]) - seen:,} samples that were chosen from shard "
                f"{shard.source['path']} are none of the run's; name the run of both selections"
            )
