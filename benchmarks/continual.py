"""Continued pre-training for benchmarks: a plain trainer that reads a replay manifest, and losses in bits per byte.

The trainer knows of a manifest what ``CONSUMING.md`` in it says, and imports nothing of cptsel. Token ids of a window
are cut from those of its whole document, as they were embedded.
"""

from __future__ import annotations

import glob
import gzip
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as made
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.nn.functional import cross_entropy

BETAS, CLIP = (0.9, 0.95), 1.0
EVALUATE_ROWS = 64  # rows of a batch without gradients


@dataclass(frozen=True)
class Recipe:
    """How the model goes on training: AdamW steps of ``rows`` rows of new text each, and the replay beside them."""

    steps: int = 100
    rows: int = 16
    length: int = 256  # tokens of a row
    lr: float = 3e-4
    warm_up: float = 0.1  # share of the steps
    mixed: bool = False  # bfloat16 where torch's autocast takes it; weights and the optimiser stay in float32
    late: float = 1.0  # after a share p of the steps a share p ** late of the replay has been played; 1 is evenly
    cosine: bool = False  # after warming up the rate falls to a tenth along half a cosine; else it is constant

    @property
    def new_tokens(self) -> int:
        return self.steps * self.rows * self.length


@dataclass(frozen=True)
class Replay:
    """What is played beside the new text: windows of token ids, and what their losses are multiplied by."""

    windows: Sequence[np.ndarray] = ()
    loss_weight: Sequence[float] = ()

    @property
    def tokens(self) -> int:
        return sum(map(len, self.windows))


@dataclass
class Texts:
    """Documents of JSONL shards, read when first asked for, and their token ids."""

    tokenizer: Any
    field: str = "text"
    _shards: dict[str, list[str]] = made(default_factory=dict)
    _ids: dict[tuple[str, int], np.ndarray] = made(default_factory=dict)

    def ids(self, path: str, row: int) -> np.ndarray:
        """Token ids of one document, without special tokens."""
        if (path, row) not in self._ids:
            if path not in self._shards:
                self._shards[path] = list(read_texts(path, self.field))
            self._ids[path, row] = self.encode(self._shards[path][row])
        return self._ids[path, row]

    def encode(self, text: str) -> np.ndarray:
        return np.asarray(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], np.int64)


def read_texts(path: str, field: str = "text") -> Iterator[str]:
    """The text of every line of a JSONL file, plain or gzip."""
    with gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)[field]


def read_manifest(directory: str, texts: Texts) -> Replay:
    """What a manifest without a schedule plays in its first epoch, pass by pass.

    Raises:
        ValueError: weights are realised by sampling, which needs a trainer that draws.
    """
    folder = Path(directory)
    header = json.loads((folder / "manifest.json").read_text())
    realisation = header["weighting"]["realisation"]
    if realisation == "sampling":
        raise ValueError(f"{directory}: this trainer plays repeats and loss weights alone")
    uris = {shard["shard_id"]: shard["uri"] for shard in pq.read_table(folder / "shards.parquet").to_pylist()}
    rows = [row for path in sorted(folder.glob("samples/*.parquet")) for row in pq.read_table(path).to_pylist()]
    rows.sort(key=lambda row: row["order_rank"])
    windows, weights = [], []
    for turn in range(1, max(row["repeat"] for row in rows) + 1):
        for row in rows:
            if row["repeat"] >= turn:
                ids, start = texts.ids(uris[row["shard_id"]], row["row_index"]), row["token_start"]
                windows.append(ids[start : start + row["token_count"]])
                weights.append(row["loss_weight"] if realisation == "loss" else 1.0)
    return Replay(windows, weights)


def pack(documents: Sequence[np.ndarray], end: int, length: int) -> np.ndarray:
    """Documents joined by ``end`` and cut: (rows, length) int64; the incomplete last row is dropped."""
    stream = np.concatenate([part for ids in documents for part in (ids, [end])])
    count = len(stream) // length
    return stream[: count * length].reshape(count, length)


def train(model: Any, new: np.ndarray, replay: Replay, prefix: int, recipe: Recipe, seed: int) -> list[float]:
    """Train ``model`` in place; the replay's windows are shuffled and dealt out over the steps.

    Args:
        model: causal language model, in float32.
        new: (n, length) rows of new text, n at least steps · rows.
        replay: played once, all of it.
        prefix: token before every window of the replay, as where it was embedded.
        recipe: of the training.
        seed: of the order of both.

    Returns:
        Mean loss a token of every step, replay included.
    """
    device, rng = next(model.parameters()).device, np.random.default_rng(seed)
    order = rng.permutation(len(new))[: recipe.steps * recipe.rows].reshape(recipe.steps, recipe.rows)
    turns = np.random.default_rng([seed, 1]).permutation(len(replay.windows))
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, betas=BETAS, weight_decay=0.0, fused=device.type == "cuda"
    )
    losses, played = [], played_before(len(turns), recipe)
    model.train()
    for step, rows in enumerate(order):
        mine = turns[played[step] : played[step + 1]]
        batch = [*new[rows], *(np.concatenate([[prefix], replay.windows[i]]) for i in mine)]
        weight = np.array([1.0] * len(rows) + [replay.loss_weight[i] for i in mine], np.float32)
        ids, labels = (x.to(device) for x in padded(batch))
        nats = losses_of(model, ids, labels, recipe.mixed)
        loss = (nats.sum(dim=1) * torch.from_numpy(weight).to(device)).sum() / (labels >= 0).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr * rate(recipe, step)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.detach())
    return torch.stack(losses).tolist() if losses else []


def played_before(windows: int, recipe: Recipe) -> list[int]:
    """How much of a replay has been played before each step, and at the end: steps + 1 numbers."""
    return [int(windows * (step / recipe.steps) ** recipe.late + 1e-9) for step in range(recipe.steps + 1)]


def rate(recipe: Recipe, step: int) -> float:
    """Learning rate of a step, as a share of the recipe's."""
    warm = max(1, round(recipe.warm_up * recipe.steps))
    if step < warm or not recipe.cosine:
        return min(1.0, (step + 1) / warm)
    return 0.55 + 0.45 * math.cos(math.pi * (step + 1 - warm) / (recipe.steps - warm))


def losses_of(model: Any, ids: torch.Tensor, labels: torch.Tensor, mixed: bool) -> torch.Tensor:
    """Loss of every token in nats, (n, steps) float32; 0 where there is no label."""
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=mixed):
        logits = model(input_ids=ids, use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none").view(labels.shape)


def padded(rows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels (-100 at padding) of rows of ids, (n, longest - 1) int64; attention is causal, so no mask."""
    width = max(map(len, rows)) - 1
    ids, labels = np.zeros((len(rows), width), np.int64), np.full((len(rows), width), -100, np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row) - 1], labels[i, : len(row) - 1] = row[:-1], row[1:]
    return torch.from_numpy(ids), torch.from_numpy(labels)


@dataclass(frozen=True)
class HeldOut:
    """Held-out text of several domains, cut into windows of ids with the prefix before each."""

    rows: list[np.ndarray]
    domain: np.ndarray  # (n,) int64, of each row
    names: list[str]
    bytes: np.ndarray  # (domains,) float64, of UTF-8 text


def read_held_out(pattern: str, texts: Texts, prefix: int, length: int, most_bytes: int) -> HeldOut:
    """The first ``most_bytes`` of every file that matches, in whole documents; a file is a domain."""
    rows: list[np.ndarray] = []
    domain, names, sizes = [], [], []
    for path in sorted(glob.glob(pattern)):
        size = 0
        for text in read_texts(path, texts.field):
            ids = texts.encode(text)
            cut = [np.concatenate([[prefix], ids[at : at + length]]) for at in range(0, len(ids), length)]
            rows += cut
            domain += [len(names)] * len(cut)
            size += len(text.encode())
            if size >= most_bytes:
                break
        names.append(Path(path).name.partition(".")[0])
        sizes.append(float(size))
    if not names:
        raise SystemExit(f"no file matches {pattern}")
    return HeldOut(rows, np.array(domain), names, np.array(sizes))


@torch.inference_mode()
def bits_per_byte(model: Any, held_out: HeldOut, mixed: bool = False) -> dict[str, float]:
    """Loss of every domain: nats of its tokens, given those before them in a window, over ln 2 · bytes of its text."""
    model.eval()
    device, nats = next(model.parameters()).device, np.zeros(len(held_out.names))
    by_length = np.argsort([-len(row) for row in held_out.rows], kind="stable")
    for begin in range(0, len(by_length), EVALUATE_ROWS):
        mine = by_length[begin : begin + EVALUATE_ROWS]
        ids, labels = (x.to(device) for x in padded([held_out.rows[i] for i in mine]))
        lost = losses_of(model, ids, labels, mixed)
        np.add.at(nats, held_out.domain[mine], lost.sum(dim=1).double().cpu().numpy())
    return dict(zip(held_out.names, (nats / (math.log(2) * held_out.bytes)).tolist(), strict=True))
