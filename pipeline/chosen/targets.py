"""One unit's part of ``distill``: its samples through the model, in batches, and their targets in one file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.chosen.model import loaded
from cptsel.pipeline.chosen.units import ReadWindows, Unit, Window
from cptsel.pipeline.errors import BadInputError, UsageError
from cptsel.pipeline.kernels.gradients.transfer import real_positions
from cptsel.pipeline.kernels.targets import hidden_projection, top_targets
from cptsel.pipeline.model.batching import batches
from cptsel.pipeline.model.frozen import FrozenModel, ModelSpec
from cptsel.schemas.arrow import targets_schema
from cptsel.schemas.headers import TargetsKind

STEP = "distill"
_ROW_GROUP_TOKENS = 1 << 14  # a reader holds a few row groups
_KEY = "cptsel.targets"

Columns = dict[str, np.ndarray]
"""Targets by column; first axis is predicted tokens."""


@dataclass(frozen=True)
class WriteTargets:
    """Unit → {name, sha256, bytes, samples, tokens}; a file that an earlier call finished is not made again.

    ``plan`` names what decides the bytes; ``tokens_per_batch`` bounds a forward pass; ``row_tokens`` is the longest
    window.
    """

    spec: ModelSpec
    read: ReadWindows
    prefix: tuple[int, ...]
    targets: TargetsKind
    tokens_per_batch: int
    row_tokens: int
    out: str
    work: str
    plan: str

    def __call__(self, unit: Unit) -> dict[str, Any]:
        name = f"data/{unit.name}.parquet"
        path = io.join(self.out, name)
        stamp = {_KEY: json.dumps({"plan": self.plan, "unit": unit.name}, sort_keys=True)}
        if not _is_whole(path, stamp):
            with loaded(self.spec) as model:
                windows = self.read(unit, model.path)
                table = self._table(unit, windows, self._targets(model, unit, windows))
            rows = max(1, _ROW_GROUP_TOKENS // self.row_tokens)
            io.write_bytes(path, io.parquet_bytes(table, stamp, rows))
        io.write_scratch(io.join(self.work, STEP, unit.name), b"")
        digest, size = outputs.hash_file(path)
        return {"name": name, "sha256": digest, "bytes": size, "samples": unit.count, "tokens": unit.tokens}

    def _targets(self, model: FrozenModel, unit: Unit, windows: Sequence[Window]) -> list[Columns]:
        """Of each window, in their order."""
        found: list[Columns] = [{}] * len(windows)
        matrix: torch.Tensor | None = None
        if self.targets["project"] is not None:
            drawn = projection_of(self.targets, model.head.weight.shape[1])
            matrix = torch.from_numpy(drawn).to(self.spec.device)
        prefix = np.asarray(self.prefix, dtype=np.int32)
        for batch in batches([len(window.ids) for window in windows], self.tokens_per_batch):
            ids = [np.concatenate([prefix, windows[i].ids]) for i in batch]
            with torch.inference_mode():
                columns = self._of_batch(model, ids, matrix)
            ends = np.cumsum([windows[i].n_tokens for i in batch])
            for i, end in zip(batch, ends.tolist(), strict=True):
                part = slice(end - windows[i].n_tokens, end)
                found[i] = {name: values[part] for name, values in columns.items()}
                self._check(unit, windows[i], found[i])
        return found

    def _of_batch(self, model: FrozenModel, ids: Sequence[np.ndarray], matrix: torch.Tensor | None) -> Columns:
        """Of all predicted tokens of a batch, sample by sample."""
        tokens, lengths = model.pad(ids)
        hidden = model.hidden(tokens[:, :-1], lengths)
        rows = hidden[real_positions(lengths, hidden.shape[1], hidden.device)]
        if self.targets["kind"] == "hidden":
            states = rows.float() if matrix is None else rows.float() @ matrix
            return {"hidden": states.half().cpu().numpy()}
        top = top_targets(rows, model.head, self.targets["width"])
        return {
            "top_ids": top.ids.to(torch.int32).cpu().numpy(),
            "top_log_probs": top.log_probs.half().cpu().numpy(),
            "rest_log_prob": top.rest.half().cpu().numpy(),
        }

    def _check(self, unit: Unit, window: Window, columns: Columns) -> None:
        """Raise BadInputError where a number that is to be finite is not."""
        values = columns.get("hidden", columns.get("top_log_probs"))
        if values is not None and not np.isfinite(values).all():
            raise BadInputError(
                f"{unit.uri}: row {window.row_index}: sample {window.sample_id} has {self.targets['kind']} that are "
                "not finite, or beyond float16; use --dtype float32, other --targets or another --model"
            )

    def _table(self, unit: Unit, windows: Sequence[Window], found: Sequence[Columns]) -> pa.Table:
        schema = targets_schema(self.targets["kind"], self.targets["width"])
        columns: dict[str, Any] = {
            "sample_id": [window.sample_id for window in windows],
            "shard_id": [unit.shard["shard_id"]] * len(windows),
            "row_index": [window.row_index for window in windows],
            "token_start": [window.token_start for window in windows],
            "n_tokens": [window.n_tokens for window in windows],
            "input_ids": _lists([window.ids for window in windows], schema.field("input_ids").type),
        }
        for name in found[0]:
            columns[name] = _lists([values[name] for values in found], schema.field(name).type)
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column, type=schema.field(name).type)
            for name, column in columns.items()
        ]
        return pa.Table.from_arrays(arrays, schema=schema)


def projection_of(targets: TargetsKind, hidden_size: int) -> np.ndarray:
    """The matrix (d, N) float32 by which hidden states are multiplied.

    Raises:
        ValueError: they are not projected.
    """
    if targets["project"] is None or targets["seed"] is None:
        raise ValueError("hidden states are not projected")
    return hidden_projection(targets["seed"], hidden_size, targets["project"])


def _is_whole(path: str, stamp: dict[str, str]) -> bool:
    """Whether a file is there that the same plan made of the same unit, every page of it as it was written."""
    if not io.exists(path):
        return False
    try:
        if stamp.items() <= io.read_parquet_metadata(path).items():
            io.read_parquet(path)  # holds every page against its checksum
            return True
    except UsageError:
        pass
    return False


def _lists(values: Sequence[np.ndarray], kind: pa.DataType) -> pa.Array:
    """A list a sample: of numbers where its values are (n,), of rows where they are (n, width)."""
    offsets = pa.array(np.concatenate([[0], np.cumsum([len(part) for part in values])]).astype(np.int32))
    flat = np.concatenate(values)
    inner: Any = pa.array(flat.reshape(-1))
    if flat.ndim == 2:
        inner = pa.FixedSizeListArray.from_arrays(inner, type=kind.value_type)
    return pa.ListArray.from_arrays(offsets, inner, type=kind)
