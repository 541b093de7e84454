"""Head gradients of real text for benchmarks: sketched, summed exactly, and at a checkpoint a little further on.

Windows are cut from JSONL shards as ``cptsel embed`` cuts them. The true gradient of a weighted set of windows,
Σ_j u_j G_j (V, d), is summed while they pass through the model, so that no single gradient is ever kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy, linear, softmax

from cptsel.pipeline.corpus.documents import ReadOptions, read_block, read_stream
from cptsel.pipeline.corpus.listing import list_inputs
from cptsel.pipeline.corpus.shards import inventory
from cptsel.pipeline.corpus.types import BLOCK_BYTES
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.cutting import cut_block
from cptsel.pipeline.embedding.plan import plan_model
from cptsel.pipeline.model.batching import batches
from cptsel.pipeline.model.frozen import FrozenModel
from cptsel.pipeline.model.gradients.head import HeadGradient
from cptsel.pipeline.model.tokenizer import load_tokenizer

BATCH_TOKENS = 4_096


def load(model: str, max_tokens: int, dim: int, threads: int) -> FrozenModel:
    """The model with two sketches of ``dim`` numbers."""
    config = EmbedConfig(
        inputs=(), model=model, out="", device="cpu", dtype="float32", max_tokens=max_tokens, threads=threads
    )
    return FrozenModel(dataclasses.replace(plan_model(config).spec, sketch_dim=dim, validation_dim=dim))


def read_windows(globs: Sequence[str], model: FrozenModel, max_tokens: int, documents: int) -> list[np.ndarray]:
    """Windows of the first ``documents`` of every shard, in corpus order: prefix and ids, int32."""
    config = EmbedConfig(inputs=tuple(globs), model=model.path, out="", device="cpu", max_tokens=max_tokens)
    prefix, tokenizer = plan_model(config).prefix, load_tokenizer(model.path)
    options = ReadOptions(text_field=config.text_field, block_bytes=config.block_bytes or BLOCK_BYTES, limit=documents)
    found = []
    for shard_id, (uri, path, size) in enumerate(list_inputs(config.inputs, None)[1]):
        shard = inventory(shard_id, uri, path, size, config.block_bytes or BLOCK_BYTES)
        blocks = (
            read_stream(shard, options)
            if shard.blocks is None
            else (read_block(shard, block, options) for block in shard.blocks)
        )
        for block in blocks:
            for sample in cut_block(path, block, tokenizer, prefix, max_tokens).samples:
                found.append(np.concatenate([prefix.ids, sample.ids]).astype(np.int32))
    return found


def sketches(model: FrozenModel, windows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Both sketches of every window, (n, k) float32 each."""
    kind = HeadGradient(model)
    g = np.empty((len(windows), kind.sketch.k), np.float32)
    v = np.empty((len(windows), kind.validation.k), np.float32)
    for batch in batches([len(window) for window in windows], BATCH_TOKENS):
        rows = kind.of_windows([windows[i] for i in batch])
        g[batch], v[batch] = rows.sketch.numpy(), rows.validation.numpy()
    return g, v


@torch.inference_mode()
def gradient_sums(model: FrozenModel, windows: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """True gradients of weighted sets of windows.

    Args:
        model: Its logits must be the head's output as it is.
        windows: n windows; those without any weight are left out.
        weights: Weights (sets, n), 0 where a window is not in a set.

    Returns:
        Σ_j u_j G_j of every set, (sets, V, d) float32.
    """
    if model.head.logit_map.scale != 1 or model.head.logit_map.softcap is not None:
        raise SystemExit("this benchmark needs a model without logit scale or soft-cap")
    used = np.flatnonzero(weights.any(axis=0))
    sums = torch.zeros(len(weights), *model.head.weight.shape)
    for batch in batches([len(windows[i]) for i in used], BATCH_TOKENS):
        rows = used[batch]
        ids, labels, lengths = pad([windows[i] for i in rows])
        mask = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()
        real = labels >= 0
        hidden = model.base(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[real]
        errors = softmax(linear(hidden, model.head.weight, model.head.bias), dim=1)
        errors[torch.arange(len(errors)), labels[real]] -= 1
        owner = torch.arange(len(rows)).unsqueeze(1).expand_as(labels)[real]
        for s, weight in enumerate(torch.from_numpy(weights[:, rows].astype(np.float32))):
            some = weight[owner].nonzero().squeeze(1)
            if len(some):
                sums[s].addmm_(errors[some].T, hidden[some] * weight[owner[some]].unsqueeze(1))
    return sums.numpy()


def pad(windows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Input ids, labels (-100 at padding) and lengths."""
    lengths = torch.tensor([len(window) - 1 for window in windows])
    ids = torch.zeros(len(windows), int(lengths.max()), dtype=torch.int64)
    labels = torch.full_like(ids, -100)
    for i, window in enumerate(windows):
        ids[i, : len(window) - 1] = torch.from_numpy(window[:-1].astype(np.int64))
        labels[i, : len(window) - 1] = torch.from_numpy(window[1:].astype(np.int64))
    return ids, labels, lengths


def train(model: FrozenModel, windows: Sequence[np.ndarray], steps: int, *, batch: int, rate: float, seed: int) -> None:
    """Move the model ``steps`` AdamW steps along ``windows``, in place."""
    network = model.model.requires_grad_(True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    order = np.random.default_rng(seed).permutation(len(windows))
    for step in range(steps):
        rows = [windows[i] for i in np.take(order, range(step * batch, (step + 1) * batch), mode="wrap")]
        ids, labels, lengths = pad(rows)
        mask = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()
        logits = network(input_ids=ids, attention_mask=mask, use_cache=False).logits
        cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
        optimiser.step()
        optimiser.zero_grad()
    network.requires_grad_(False)
