"""The vectors of a selection: gradients of a shard's samples, at one checkpoint or several, as methods want them.

Every sum of gradients is one of g = norm · direction, since only the sketch itself is linear; unit directions don't add
up. ``direction`` is the sketch that is selected by, ``validation`` the one that no selection optimises.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa

from cptsel.pipeline.artifacts.embeddings import read_directions
from cptsel.pipeline.artifacts.run import RunShard
from cptsel.pipeline.selection.reading.rows import ShardRows, float_column

Sketch = Literal["direction", "validation"]
_NORM_OF = {"direction": "sketch_norm", "validation": "validation_norm"}


def read_sums(rows: ShardRows, schema: pa.Schema, sketch: Sketch) -> list[np.ndarray]:
    """g of every row, at every checkpoint: (n, k) float32 each."""
    found = []
    shards = (rows.shard, *rows.shard.later)
    k = schema.field(sketch).type.list_size
    for shard, scalars in zip(shards, rows.checkpoints, strict=True):
        x = np.empty((len(rows.source), k), dtype=np.float32)
        for at, direction in _placed(shard, schema, sketch, rows.source):
            x[at] = direction
        x *= scalars[_NORM_OF[sketch]].astype(np.float32)[:, None]
        found.append(x)
    return found


def rise_of_loss(rows: ShardRows, schema: pa.Schema, new_gradient: np.ndarray | None) -> np.ndarray:
    """(n,) float64: how much moving along the new domain raises each sample's loss, a token.

    See docs/design.md, Rise of losses.

    δ = (L(θ') − L(θ)) / n of two checkpoints, or of a run that was embedded at θ' and has the losses at θ; of one
    checkpoint −⟨g, ḡ_new⟩ / n, which is that to first order but for the step.

    Args:
        rows: the samples.
        schema: required schema of the embedding files.
        new_gradient: (k,) ḡ_new, mean token gradient of the new domain; None where losses at two checkpoints tell.
    """
    n_tokens = float_column(rows.table, "n_tokens")
    if new_gradient is None:
        losses = [checkpoint["loss_sum"] for checkpoint in rows.checkpoints]
        if len(losses) == 1:
            losses.insert(0, float_column(rows.table, "base_loss_sum"))
        return (losses[1] - losses[0]) / n_tokens
    rise = np.empty(len(n_tokens))
    for at, direction in _placed(rows.shard, schema, "direction", rows.source):
        rise[at] = -(direction.astype(np.float64) @ new_gradient)
    return rise * rows.checkpoints[0]["sketch_norm"] / n_tokens


def combined(sums: Sequence[np.ndarray], combine: str | None, scales: Sequence[float]) -> np.ndarray:
    """Gradients of several checkpoints as one: (n, k) float32.

    Args:
        sums: (n, k) of each checkpoint.
        combine: None for a single one; ``concat``: side by side, each times its scale; ``difference``: what moving from
            the first checkpoint to the second changed.
        scales: of concat, one a checkpoint.
    """
    if combine is None:
        return sums[0]
    if combine == "difference":
        return sums[1] - sums[0]
    return np.concatenate([x * np.float32(scale) for x, scale in zip(sums, scales, strict=True)], axis=1)


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows of (n, k) at length 1, a row of zeros as it is."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def sum_of_gradients(rows: ShardRows, schema: pa.Schema, weight: np.ndarray) -> np.ndarray:
    """Σ weight · g over a shard's rows at the first checkpoint, (k,) float64, in the order of their files."""
    total = np.zeros(schema.field("direction").type.list_size)
    for at, direction in _placed(rows.shard, schema, "direction", rows.source):
        total += (weight * rows.checkpoints[0]["sketch_norm"])[at] @ direction.astype(np.float64)
    return total


def _placed(
    shard: RunShard, schema: pa.Schema, sketch: Sketch, source: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Directions of one embedding file after the other, with the rows that they belong to."""
    by_source = np.argsort(source)
    begin = 0
    for direction in read_directions(shard, schema, sketch):
        low, high = np.searchsorted(source, [begin, begin + len(direction)], sorter=by_source)
        here = by_source[low:high]
        yield here, direction[source[here] - begin]
        begin += len(direction)
