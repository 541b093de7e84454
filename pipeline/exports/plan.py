"""What an export writes: which file each visit of a shard becomes, or goes into, in the order of play."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from cptsel.pipeline.artifacts.manifest import Manifest, source_uri
from cptsel.pipeline.artifacts.visits import PhaseVisits
from cptsel.pipeline.exports.base import ExportFormat

PART_PLAYS = 8192  # of a dataset in one file of the export, or of a curriculum: a worker holds them


@dataclass(frozen=True)
class Visit:
    """A pass over a shard: which samples it plays, and the file of the export that holds them.

    Attributes:
        file: name relative to the export; with ``by_rank`` it may have a field ``{part}``.
        phase: the phase.
        number: of the pass: 1, 2, ...
        part: None where the file holds this visit and nothing else. Otherwise the file is merged, part by part.
        place: among the visits of its part.
        by_rank: whether a curriculum spreads its samples over parts, of PART_PLAYS ranks each.
    """

    file: str
    phase: int
    number: int
    part: int | None = None
    place: int = 0
    by_rank: bool = False


@dataclass(frozen=True)
class ExportTask:
    """A shard: its row of shards.parquet, where it lies now, its samples file and that file's hash, and its visits.

    ``first``: rows of the corpus before it, where the format says the places of plays.
    """

    shard: dict[str, Any]
    uri: str
    samples: str
    sha256: str
    visits: tuple[Visit, ...]
    first: int | None = None


@dataclass(frozen=True)
class _Planned:
    """A visit of a schedule: of which rank, at which place there; of which shard, which pass, and how many plays."""

    rank: int
    position: int
    shard_id: int
    number: int
    plays: int


def plan_export(
    manifest: Manifest, played: dict[int, PhaseVisits], root: str | None, format: ExportFormat
) -> list[ExportTask]:
    """One task for each shard that is visited, with its visits."""
    visits: dict[int, list[Visit]] = {}
    for shard_id, visit in _visits(manifest, played, format):
        visits.setdefault(shard_id, []).append(visit)
    files = manifest.sample_files()
    shards = manifest.shards().to_pylist()
    rows = {shard["path"]: shard["rows"] for shard in shards}  # pools of one corpus have a shard of each file
    firsts = dict(zip(sorted(rows), accumulate((rows[path] for path in sorted(rows)), initial=0), strict=False))
    return [
        ExportTask(
            shard=shard,
            uri=source_uri(shard, root),
            samples=manifest.path(files[shard["shard_id"]]),
            sha256=manifest.header["files"][files[shard["shard_id"]]]["sha256"],
            visits=tuple(visits[shard["shard_id"]]),
            first=firsts[shard["path"]] if format.refers == "index" else None,
        )
        for shard in shards
        if shard["shard_id"] in visits
    ]


def epochs_of(manifest: Manifest, format: ExportFormat) -> int:
    """How many epochs an export holds: one where trainers shuffle it, as then all are alike."""
    return 1 if format.shuffles else int(manifest.header["order"].get("epochs", 1))


def _visits(manifest: Manifest, played: dict[int, PhaseVisits], format: ExportFormat) -> Iterator[tuple[int, Visit]]:
    """Every visit, with its shard."""
    epochs = epochs_of(manifest, format)
    schedules = {key: name for key, name in manifest.schedule_files().items() if key[1] < epochs}
    for (phase, epoch), name in schedules.items():
        folder = _folder(manifest, phase) + (f"/epoch-{epoch:03d}" if epochs > 1 or format.layout == "visits" else "")
        order = "position" if format.layout == "visits" else "order"
        rows = sorted(manifest.table(name).to_pylist(), key=lambda row: row[order])
        planned = [_Planned(r["rank"], r["position"], r["shard_id"], r["pass"], r["samples"]) for r in rows]
        yield from _place(folder, phase, planned, format, ranks=True)
    for phase, visits in {} if schedules else played.items():
        pairs = zip(visits.passes.tolist(), visits.ids[visits.shard].tolist(), visits.samples.tolist(), strict=True)
        planned = [_Planned(0, i, shard, number, plays) for i, (number, shard, plays) in enumerate(sorted(pairs))]
        spread = phase in manifest.curricula() and format.layout != "shards"
        if spread and len(visits.ids) > 1 and manifest.realisation != "sampling":
            yield from _spread(_folder(manifest, phase), phase, planned, format)
        else:
            yield from _place(_folder(manifest, phase), phase, planned, format)


def _place(
    folder: str, phase: int, planned: Sequence[_Planned], format: ExportFormat, ranks: bool = False
) -> Iterator[tuple[int, Visit]]:
    """Visits in order: a file each, all of a shard, or so many in a part."""
    part = plays = 0
    for place, visit in enumerate(planned):
        if format.layout == "shards":
            name = f"{folder}/shard-{visit.shard_id:06d}{format.suffix}"
            yield visit.shard_id, Visit(name, phase, visit.number, visit.number, place)
            continue
        if format.layout == "visits":
            name = f"rank-{visit.rank:05d}/{visit.position:09d}" if ranks else f"{visit.position:09d}"
            name += f"-shard{visit.shard_id:06d}-pass{visit.number}"
            yield visit.shard_id, Visit(f"{folder}/{name}{format.suffix}", phase, visit.number)
            continue
        name = "replay" if format.layout == "whole" else f"part-{part:06d}"
        yield visit.shard_id, Visit(f"{folder}/{name}{format.suffix}", phase, visit.number, part, place)
        plays += visit.plays
        if plays >= PART_PLAYS:
            part, plays = part + 1, 0


def _spread(folder: str, phase: int, planned: Sequence[_Planned], format: ExportFormat) -> Iterator[tuple[int, Visit]]:
    """Visits of a curriculum, whose passes play the samples of all shards by rank."""
    for visit in planned:
        names = {"whole": "replay", "parts": f"part-{visit.number:05d}-{{part:09d}}"}
        name = names.get(format.layout, f"pass-{visit.number:05d}/{{part:09d}}")
        yield visit.shard_id, Visit(f"{folder}/{name}{format.suffix}", phase, visit.number, 0, by_rank=True)


def _folder(manifest: Manifest, phase: int) -> str:
    return f"data/phase-{phase:03d}" if len(manifest.phases) > 1 else "data"
