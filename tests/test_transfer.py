"""What passes between host and device: positions without padding, and one copy back a batch."""

import numpy as np
import pytest
import torch

from cptsel.pipeline.corpus.documents import ReadOptions, read_stream
from cptsel.pipeline.corpus.shards import inventory
from cptsel.pipeline.embedding.block import BlockEmbedder, RowOptions, _on_host
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.plan import plan_model
from cptsel.pipeline.kernels.gradients.transfer import real_positions, to_device


@pytest.mark.parametrize("lengths", [[1], [3, 1, 2], [4, 4], [2, 4, 1, 3]])
def test_real_positions_are_those_of_a_mask(lengths):
    values = torch.arange(len(lengths) * 4 * 5).view(len(lengths), 4, 5)
    mask = torch.zeros(len(lengths), 4, dtype=torch.bool)
    for sample, length in enumerate(lengths):
        mask[sample, :length] = True
    found = real_positions(torch.tensor(lengths), 4, "cpu")
    assert torch.equal(values[found], values[mask])


def test_numbers_come_back_as_they_were():
    given = {"sketch": torch.randn(3, 5), "loss": torch.randn(3), "validation": torch.randn(3, 1)}
    found = _on_host(given)
    for name, values in given.items():
        np.testing.assert_array_equal(found[name], values.numpy())
    assert to_device(given["loss"], "cpu") is given["loss"]


def test_a_batch_is_copied_back_once(tiny_lm, sample_data, monkeypatch):
    config = EmbedConfig(
        inputs=(),
        model=str(tiny_lm),
        out="",
        device="cpu",
        norm="exact",
        max_tokens=64,
        sketch_dim=16,
        validation_dim=8,
    )
    plan = plan_model(config)
    embedder = BlockEmbedder(plan.spec, RowOptions(plan.max_tokens, 256, "float16", ()))
    path = sample_data / "old" / "docs_en" / "shard-00000.jsonl.gz"
    shard = inventory(0, str(path), path.name, path.stat().st_size, 1 << 20)
    block = next(iter(read_stream(shard, ReadOptions(limit=3))))
    calls = {"batches": 0, "copies": 0}
    cpu, of_batch = torch.Tensor.cpu, type(embedder.gradients).of_batch

    def counted_copy(self, *args):
        calls["copies"] += 1
        return cpu(self, *args)

    def counted_batch(self, tokens, lengths):
        calls["batches"] += 1
        assert lengths.device.type == "cpu"
        return of_batch(self, tokens, lengths)

    monkeypatch.setattr(torch.Tensor, "cpu", counted_copy)
    monkeypatch.setattr(type(embedder.gradients), "of_batch", counted_batch)
    assert len(embedder.embed(path.name, block).embeddings) > 3
    assert calls["batches"] == calls["copies"] > 1
