"""From picks to weights, plays and order: where a phase's picks meet, by their narrow columns.

See docs/design.md, Weights.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.sampling.curriculum import curriculum_rank
from cptsel.pipeline.kernels.sampling.repeats import repeat_purpose
from cptsel.pipeline.kernels.sampling.weights import GroupShare, coreset_weights, effective_tokens, realise
from cptsel.pipeline.selection.picks import list_picks
from cptsel.pipeline.selection.plan import Plan, no_pick

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

_COLUMNS: dict[str, pa.DataType] = {
    "sample_id": pa.string(),
    "group": pa.string(),
    "n_tokens": pa.int32(),
    "found_mass": pa.float64(),
    "loss_sum": pa.float32(),
    "grad_norm": pa.float32(),
    "inclusion_prob": pa.float64(),
    "score": pa.float32(),
}


@dataclass(frozen=True)
class Weighing:
    """How picks are weighed and ordered.

    Attributes:
        realisation: a key of ``kernels.sampling.weights.REQUIRED_FEATURES``.
        replay_tokens: R, None for the tokens of the picks.
        max_repeats: cap of repeats.
        seed: of rounding and of buckets.
        curriculum: what ``order_rank`` follows instead of the corpus: ``loss`` and ``norm`` a token, or ``gain``.
        descending: whether it falls.
        buckets: of the curriculum, inside which the order is random.
    """

    realisation: str = "repeat"
    replay_tokens: int | None = None
    max_repeats: int = 4
    seed: int = 0
    curriculum: str | None = None
    descending: bool = False
    buckets: int | None = None

    @property
    def order(self) -> str:
        """The order in words, as the manifest names it."""
        if self.curriculum is None:
            return "corpus"
        buckets = f" in {self.buckets} buckets" if self.buckets else ""
        return f"{self.curriculum} {'descending' if self.descending else 'ascending'}{buckets}"


@dataclass(frozen=True)
class GroupResult:
    """What became of a group: counts of its picks, tokens asked for and played, and how even its weights are."""

    group: str
    samples: int = 0
    tokens: int = 0
    plays: int = 0
    played_samples: int = 0  # that are played at all
    replay_tokens: int = 0
    replay_requested: float = 0.0
    cut_tokens: float = 0.0  # that samples at the cap would play beyond it, and others play in their place, or nothing
    shortfall: float = 0.0
    effective_tokens: float = 0.0
    weight_quantiles: Sequence[float] = ()
    found_mass: float = 0.0  # Σ found_mass: what the method's own weights add up to


@dataclass(frozen=True, eq=False)
class Weighted:
    """All picks of a phase, file after file in shard order, and what each is worth.

    Attributes:
        number: the phase.
        offsets: for each shard with picks, where its rows begin and end in the arrays.
        table: narrow columns of the picks.
        weight: (m,) float64, tokens of the corpus a token of the pick stands for.
        loss_weight: (m,) float64.
        repeat: (m,) int32.
        order_rank: (m,) int64, place in the phase.
        groups: results in the plan's order of groups, of those with a share.
        replay_requested: R.
    """

    number: int
    offsets: dict[int, tuple[int, int]]
    table: pa.Table
    weight: np.ndarray
    loss_weight: np.ndarray
    repeat: np.ndarray
    order_rank: np.ndarray
    groups: list[GroupResult]
    replay_requested: int

    @cached_property
    def n_tokens(self) -> np.ndarray:
        """(m,) int64, predicted tokens of each pick."""
        return self.table["n_tokens"].to_numpy().astype(np.int64)


def weigh(work: str, number: int, plan: Plan, budget_text: str, weighing: Weighing) -> Weighted:
    """Weigh the picks of a phase, which lie under ``work``. The driver holds about 200 bytes a pick.

    Raises:
        UsageError: a group that is to stand for some mass has no pick.
    """
    offsets, table = _read_narrow(list_picks(work))
    n_tokens, found_mass = table["n_tokens"].to_numpy().astype(np.int64), table["found_mass"].to_numpy()
    order = pc.sort_indices(table, sort_keys=[("group", "ascending"), ("sample_id", "ascending")]).to_numpy()
    members = _split(table["group"], order)
    requested = int(n_tokens.sum()) if weighing.replay_tokens is None else weighing.replay_tokens
    weight = np.zeros(len(order))
    shares = []
    with_mass = [group for group in plan.groups if group.target_mass > 0]
    for group in with_mass:
        mine = members.get(group.group)
        if mine is None:
            raise no_pick(group, plan.unit, budget_text)
        weight[mine] = coreset_weights(found_mass[mine], n_tokens[mine], group.target_mass)
        (u,) = uniform(weighing.seed, repeat_purpose(number), [group.group])
        shares.append(GroupShare(mine, requested * (group.target_mass / plan.mass), float(u)))
    realised = realise(weighing.realisation, weight, n_tokens, shares, weighing.max_repeats)
    results = []
    for group, share, shortfall in zip(with_mass, shares, realised.shortfall, strict=True):
        mine = share.members
        results.append(
            GroupResult(
                group=group.group,
                samples=len(mine),
                tokens=int(n_tokens[mine].sum()),
                plays=int(realised.repeat[mine].sum()),
                played_samples=int((realised.repeat[mine] > 0).sum()),
                replay_tokens=int(realised.repeat[mine].astype(np.int64) @ n_tokens[mine]),
                replay_requested=float(share.replay_tokens),
                cut_tokens=_cut(weight[mine], n_tokens[mine], share.replay_tokens, weighing),
                shortfall=float(shortfall),
                effective_tokens=effective_tokens(weight[mine], n_tokens[mine]),
                weight_quantiles=[float(q) for q in np.quantile(weight[mine], QUANTILES)],
                found_mass=float(found_mass[mine].sum()),
            )
        )
    rank = _order_rank(table, number, weighing)
    return Weighted(number, offsets, table, weight, realised.loss_weight, realised.repeat, rank, results, requested)


def _cut(weight: np.ndarray, n_tokens: np.ndarray, replay_tokens: float, weighing: Weighing) -> float:
    """Tokens that plays in proportion to the weights would play beyond the cap."""
    if weighing.realisation != "repeat":
        return 0.0
    plays = weight * (replay_tokens / (weight @ n_tokens))
    return float(np.maximum(plays - weighing.max_repeats, 0.0) @ n_tokens)


def _order_rank(table: pa.Table, number: int, weighing: Weighing) -> np.ndarray:
    """(m,) int64 place of each pick in its phase: that of the corpus, or of the curriculum."""
    if weighing.curriculum is None:
        return np.arange(table.num_rows, dtype=np.int64)
    if weighing.curriculum == "gain":
        score = table["score"].to_numpy().astype(np.float64)
    else:
        column = {"loss": "loss_sum", "norm": "grad_norm"}[weighing.curriculum]
        score = table[column].to_numpy().astype(np.float64) / table["n_tokens"].to_numpy()
    by_name = pc.sort_indices(table["sample_id"]).to_numpy()
    names = table["sample_id"].take(pa.array(by_name)).to_pylist()
    u = uniform(weighing.seed, f"curriculum {number}", names) if weighing.buckets else None
    rank = np.empty(len(score), np.int64)
    rank[by_name] = curriculum_rank(score[by_name], descending=weighing.descending, buckets=weighing.buckets, u=u)
    return rank


def _read_narrow(files: dict[int, str]) -> tuple[dict[int, tuple[int, int]], pa.Table]:
    """Narrow columns of all picks, and where each shard's rows lie."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        tables = list(pool.map(lambda path: io.read_parquet(path, list(_COLUMNS)), files.values()))
    ends = np.cumsum([table.num_rows for table in tables]).tolist()
    offsets = {shard: (end - table.num_rows, end) for shard, end, table in zip(files, ends, tables, strict=True)}
    empty = pa.schema(list(_COLUMNS.items())).empty_table()
    return offsets, pa.concat_tables([empty, *tables], promote_options="permissive")


def _split(groups: pa.ChunkedArray, order: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of each group's picks, in order of sample_id; ``order`` sorts by group first."""
    encoded = pc.take(groups, pa.array(order)).combine_chunks().dictionary_encode()
    if not len(order):
        return {}
    codes = encoded.indices.to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    return dict(zip(encoded.dictionary.to_pylist(), np.split(order, starts[1:]), strict=True))


def total(results: Sequence[GroupResult], field: str) -> int:
    """Sum of a whole-number field over groups."""
    return sum(getattr(result, field) for result in results)
