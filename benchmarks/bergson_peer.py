"""Sketches of windows by ``bergson``, for benchmarks/embed.py; runs in the Python that has it.

    python bergson_peer.py MODEL WINDOWS.npz OUT.npz TARGET DIM ROUNDS

WINDOWS has ``ids`` of all windows one after another, ``lengths``, and ``batches``: the number of the batch of each. OUT
takes ``sketches`` (n, k) and CPU seconds of the collection, ``seconds``, and of forward + loss over the same batches in
an ordinary loop, ``plain``, both (rounds,) and interleaved. Prefixes are part of the windows, as they are of ours.
"""

import os
import sys

if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:  # where select.py would hide the standard module
    sys.path.remove(here)

import tempfile
import time

import numpy as np
import torch
from bergson import GradientProcessor, IndexConfig, InMemoryCollector
from bergson.collector.collector import CollectorComputer
from datasets import Dataset
from transformers import AutoModelForCausalLM


def main() -> None:
    """Collect, round by round."""
    source, windows, out, target, dim, rounds = sys.argv[1:]
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    held = np.load(windows)
    rows = np.split(held["ids"].astype(np.int64), np.cumsum(held["lengths"])[:-1])
    batches = [np.flatnonzero(held["batches"] == number).tolist() for number in range(held["batches"].max() + 1)]
    data = Dataset.from_dict({"input_ids": [row.tolist() for row in rows]})
    spent: dict[str, list[float]] = {"seconds": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(int(rounds)):
            start = time.process_time()
            for batch in batches:
                plain(model, [rows[i] for i in batch])
            spent["plain"].append(time.process_time() - start)
            config = IndexConfig(run_path=folder, projection_dim=int(dim), projection_target=target)
            config.partial_run_path.mkdir(exist_ok=True)
            processor = GradientProcessor(projection_dim=int(dim), projection_target=target, projection_seed=0)
            start = time.process_time()
            collector = InMemoryCollector(model=model.base_model, data=data, cfg=config, processor=processor)
            CollectorComputer(model, data, collector=collector, batches=batches, cfg=config).run_with_collector_hooks()
            spent["seconds"].append(time.process_time() - start)
    sketches = torch.cat([part.reshape(len(rows), -1) for part in collector.gradients.values()], dim=1)
    np.savez(out, sketches=sketches.float().numpy(), **{name: np.array(some) for name, some in spent.items()})


@torch.no_grad()
def plain(model: torch.nn.Module, rows: list[np.ndarray]) -> None:
    """Forward + loss of a padded batch."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    labels = torch.full((len(rows), width), -100, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = labels[i, : len(row)] = torch.from_numpy(row)
    mask = (labels >= 0).long()[:, :-1]
    logits = model(input_ids=ids[:, :-1], attention_mask=mask, use_cache=False).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())


if __name__ == "__main__":
    main()
