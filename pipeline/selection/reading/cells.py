"""Cells: the samples of one group in one shard, in order of sample_id, or their mini-batches.

Rows reach a method sorted by sample_id and without what is excluded, so that nothing it does can depend on how the
corpus was cut into shards' files and blocks. A worker holds one shard's vectors at a time, as float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.kernels.sampling.pool import variance_of_total
from cptsel.pipeline.selection.picks import picks_path
from cptsel.pipeline.selection.reading.gradients import combined, read_sums, rise_of_loss, unit_rows
from cptsel.pipeline.selection.reading.history import History, played_rounds
from cptsel.pipeline.selection.reading.rows import ShardRows, float_column, read_shard

#: What vectors are wanted: of coverage, mean token gradients (or their directions); of matching, sums of gradients.
Vectors = Literal["cover", "match"]


@dataclass(frozen=True, eq=False)
class CellReader:
    """How cells are read: everything a worker needs besides the shard.

    Attributes:
        schema: required schema of the embedding files.
        group_by: the group column, None for one group of all.
        similarity: ``euclidean`` or ``cosine``, of the vectors of coverage.
        exclude: doc_ids, doc_keys, sample_ids and hexadecimal content hashes to leave out.
        combine: what is made of several checkpoints: ``concat``, or ``difference`` (the second minus the first).
        scales: of concat, the factor of each checkpoint's gradients.
        batch_size: samples of a mini-batch, 1 to select samples.
        rise: whether the rise of each sample's loss is wanted.
        new_gradient: (k,) float64, mean token gradient of the new domain, by which the rise is told where losses are
            known at one checkpoint alone; else None.
        beta: exponent of the rise in the mass of a sample; None leaves masses alone.
        history: what was replayed before.
        taken: directories with picks whose samples are no candidates any more.
        fresh: whether only what was never replayed is a candidate, whatever the history's mode.
    """

    schema: pa.Schema
    group_by: str | None = None
    similarity: str = "euclidean"
    exclude: frozenset[str] = frozenset()
    combine: str | None = None
    scales: tuple[float, ...] = ()
    batch_size: int = 1
    rise: bool = False
    new_gradient: np.ndarray | None = None
    beta: float | None = None
    history: History = field(default_factory=History)
    taken: tuple[str, ...] = ()
    fresh: bool = False


@dataclass(frozen=True, eq=False)
class Cell:
    """The atoms of one group in one shard: its samples, or mini-batches of samples that follow each other.

    Attributes:
        group: name of the group.
        rows: locator columns, group and scalar columns of the samples, sorted by sample_id.
        names: (n,) what each atom is called, ascending: the sample_id, of a batch that of its first sample.
        samples: (n,) int64 samples of each atom.
        columns: (n,) float64 each: n_tokens, loss_sum, grad_norm, corpus_mass (n_tokens / pool_prob) and mass (that,
            times rise^β where this is wanted), of a batch their sums; pool_prob, and rise where asked for, its means.
        weights: a of each sample, (s,) float64: mass / n_tokens, which is 1 / pool_prob where masses are left alone.
        free: (n,) bool, whether an atom may be picked.
        rounds: (n,) int64, in how many earlier rounds it was played.
        squares: Σ corpus_mass · ‖g / n_tokens‖² over the samples, at every checkpoint.
        order: rows of the samples atom by atom; None where atoms are samples.
        vectors: (n, k) float32, or None where none were asked for.
        validation: (n, k') float32 in the same terms, or None.
        targets: Σ a · g over the samples in both sketches, (k,) and (k',) float64, beside vectors for matching.
    """

    group: str
    rows: pa.Table
    names: list[str]
    samples: np.ndarray
    columns: dict[str, np.ndarray]
    weights: np.ndarray
    free: np.ndarray
    rounds: np.ndarray
    squares: tuple[float, ...]
    order: np.ndarray | None = None
    vectors: np.ndarray | None = None
    validation: np.ndarray | None = None
    targets: tuple[np.ndarray, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_tokens(self) -> np.ndarray:
        """(n,) int64 predicted tokens."""
        return self.columns["n_tokens"].astype(np.int64)

    @property
    def mass(self) -> np.ndarray:
        """(n,) float64, what each atom stands for."""
        return self.columns["mass"]

    def costs(self, unit: str) -> np.ndarray:
        """(n,) int64: what each atom takes of a budget of samples or tokens."""
        return self.n_tokens if unit == "tokens" else self.samples

    def members(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Samples of some atoms: (s,) places in ``index`` and (s,) rows."""
        if self.order is None:
            return np.arange(len(index)), index
        starts = np.cumsum(self.samples) - self.samples
        counts = self.samples[index]
        place = np.repeat(np.arange(len(index)), counts)
        within = np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)
        return place, self.order[starts[index][place] + within]


def read_cells(
    shard: RunShard,
    reader: CellReader,
    vectors: Vectors | None = None,
    validation: bool = False,
    there: pa.Table | None = None,
) -> Iterator[Cell]:
    """The cells of a shard by ascending group.

    Args:
        shard: one shard of a run.
        reader: how its cells are read.
        vectors: what vectors are wanted, if any.
        validation: whether the second sketch is wanted too.
        there: rows of the shard that were read before (see ``read_shard``).

    Raises:
        BadInputError: a file is damaged, a sample_id occurs twice, checkpoints hold different samples, or a value makes
            no sense.
    """
    rows = read_shard(shard, reader.schema, reader.group_by, reader.exclude, there)
    if rows is None:
        return
    columns, free, rounds = _columns(rows, reader), *_states(rows, reader)
    corpus_mass = columns["corpus_mass"]
    squares = [(scalars["sketch_norm"] / columns["n_tokens"]) ** 2 for scalars in rows.checkpoints]
    sums = read_sums(rows, reader.schema, "direction") if vectors else []
    checks = read_sums(rows, reader.schema, "validation") if validation else []
    groups = rows.table.column("group").combine_chunks().dictionary_encode()
    starts = np.flatnonzero(np.diff(groups.indices.to_numpy(), prepend=-1))  # sorted, so each group is one run
    for start, end in zip(starts, [*starts[1:], rows.table.num_rows], strict=True):
        part = slice(start, end)
        table = rows.table.slice(start, end - start)
        cell = Cell(
            table.column("group")[0].as_py(),
            table,
            table.column("sample_id").to_pylist(),
            np.ones(end - start, np.int64),
            {name: values[part] for name, values in columns.items()},
            (columns["mass"] / columns["n_tokens"])[part],
            free[part],
            rounds[part],
            tuple(float(corpus_mass[part] @ square[part]) for square in squares),
        )
        if reader.batch_size > 1:
            cell = _batches(cell, reader.batch_size)
        if vectors:
            cell = _with_vectors(cell, reader, vectors, [x[part] for x in sums], [x[part] for x in checks])
        yield cell


class CellStatistics(TypedDict):
    """What the budgets need to know of a cell; docs/design.md, Budgets.

    ``candidates`` may be picked, and of these the ``fresh`` were never replayed. ``longest`` is the largest candidate
    in samples and in tokens; ``mass_variance`` is that of ``mass`` over pools; ``choice_mass`` and ``choice_norm`` are
    what choices go by; ``played`` counts the samples that a history names.
    """

    shard_id: int
    group: str
    samples: int
    tokens: int
    mass: float
    mass_variance: float
    candidates: int
    candidate_tokens: int
    fresh: int
    fresh_tokens: int
    longest: dict[str, int]
    choice_mass: float
    choice_norm: float
    rise: float
    mean_squares: tuple[float, ...]
    played: int


def cell_statistics(shard: RunShard, reader: CellReader, there: pa.Table | None = None) -> list[CellStatistics]:
    """What the budgets need to know of each cell of a shard, of whose rows some may be ``there`` (``read_shard``)."""
    return [
        {
            "shard_id": shard.shard_id,
            "group": cell.group,
            "samples": cell.rows.num_rows,
            "tokens": int(cell.n_tokens.sum()),
            "mass": float(cell.columns["corpus_mass"].sum()),
            "mass_variance": _mass_variance(cell.rows),
            "candidates": int(cell.samples[cell.free].sum()),
            "candidate_tokens": int(cell.n_tokens[cell.free].sum()),
            "fresh": int(cell.samples[cell.free & (cell.rounds == 0)].sum()),
            "fresh_tokens": int(cell.n_tokens[cell.free & (cell.rounds == 0)].sum()),
            "longest": {unit: int(cell.costs(unit)[cell.free].max(initial=0)) for unit in ("samples", "tokens")},
            "choice_mass": float(cell.mass.sum()),
            "choice_norm": float((cell.mass / cell.columns["n_tokens"]) @ cell.columns["grad_norm"]),
            "rise": float(cell.columns["corpus_mass"] @ cell.columns["rise"]) if reader.rise else 0.0,
            "mean_squares": cell.squares,
            "played": int(cell.samples[cell.rounds > 0].sum()),
        }
        for cell in read_cells(shard, reader, there=there)
    ]


def _mass_variance(rows: pa.Table) -> float:
    """Of the mass, as the pool is a sample of the corpus; 0 where it is all of it."""
    n_tokens, pool_prob = float_column(rows, "n_tokens"), float_column(rows, "pool_prob")
    if (pool_prob == 1.0).all():
        return 0.0
    return variance_of_total(n_tokens, pool_prob, rows["row_index"].to_numpy())


def _columns(rows: ShardRows, reader: CellReader) -> dict[str, np.ndarray]:
    """Columns of all samples of a shard."""
    values = {name: float_column(rows.table, name) for name in ("n_tokens", "pool_prob", "loss_sum", "grad_norm")}
    values["mass"] = values["corpus_mass"] = values["n_tokens"] / values["pool_prob"]
    if reader.rise:
        values["rise"] = rise = rise_of_loss(rows, reader.schema, reader.new_gradient)
        if reader.beta is not None:
            values["mass"] = values["corpus_mass"] * np.where(rise > 0, np.maximum(rise, 0.0) ** reader.beta, 0.0)
    return values


def _states(rows: ShardRows, reader: CellReader) -> tuple[np.ndarray, np.ndarray]:
    """Which samples may be picked, (n,) bool, and how often each was replayed before, (n,) int64."""
    ids = rows.table.column("sample_id")
    rounds = played_rounds(rows.shard, reader.history, ids)
    free = rounds == 0 if reader.fresh or reader.history.mode != "discount" else np.ones(len(ids), bool)
    for work in reader.taken:
        path = picks_path(work, rows.shard.shard_id)
        if io.exists(path):
            taken = io.read_parquet(path, ["sample_id"])["sample_id"].combine_chunks()
            free &= ~pc.is_in(ids, value_set=taken).to_numpy()
    return free, rounds


def _batches(cell: Cell, size: int) -> Cell:
    """Mini-batches of ``size`` samples that follow each other in the corpus, the last of them shorter; by name."""
    places = (cell.rows.column("row_index").to_numpy(), cell.rows.column("window").to_numpy())
    order = np.lexsort(places[::-1])
    chunks = np.split(order, np.arange(size, len(order), size))
    chunks.sort(key=lambda chunk: cell.names[chunk[0]])
    order = np.concatenate(chunks)
    samples = np.array([len(chunk) for chunk in chunks], np.int64)
    starts = np.cumsum(samples) - samples
    columns = {name: np.add.reduceat(values[order], starts) for name, values in cell.columns.items()}
    columns["pool_prob"] = columns["n_tokens"] / columns["corpus_mass"]
    if "rise" in columns:  # its mean by mass, so that mass · rise adds up
        rise = (cell.columns["rise"] * cell.columns["corpus_mass"])[order]
        columns["rise"] = np.add.reduceat(rise, starts) / columns["corpus_mass"]
    return replace(
        cell,
        names=[cell.names[chunk[0]] for chunk in chunks],
        samples=samples,
        columns=columns,
        free=np.logical_and.reduceat(cell.free[order], starts),
        rounds=np.maximum.reduceat(cell.rounds[order], starts),
        order=order,
    )


def _with_vectors(
    cell: Cell, reader: CellReader, vectors: Vectors, sums: list[np.ndarray], checks: list[np.ndarray]
) -> Cell:
    """Add the vectors made of the samples' gradients at every checkpoint."""
    if vectors == "cover":  # a pick of no mass, whose loss doesn't rise, would have no weight
        return replace(cell, vectors=_means(cell, reader, sums), free=cell.free & (cell.mass > 0))
    found, targets = [], []
    for parts in (sums, checks):
        if not parts:
            continue
        x = combined(parts, reader.combine, reader.scales)
        targets.append(np.einsum("i,ij->j", cell.weights, x))  # in float64, without a copy of x
        found.append(x if cell.order is None else _added(cell, x))
    return replace(cell, vectors=found[0], validation=found[1] if checks else None, targets=tuple(targets))


def _means(cell: Cell, reader: CellReader, sums: list[np.ndarray]) -> np.ndarray:
    """Mean token gradients of the atoms, or their directions, (n, k) float32."""
    if cell.order is None:
        means = [x / cell.columns["n_tokens"].astype(np.float32)[:, None] for x in sums]
    else:
        weight = (1 / float_column(cell.rows, "pool_prob")).astype(np.float32)[:, None]
        means = [_added(cell, x * weight) / cell.columns["corpus_mass"].astype(np.float32)[:, None] for x in sums]
    if reader.similarity == "euclidean":
        return combined(means, reader.combine, reader.scales)
    if reader.combine == "concat":  # directions are of one length already
        return np.concatenate([unit_rows(x) for x in means], axis=1) / np.float32(np.sqrt(len(means)))
    return unit_rows(combined(means, reader.combine, reader.scales))


def _added(cell: Cell, x: np.ndarray) -> np.ndarray:
    """Rows of samples added up by atom, (n, k) float32."""
    return np.add.reduceat(x[cell.order], np.cumsum(cell.samples) - cell.samples, axis=0)
