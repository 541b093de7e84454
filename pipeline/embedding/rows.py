"""The tables that are written for a block."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline.corpus.documents import Reject
from cptsel.pipeline.embedding.cutting import Sample
from cptsel.schemas import arrow

_ROWS = 512  # directions that are float32 at a time


def embedding_rows(
    samples: list[Sample], vectors: dict[str, np.ndarray], shard_id: int, storage: str, groups: Sequence[str]
) -> pa.Table:
    """Rows of samples, one each, in their order.

    Args:
        samples: n of them.
        vectors: ``sketch`` (n, k) and ``validation`` (n, k'), float32; ``loss_sum``, the norms, and ``base_loss_sum``
            where it is known, (n,).
        shard_id: of their shard.
        storage: ``float16`` or ``int8``.
        groups: names of the group columns.
    """
    k, k_val = vectors["sketch"].shape[1], vectors["validation"].shape[1]
    schema = arrow.embeddings_schema(k, k_val, storage, list(groups), base_loss="base_loss_sum" in vectors)
    n = len(samples)
    columns: dict[str, Any] = {
        "sample_id": [s.sample_id for s in samples],
        "doc_key": [s.doc_key for s in samples],
        "doc_id": [s.document.doc_id for s in samples],
        "shard_id": np.full(n, shard_id, np.int32),
        "row_index": [s.document.row_index for s in samples],
        "window": [s.window for s in samples],
        "byte_offset": [s.document.byte_offset for s in samples],
        "byte_length": [s.document.byte_length for s in samples],
        "char_start": [s.start if isinstance(s.document.content, str) else None for s in samples],
        "char_end": [s.end if isinstance(s.document.content, str) else None for s in samples],
        "token_start": [s.token_start for s in samples],
        "token_count": [len(s.ids) for s in samples],
        "n_tokens": [s.n_tokens for s in samples],
        "content_hash": [s.content_hash for s in samples],
        "pool_prob": [s.document.pool_prob for s in samples],
        "loss_sum": vectors["loss_sum"],
        "grad_norm": vectors["grad_norm"],
        "sketch_norm": vectors["sketch_norm"],
        "validation_norm": vectors["validation_norm"],
    }
    if "base_loss_sum" in vectors:
        columns["base_loss_sum"] = vectors["base_loss_sum"]
    for position, name in enumerate(groups):
        columns[name] = pa.array([s.document.groups[position] for s in samples], pa.string()).dictionary_encode()
    direction, scale = _directions(vectors["sketch"], vectors["sketch_norm"], storage)
    if scale is not None:
        columns["direction_scale"] = scale
    columns["direction"] = _fixed_list(direction, schema.field("direction").type)
    validation, _ = _directions(vectors["validation"], vectors["validation_norm"], "float16")
    columns["validation"] = _fixed_list(validation, schema.field("validation").type)
    return pa.table(
        [
            columns[f.name] if isinstance(columns[f.name], pa.Array) else pa.array(columns[f.name], f.type)
            for f in schema
        ],
        schema=schema,
    )


def _directions(vectors: np.ndarray, norms: np.ndarray, storage: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Vectors (n, k) over their norms, as they are stored, and the scales (n,) of int8; some rows at a time."""
    out = np.empty(vectors.shape, np.int8 if storage == "int8" else np.float16)
    scale = np.empty(len(vectors), np.float32) if storage == "int8" else None
    for start in range(0, len(vectors), _ROWS):
        part = slice(start, start + _ROWS)
        direction = vectors[part] / norms[part, None]
        if scale is not None:
            out[part], scale[part] = quantise(direction)
        else:
            out[part] = direction
    return out, scale


def quantise(direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) float32 → int8 codes in [-127, 127] and a float32 scale a row: direction ≈ codes · scale."""
    scale = np.abs(direction).max(axis=1) / np.float32(127) if len(direction) else np.zeros(0, np.float32)
    return np.rint(direction / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def _fixed_list(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    dtype = np.int8 if kind.value_type == pa.int8() else np.float16
    flat = pa.array(np.ascontiguousarray(values, dtype=dtype).reshape(-1), kind.value_type)
    return pa.FixedSizeListArray.from_arrays(flat, type=kind)


def reject_rows(shard_id: int, rejects: list[Reject]) -> pa.Table:
    """Rejects of a block, by row and window."""
    ordered = sorted(rejects, key=lambda r: (r.row_index, -1 if r.window is None else r.window))
    return pa.table(
        {
            "shard_id": pa.array([shard_id] * len(ordered), pa.int32()),
            "row_index": pa.array([r.row_index for r in ordered], pa.int64()),
            "window": pa.array([r.window for r in ordered], pa.int32()),
            "byte_offset": pa.array([r.byte_offset for r in ordered], pa.int64()),
            "reason": pa.array([r.reason for r in ordered], pa.string()),
            "detail": pa.array([r.detail for r in ordered], pa.string()),
            "first_bytes": pa.array([r.first_bytes for r in ordered], pa.binary()),
        },
        schema=arrow.REJECTS,
    )
