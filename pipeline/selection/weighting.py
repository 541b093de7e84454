"""From picks to weights and repeats: the one place where all picks meet, by their narrow columns (DESIGN section 5)."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.repeats import replay_rates, systematic_repeats
from cptsel.pipeline.kernels.weights import coreset_weights, effective_tokens, loss_weights
from cptsel.pipeline.selection.plan import Plan, no_pick
from cptsel.pipeline.selection.scope_shard import STEP

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class GroupResult:
    """What became of a group: counts of its picks, tokens asked for and played, and how even its weights are."""

    group: str
    samples: int
    tokens: int
    plays: int
    replay_tokens: int
    replay_requested: float
    shortfall: float
    effective_tokens: float
    weight_quantiles: list[float]


@dataclass(frozen=True, eq=False)
class Weighted:
    """All picks, file after file in shard order, and what each is worth.

    Attributes:
        offsets: for each shard with picks, where its rows begin and end in the arrays.
        n_tokens: (m,) int64.
        weight: (m,) float64, tokens of the corpus a token of the pick stands for.
        loss_weight: (m,) float64.
        repeat: (m,) int32.
        groups: results in the plan's order of groups.
        replay_requested: R.
    """

    offsets: dict[int, tuple[int, int]]
    n_tokens: np.ndarray
    weight: np.ndarray
    loss_weight: np.ndarray
    repeat: np.ndarray
    groups: list[GroupResult]
    replay_requested: int


def weigh(work: str, plan: Plan, budget_text: str, replay_tokens: int | None, max_repeats: int, seed: int) -> Weighted:
    """Weigh the picks under ``work``. The driver holds about 100 bytes a pick.

    Raises:
        UsageError: a group with mass has no pick.
    """
    files = {
        int(name.split(".")[0]): io.join(work, STEP, name) for name in io.list_names(io.join(work, STEP), ".parquet")
    }
    offsets, table = _read_narrow(files)
    n_tokens = table["n_tokens"].to_numpy().astype(np.int64)
    raw = table["raw"].to_numpy()
    order = pc.sort_indices(table, sort_keys=[("group", "ascending"), ("sample_id", "ascending")]).to_numpy()
    members = _split(table["group"], order)
    requested = int(n_tokens.sum()) if replay_tokens is None else replay_tokens
    weight, repeat = np.zeros(len(order)), np.zeros(len(order), dtype=np.int32)
    results = []
    for group in plan.groups:
        mine = members.get(group.group)
        if mine is None:
            raise no_pick(group, plan.unit, budget_text)
        weight[mine] = coreset_weights(raw[mine], n_tokens[mine], group.target_mass)
        target = requested * (group.target_mass / plan.mass)
        rates = replay_rates(weight[mine], n_tokens[mine], target, max_repeats)
        (u,) = uniform(seed, "repeat", [group.group])
        repeat[mine] = systematic_repeats(rates.x, float(u))
        results.append(_result(group.group, n_tokens[mine], weight[mine], repeat[mine], target, rates.shortfall))
    # In the canonical order, so that the last bit of the normaliser does not hang on how shards were numbered.
    loss_weight = np.empty_like(weight)
    loss_weight[order] = loss_weights(weight[order], n_tokens[order])
    return Weighted(offsets, n_tokens, weight, loss_weight, repeat, results, requested)


def _read_narrow(files: dict[int, str]) -> tuple[dict[int, tuple[int, int]], pa.Table]:
    """Narrow columns of all picks, and where each shard's rows lie."""
    columns = ["sample_id", "group", "n_tokens", "raw"]
    with ThreadPoolExecutor(max_workers=8) as pool:
        tables = list(pool.map(lambda path: io.read_parquet(path, columns), files.values()))
    ends = np.cumsum([table.num_rows for table in tables]).tolist()
    offsets = {shard: (end - table.num_rows, end) for shard, end, table in zip(files, ends, tables, strict=True)}
    fields = [("sample_id", pa.string()), ("group", pa.string()), ("n_tokens", pa.int32()), ("raw", pa.float64())]
    return offsets, pa.concat_tables([pa.schema(fields).empty_table(), *tables], promote_options="permissive")


def _split(groups: pa.ChunkedArray, order: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of each group's picks, in order of sample_id; ``order`` sorts by group first."""
    encoded = pc.take(groups, pa.array(order)).combine_chunks().dictionary_encode()
    if not len(order):
        return {}
    codes = encoded.indices.to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    return dict(zip(encoded.dictionary.to_pylist(), np.split(order, starts[1:]), strict=True))


def _result(
    group: str, n_tokens: np.ndarray, weight: np.ndarray, repeat: np.ndarray, requested: float, shortfall: float
) -> GroupResult:
    return GroupResult(
        group=group,
        samples=len(n_tokens),
        tokens=int(n_tokens.sum()),
        plays=int(repeat.sum()),
        replay_tokens=int(repeat.astype(np.int64) @ n_tokens),
        replay_requested=float(requested),
        shortfall=float(shortfall),
        effective_tokens=effective_tokens(weight, n_tokens),
        weight_quantiles=[float(q) for q in np.quantile(weight, QUANTILES)],
    )


def total(results: Sequence[GroupResult], field: str) -> int:
    """Sum of a whole-number field over groups."""
    return sum(getattr(result, field) for result in results)
