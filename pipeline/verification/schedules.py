"""Checks of an ordered manifest's schedules: each epoch plays everything once, as the recorded draw says."""

import numpy as np
import pyarrow as pa

from cptsel.pipeline.artifacts.manifest import SHARDS, Manifest, schedule_name
from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.artifacts.visits import PhaseVisits, shard_names
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.sampling.shard_order import proposal
from cptsel.pipeline.summary import counted
from cptsel.pipeline.verification.samples import read_table
from cptsel.pipeline.verification.totals import RELATIVE
from cptsel.schemas.arrow import SCHEDULE


def check_schedules(manifest: Manifest, visits: dict[int, PhaseVisits], problems: Problems) -> str:
    """Check every schedule against what the samples play. Returns what was looked at."""
    order = manifest.header["order"]
    shards = manifest.shards()
    names = dict(zip(shards["shard_id"].to_pylist(), shard_names(shards), strict=True))
    expected = {(phase, epoch) for phase in manifest.phases for epoch in range(order["epochs"])}
    found = manifest.schedule_files()
    for phase, epoch in sorted(expected - set(found)):
        problems.add(schedule_name(phase, epoch), None, "is missing: the manifest has this phase and epoch")
    for phase, epoch in sorted(set(found) - expected):
        problems.add(schedule_name(phase, epoch), None, "is of no phase and epoch of the manifest")
    total = 0
    for phase, epoch in sorted(expected & set(found)):
        name, played = found[phase, epoch], visits[phase]
        table = read_table(manifest, name, SCHEDULE, problems)
        if table is None:
            continue
        total += table.num_rows
        column = {field.name: table[field.name].to_numpy() for field in SCHEDULE}
        if _check_visits(name, column, played, problems):
            q = proposal(played.x, played.t, order["staleness"])
            u = uniform(order["seed"], f"order/{phase}/{epoch}", [names[key] for key in played.ids.tolist()])
            _check_draw(name, column, played, q, u, problems)
            if (phase, epoch) == min(expected):
                _check_shards(shards, column, played, problems)
        _check_ranks(name, column, order["world_size"], problems)
    return f"{counted(total, 'visit')} of shards in {counted(len(found), 'schedule')}"


def _check_visits(name: str, column: dict[str, np.ndarray], played: PhaseVisits, problems: Problems) -> bool:
    """Every (shard, pass) once, with its samples and tokens. Returns whether the list of visits is right."""
    right = {
        (int(played.ids[shard]), number): (samples, tokens)
        for shard, number, samples, tokens in zip(
            played.shard, played.passes.tolist(), played.samples.tolist(), played.tokens.tolist(), strict=True
        )
    }
    before = problems.total
    seen: set[tuple[int, int]] = set()
    keys = zip(column["shard_id"].tolist(), column["pass"].tolist(), strict=True)
    sizes = zip(column["samples"].tolist(), column["tokens"].tolist(), strict=True)
    for row, (visit, size) in enumerate(zip(keys, sizes, strict=True)):
        if visit in seen:
            problems.add(name, row, f"pass {visit[1]} over shard {visit[0]} is listed twice")
        elif visit not in right:
            problems.add(name, row, f"pass {visit[1]} over shard {visit[0]} plays nothing")
        elif size != right[visit]:
            problems.add(name, row, f"(samples, tokens) are {size}, but the samples give {right[visit]}")
        seen.add(visit)
    for shard, number in sorted(set(right) - seen)[:1]:
        absent = len(set(right) - seen)
        problems.add(name, None, f"lacks {counted(absent, 'visit')}, the first being pass {number} over shard {shard}")
    return problems.total == before


def _check_draw(
    name: str, column: dict[str, np.ndarray], played: PhaseVisits, q: np.ndarray, u: np.ndarray, problems: Problems
) -> None:
    """q follows from the samples, priority from q and the seed, and ``order`` from the passes and priorities."""
    at = np.searchsorted(played.ids, column["shard_id"])
    problems.add_rows(name, ~np.isclose(column["q"], q[at], rtol=RELATIVE, atol=0), "q is not the shard's proposal")
    drawn = np.isclose(column["priority"], column["q"] / u[at], rtol=RELATIVE, atol=0)
    problems.add_rows(name, ~drawn, "priority is not q / u of the recorded seed")
    sequence = np.lexsort((column["shard_id"], -column["priority"], column["pass"]))
    place = np.empty(len(sequence), dtype=np.int64)
    place[sequence] = np.arange(len(sequence))
    problems.add_rows(
        name, column["order"] != place, "order is {}, not its place by pass and priority", column["order"]
    )


def _check_ranks(name: str, column: dict[str, np.ndarray], world_size: int, problems: Problems) -> None:
    """Rows go by rank and position; positions of a rank are 0, 1, ...; a rank plays its visits in order."""
    rank, position, order = column["rank"], column["position"], column["order"]
    outside = (rank < 0) | (rank >= world_size)
    problems.add_rows(name, outside, "rank is {}, outside the world size", rank)
    if outside.any():
        return
    start = np.diff(rank, prepend=-1) != 0
    begins = np.maximum.accumulate(np.where(start, np.arange(len(rank)), 0))
    jumps = position != np.arange(len(rank)) - begins
    problems.add_rows(name, jumps, "position is {}, not the next of its rank", position)
    falling = np.diff(rank, prepend=rank[:1]) < 0
    problems.add_rows(name, falling, "rank is {}, below that of the row before", rank)
    early = ~start & (np.diff(order, prepend=order[:1]) <= 0)
    problems.add_rows(name, early, "order is {}, not after that of the row before", order)


def _check_shards(shards: pa.Table, column: dict[str, np.ndarray], played: PhaseVisits, problems: Problems) -> None:
    """q, priority and order of shards.parquet are those of pass 1 of the first epoch; null where nothing is played."""
    first = column["pass"] == 1
    names = ("shard_id", "q", "priority", "order")
    said = {row[0]: row for row in zip(*(column[key][first].tolist() for key in names), strict=True)}
    for row, stored in enumerate(zip(*(shards[key].to_pylist() for key in names), strict=True)):
        shard_id = stored[0]
        if stored != said.get(shard_id, (shard_id, None, None, None)):
            problems.add(SHARDS, row, f"q, priority and order of shard {shard_id} are not those of the first epoch")
