"""What an export writes: the files of every shard's visits, in the order of play by their names."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import Manifest, source_uri
from cptsel.pipeline.artifacts.visits import PhaseVisits
from cptsel.pipeline.errors import BadInputError


@dataclass(frozen=True)
class Visit:
    """A file of the export, relative to its directory, and what it plays of its shard.

    Where a curriculum spreads the samples of a pass over shards, ``name`` is the folder of that pass: every
    ``shard.PART_RANKS`` ranks are a file there, and the shard writes its pieces of them.
    """

    name: str
    phase: int
    number: int  # of the pass: 1, 2, ...
    spread: bool = False


@dataclass(frozen=True)
class ExportTask:
    """A shard: its row of shards.parquet, where it lies now, its samples file and that file's hash, and its visits."""

    shard: dict[str, Any]
    uri: str
    samples: str
    sha256: str
    visits: tuple[Visit, ...]


def plan_export(manifest: Manifest, played: dict[int, PhaseVisits], root: str | None, suffix: str) -> list[ExportTask]:
    """One task for each shard that is visited, with the files its visits become, of names that end in ``suffix``."""
    visits: dict[int, list[Visit]] = {}
    plays = _scheduled(manifest, suffix) if manifest.schedule_files() else _unscheduled(manifest, played, suffix)
    for shard_id, visit in plays:
        visits.setdefault(shard_id, []).append(visit)
    files = manifest.sample_files()
    return [
        ExportTask(
            shard=shard,
            uri=source_uri(shard, root),
            samples=manifest.path(files[shard["shard_id"]]),
            sha256=manifest.header["files"][files[shard["shard_id"]]]["sha256"],
            visits=tuple(visits[shard["shard_id"]]),
        )
        for shard in manifest.shards().to_pylist()
        if shard["shard_id"] in visits
    ]


def _scheduled(manifest: Manifest, suffix: str) -> Iterator[tuple[int, Visit]]:
    """Visits of all epochs and ranks; a file's place among its rank's is in its name."""
    for (phase, epoch), name in manifest.schedule_files().items():
        for row in manifest.table(name).to_pylist():
            place = f"{_folder(manifest, phase)}/epoch-{epoch:03d}/rank-{row['rank']:05d}/{row['position']:09d}"
            yield row["shard_id"], _visit(place, phase, row["shard_id"], row["pass"], suffix)


def _unscheduled(manifest: Manifest, played: dict[int, PhaseVisits], suffix: str) -> Iterator[tuple[int, Visit]]:
    """Visits of the one epoch of a manifest without schedules: pass by pass, samples by order_rank."""
    for phase, visits in played.items():
        folder = _folder(manifest, phase)
        spread = phase in manifest.curricula() and len(visits.ids) > 1 and manifest.realisation != "sampling"
        pairs = sorted(zip(visits.passes.tolist(), visits.ids[visits.shard].tolist(), strict=True))
        for place, (number, shard_id) in enumerate(pairs):
            if spread:
                yield shard_id, Visit(f"{folder}/pass-{number:05d}", phase, number, spread=True)
            else:
                yield shard_id, _visit(f"{folder}/{place:09d}", phase, shard_id, number, suffix)


def _folder(manifest: Manifest, phase: int) -> str:
    return f"data/phase-{phase:03d}" if len(manifest.phases) > 1 else "data"


def _visit(place: str, phase: int, shard_id: int, number: int, suffix: str) -> Visit:
    return Visit(f"{place}-shard{shard_id:06d}-pass{number}{suffix}", phase, number)


def check_corpus(tasks: Sequence[ExportTask]) -> None:
    """Every shard that will be read is there.

    Raises:
        BadInputError: one is not.
    """
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lambda task: check_shard(task.uri), tasks))


def check_shard(uri: str) -> None:
    """Raise BadInputError where a shard of the corpus is not there."""
    if not io.exists(uri):
        raise BadInputError(f"{uri} is missing; restore it, or pass --root with where the corpus lies now")
