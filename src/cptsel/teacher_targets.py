"""Teacher targets as PyTorch tensors. Needs pyarrow and torch alone: copy this file into a trainer that has no cptsel.

It reads what ``cptsel distill REPLAY --out DIR`` wrote, by sample_id, as the plays of an export name their samples::

    targets = TeacherTargets("DIR")
    batch = pad([targets[play["sample_id"]] for play in plays])
    logits = student(batch["model_ids"], attention_mask=...).logits      # see pad
    loss = distillation_loss(logits, batch["top_ids"], batch["top_log_probs"], batch["rest_log_prob"], batch["mask"])

An item has ``sample_id``, ``input_ids`` (the window's own tokens), ``model_ids`` (what predicts: BOS or EOS, where the
model has one, and all tokens but the last) and, of its n predicted tokens in order, ``top_ids`` (n, k),
``top_log_probs`` (n, k) and ``rest_log_prob`` (n,), or ``hidden`` (n, width), float32. Position t of all these is the
model's position t.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset

Item = dict[str, Any]
_CACHED = 4  # row groups that are held, of some ten thousand tokens each


class TeacherTargets(Dataset[Item]):
    """Targets of the chosen samples, by sample_id or by index in the order of the corpus.

    Args:
        directory: written by ``cptsel distill``.

    Attributes:
        kind: ``logits`` or ``hidden``.
        projection: (d, N) float32 that a student's hidden states are multiplied by, where they were projected.

    Raises:
        ValueError: the directory is no finished output of ``cptsel distill``.
    """

    def __init__(self, directory: str):
        self.folder = Path(directory)
        if not (self.folder / "_SUCCESS").exists() or not (self.folder / "targets.json").exists():
            raise ValueError(f"{directory} is not finished; write it by cptsel distill")
        self.header = json.loads((self.folder / "targets.json").read_text(encoding="utf-8"))
        self.kind: str = self.header["targets"]["kind"]
        self.projection: torch.Tensor | None = None
        if self.header["targets"]["project"] is not None:
            column = pq.read_table(self.folder / "projection.parquet")["row"].combine_chunks()
            self.projection = _matrix(column, torch.float32)
        self._groups: list[tuple[str, int]] = []
        self._places: list[tuple[int, int]] = []  # group, and row in it
        self._names: dict[str, int] = {}
        for name in sorted(name for name in self.header["files"] if name.startswith("data/")):
            file = pq.ParquetFile(self.folder / name)
            for group in range(file.metadata.num_row_groups):
                for row, sample in enumerate(file.read_row_group(group, ["sample_id"])["sample_id"].to_pylist()):
                    self._names[sample] = len(self._places)
                    self._places.append((len(self._groups), row))
                self._groups.append((name, group))
        self._held: OrderedDict[int, pa.Table] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._names

    def __getitem__(self, key: int | str) -> Item:
        if isinstance(key, str):
            key = self._names[key]
        if not -len(self) <= key < len(self):
            raise IndexError(f"sample {key} of {len(self)}")
        group, row = self._places[key % len(self)]
        return self._item(self._group(group).slice(row, 1))

    def _group(self, number: int) -> pa.Table:
        """Rows of one row group; the last few are held."""
        if number not in self._held:
            name, group = self._groups[number]
            self._held[number] = pq.ParquetFile(self.folder / name).read_row_group(group).combine_chunks()
            while len(self._held) > _CACHED:
                self._held.popitem(last=False)
        self._held.move_to_end(number)
        return self._held[number]

    def _item(self, row: pa.Table) -> Item:
        values = {name: row[name].chunk(0) for name in row.schema.names}
        ids = _vector(values["input_ids"].flatten(), torch.int64)
        n = values["n_tokens"][0].as_py()
        prefix = torch.tensor(self.header["model"]["prefix"], dtype=torch.int64)
        item: Item = {"sample_id": values["sample_id"][0].as_py(), "input_ids": ids}
        item["model_ids"] = torch.cat([prefix, ids])[:n]
        if self.kind == "hidden":
            return item | {"hidden": _matrix(values["hidden"].flatten(), torch.float32)}
        return item | {
            "top_ids": _matrix(values["top_ids"].flatten(), torch.int64),
            "top_log_probs": _matrix(values["top_log_probs"].flatten(), torch.float32),
            "rest_log_prob": _vector(values["rest_log_prob"].flatten(), torch.float32),
        }


def _vector(values: Any, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(values.to_numpy(zero_copy_only=False)).to(dtype)


def _matrix(rows: Any, dtype: torch.dtype) -> torch.Tensor:
    """A tensor (n, width) of an array of fixed-size lists."""
    return _vector(rows.flatten(), dtype).view(len(rows), rows.type.list_size)


def pad(items: Sequence[Item]) -> dict[str, Any]:
    """Items as one batch, padded behind with zeros: (B, T) or (B, T, ...), with ``mask`` (B, T) of what is real.

    ``mask`` is also the attention mask of ``model_ids``. ``input_ids`` and ``sample_id`` stay lists.
    """
    lengths = torch.tensor([len(item["model_ids"]) for item in items])
    batch: dict[str, Any] = {"mask": torch.arange(int(lengths.max())) < lengths.unsqueeze(1)}
    for name in items[0]:
        values = [item[name] for item in items]
        whole = name in ("sample_id", "input_ids")
        batch[name] = values if whole else torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
    return batch


def distillation_loss(
    logits: torch.Tensor,
    top_ids: torch.Tensor,
    top_log_probs: torch.Tensor,
    rest_log_prob: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean KL divergence a token, in nats, from the teacher to the student, over the teacher's top k and the rest.

    All tokens outside the top k count as one. That makes it a lower bound of the KL divergence over the vocabulary, and
    equal to it where k is the vocabulary (log sum inequality; Cover & Thomas 2006, theorem 2.7.1). The teacher's
    numbers, which were rounded to float16, are scaled to add up to 1.

    Args:
        logits: (B, T, V) of the student, at the positions that predict.
        top_ids: (B, T, k) int64.
        top_log_probs: (B, T, k), and rest_log_prob: (B, T), of the teacher.
        mask: (B, T) bool, positions that count; all by default.
    """
    student_all = torch.log_softmax(logits.float(), dim=-1)
    teacher, student = top_log_probs.float(), student_all.gather(-1, top_ids)
    if top_ids.shape[-1] < logits.shape[-1]:
        others = student_all.scatter(-1, top_ids, -torch.inf).logsumexp(dim=-1, keepdim=True)
        teacher, student = (
            torch.cat([teacher, rest_log_prob.float().unsqueeze(-1)], -1),
            torch.cat([student, others], -1),
        )
    if mask is not None:
        teacher, student = teacher[mask], student[mask]
    teacher = torch.log_softmax(teacher, dim=-1)
    nothing = teacher == -torch.inf  # 0 · log 0 is 0
    terms = teacher.exp() * (teacher.masked_fill(nothing, 0.0) - student.masked_fill(nothing, 0.0))
    return terms.sum(dim=-1).mean()
