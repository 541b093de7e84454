"""What a selection was chosen from: a random sample of the rows of its embedding runs, and all that was chosen.

Rows are drawn by a hash of their names, so that the sample does not depend on files, blocks or workers.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline.artifacts.embeddings import read_directions, read_rows
from cptsel.pipeline.artifacts.manifest import ALL, NO_GROUP
from cptsel.pipeline.artifacts.run import EmbeddingRuns, RunShard
from cptsel.pipeline.artifacts.texts import WINDOW_COLUMNS
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import VerificationError
from cptsel.pipeline.hashing import uniform

SAMPLE = 100_000  # rows by which the distributions of the corpus are told; all of a smaller run

_LOCATOR = ["sample_id", "shard_id", *WINDOW_COLUMNS, "n_tokens"]


@dataclass(frozen=True, eq=False)
class Population:
    """The samples of embedding runs, as far as a report shows them.

    Attributes:
        runs: where they lie.
        rows: a random sample of the rows and all chosen ones, by falling claim to be shown (``u``): locators, ``place``
            in the shard, ``group``, ``pool_prob``, ``loss`` and, where it is known, ``rise`` a token, ``grad_norm``,
            ``sampled`` for those of the random sample, ``chosen_0`` and ``chosen_1`` for the picks of the selections.
        samples: how many there are in all.
        mass: tokens of the corpus by group.
        group_by: the column that ``group`` is, None where all samples are one group.
    """

    runs: EmbeddingRuns
    rows: pa.Table
    samples: int
    mass: dict[str, float]
    group_by: str | None

    def column(self, name: str) -> np.ndarray:
        """A column of ``rows``."""
        return self.rows[name].to_numpy()

    def chosen(self, selection: int) -> np.ndarray:
        """(n,) bool, which of ``rows`` a selection has picked."""
        return self.column(f"chosen_{selection}")


def read_population(
    runs: EmbeddingRuns,
    group_by: str | None,
    chosen: Sequence[pa.Table],
    points: int,
    seed: int,
    progress: Progress | None = None,
    own: int = 0,
) -> Population:
    """Read every row's narrow columns once.

    Args:
        runs: the runs.
        group_by: the column by which a selection was made; by default the first that the runs have.
        chosen: of every selection, ``shard_id`` and ``sample_id`` of its picks; of pools of one corpus, which have a
            shard of each file, ``shard_id`` is that of the first.
        points: rows that are wanted at least.
        seed: of the sample.
        progress: told how far it is.
        own: number of the selection that was made from these runs.

    Raises:
        VerificationError: a pick of that selection is not among the rows.
        BadInputError: a file of a run is damaged.
    """
    group_by = group_by or (runs.groups[0] if runs.groups else None)
    wanted = max(SAMPLE, points)
    picks = [_by_shard(table) for table in chosen]
    first: dict[str, int] = {}
    kept: list[pa.Table] = []
    mass: Counter[str] = Counter()
    samples = found = waiting = 0
    most = 4 * wanted  # rows that may wait until they are thinned out
    for done, shard in enumerate(runs.shards, 1):
        number = first.setdefault(shard.source["path"], shard.shard_id)
        rows = _shard_rows(runs, shard, group_by, [mine.get(number) for mine in picks], seed)
        _add_mass(mass, rows)
        samples += rows.num_rows
        found += int(rows[f"chosen_{own}"].to_numpy().sum())
        kept.append(_least(rows, wanted))
        waiting += kept[-1].num_rows
        if waiting > most:
            kept = [_least(pa.concat_tables(kept, promote_options="permissive"), wanted)]
            waiting = kept[0].num_rows
            most = max(most, 2 * waiting)  # all chosen rows stay, and to go through them for every shard takes long
        if progress:
            progress(done, len(runs.shards), "shards read")
    if found != chosen[own].num_rows:
        raise VerificationError(
            f"{', '.join(runs.directories)}: {chosen[own].num_rows - found:,} of the chosen samples are not among the "
            "rows; run cptsel verify --run to see which"
        )
    rows = _least(pa.concat_tables(kept, promote_options="permissive"), wanted)
    u = rows["u"].to_numpy()
    sampled = np.zeros(len(u), bool)
    sampled[np.argsort(u, kind="stable")[:wanted]] = True
    rows = rows.append_column("sampled", pa.array(sampled)).sort_by([("u", "ascending"), ("sample_id", "ascending")])
    return Population(runs, rows.combine_chunks(), samples, dict(mass), group_by)


def _by_shard(table: pa.Table) -> dict[int, pa.Array]:
    """sample_ids by shard_id."""
    ids = table["shard_id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    names = table["sample_id"].combine_chunks().take(pa.array(order))
    shards, starts = np.unique(ids[order], return_index=True)
    ends = [*starts[1:].tolist(), len(order)]
    return {
        shard: names.slice(start, end - start)
        for shard, start, end in zip(shards.tolist(), starts.tolist(), ends, strict=True)
    }


def _shard_rows(
    runs: EmbeddingRuns, shard: RunShard, group_by: str | None, picks: Sequence[pa.Array | None], seed: int
) -> pa.Table:
    """All rows of a shard, with the columns of ``Population.rows`` but ``sampled``."""
    has_base = "base_loss_sum" in runs.schema.names
    columns = [*_LOCATOR, "pool_prob", "loss_sum", "grad_norm", *(["base_loss_sum"] if has_base else [])]
    table = read_rows(shard, runs.schema, columns + ([group_by] if group_by else []))
    n, n_tokens = table.num_rows, table["n_tokens"].to_numpy().astype(np.float64)
    added: dict[str, Any] = {
        "place": np.arange(n),
        "group": table[group_by].fill_null(NO_GROUP) if group_by else pa.array([ALL] * n, pa.string()),
        "loss": table["loss_sum"].to_numpy() / n_tokens,
        "u": uniform(seed, "report", table["sample_id"].to_pylist()),
    }
    if has_base:
        added["rise"] = (table["loss_sum"].to_numpy() - table["base_loss_sum"].to_numpy()) / n_tokens
    for number, names in enumerate(picks):
        there = pc.is_in(table["sample_id"], value_set=names) if names is not None else pa.array(np.zeros(n, bool))
        added[f"chosen_{number}"] = there
    rows = table.select([*_LOCATOR, "pool_prob", "grad_norm"])
    for name, values in added.items():
        rows = rows.append_column(name, values if isinstance(values, pa.ChunkedArray) else pa.array(values))
    return rows


def _least(rows: pa.Table, count: int) -> pa.Table:
    """The rows with the least ``u``, and all that were chosen, in their order."""
    if rows.num_rows <= count:
        return rows
    keep = np.zeros(rows.num_rows, bool)
    keep[np.argsort(rows["u"].to_numpy(), kind="stable")[:count]] = True
    for name in rows.column_names:
        if name.startswith("chosen_"):
            keep |= rows[name].to_numpy()
    return rows.filter(pa.array(keep))


def _add_mass(mass: "Counter[str]", rows: pa.Table) -> None:
    """Tokens of the corpus that a shard's samples stand for, by group."""
    codes = rows["group"].combine_chunks().dictionary_encode()
    if isinstance(codes, pa.ChunkedArray):
        codes = pa.concat_arrays(codes.chunks)
    tokens = rows["n_tokens"].to_numpy() / rows["pool_prob"].to_numpy()
    sums = np.bincount(codes.indices.to_numpy(), tokens, minlength=len(codes.dictionary))
    for name, value in zip(codes.dictionary.to_pylist(), sums.tolist(), strict=True):
        mass[name] += value


def directions_of(population: Population, take: np.ndarray, progress: Progress | None = None) -> np.ndarray:
    """Unit directions of some rows, at the first checkpoint: (len(take), k) float32.

    Only files that hold one of the rows are read.

    Args:
        population: the population.
        take: indices into its rows.
        progress: told how far it is.
    """
    runs = population.runs
    shard_ids, places = population.column("shard_id")[take], population.column("place")[take]
    x = np.zeros((len(take), runs.schema.field("direction").type.list_size), np.float32)
    shards = np.unique(shard_ids).tolist()
    for done, number in enumerate(shards, 1):
        shard = runs.shards[number]
        mine = np.flatnonzero(shard_ids == number)
        starts = np.cumsum([0, *shard.rows])
        of_file = np.searchsorted(starts, places[mine], side="right") - 1
        files = np.unique(of_file).tolist()
        part = replace(
            shard,
            files=tuple(shard.files[file] for file in files),
            rows=tuple(shard.rows[file] for file in files),
            footers=tuple(shard.footers[file] for file in files),
        )
        for file, found in zip(files, read_directions(part, runs.schema), strict=True):
            here = of_file == file
            x[mine[here]] = found[places[mine[here]] - starts[file]]
        if progress:
            progress(done, len(shards), "shards with points of the map")
    return x
