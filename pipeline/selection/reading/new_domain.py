"""The new domain as ``select`` knows it: by an embedding run of it, or of a sample of it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cptsel.pipeline.artifacts.run import EmbeddingRuns, RunShard
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.selection.reading.gradients import sum_of_gradients
from cptsel.pipeline.selection.reading.rows import float_column, read_shard


def mean_token_gradient(new: EmbeddingRuns, old: EmbeddingRuns) -> np.ndarray:
    """ḡ_new = Σ g / Σ n over the new domain, each sample by 1 / pool_prob: (k,) float64. The driver reads the run.

    Raises:
        UsageError: the run has no samples, or was embedded by another model or projection than the old corpus.
    """
    mine, its = new.headers[0]["fingerprints"], old.headers[0]["fingerprints"]
    for name in ("weights", "projection"):
        if mine[name] != its[name]:
            raise UsageError(
                f"--new {new.directories[0]}: its {name} are not those of {old.directories[0]}, so gradients can't be "
                "compared; embed the new domain with the same model and options"
            )

    def add(shard: RunShard) -> tuple[np.ndarray, float] | None:
        rows = read_shard(shard, new.schema, None, frozenset())
        if rows is None:
            return None
        weight = 1 / float_column(rows.table, "pool_prob")
        return sum_of_gradients(rows, new.schema, weight), float(weight @ float_column(rows.table, "n_tokens"))

    with ThreadPoolExecutor(max_workers=4) as pool:
        found = [sums for sums in pool.map(add, new.shards) if sums is not None]
    if not found:
        raise UsageError(f"--new {new.directories[0]}: this run has no samples; embed the new domain")
    return np.sum([total for total, _ in found], axis=0) / sum(tokens for _, tokens in found)
