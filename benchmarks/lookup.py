"""CPU seconds that ``cptsel explain`` and ``cptsel locate`` take on a large manifest, in this process and as commands.

    python benchmarks/lookup.py --samples 1000000 --shards 256

The manifest is made here, of random names and no texts, with repeats and without a schedule, or with one: then a rank's
visits tell the shard. Each figure is the least of ``--times`` calls; the files were read before.
"""

import os
import sys

if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:  # where select.py would hide the standard module
    sys.path.remove(here)

import argparse
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import finish_manifest, samples_name
from cptsel.pipeline.explain import explain
from cptsel.pipeline.kernels.sampling.weights import REQUIRED_FEATURES
from cptsel.pipeline.locate import locate
from cptsel.pipeline.lookup.config import ExplainConfig, LocateConfig
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.schemas.arrow import REPLAY_SHARDS, SAMPLES

TOKENS = 256  # of every sample


def make_manifest(folder: Path, samples: int, shards: int, seed: int = 0) -> tuple[str, str]:
    """A manifest with repeats; returns the names of a sample in the middle and of a document there."""
    rng = np.random.default_rng(seed)
    bounds = np.linspace(0, samples, shards + 1).astype(np.int64)
    shard_rows, named, plays = [], ("", ""), 0
    for shard in range(shards):
        n = int(bounds[shard + 1] - bounds[shard])
        names = [bytes(row).hex() for row in rng.integers(0, 256, (n, 16), np.uint8)]
        keys = [bytes(row).hex() for row in rng.integers(0, 256, (n, 16), np.uint8)]
        repeat = rng.integers(0, 5, n).astype(np.int32)
        if shard == shards // 2:
            repeat[n // 2] = 3
            named = names[n // 2], keys[n // 2]
        rows, zeros = np.arange(n), np.zeros(n, np.int64)
        columns = {
            "sample_id": names, "doc_key": keys, "doc_id": [f"d{shard}/{row}" for row in rows], "row_index": rows,
            "shard_id": np.full(n, shard), "window": zeros, "byte_offset": rows * 1000, "byte_length": zeros + 999,
            "char_start": zeros, "char_end": zeros + 990, "token_start": zeros, "token_count": zeros + TOKENS,
            "n_tokens": zeros + TOKENS, "content_hash": [bytes(16)] * n, "weight": repeat.astype(np.float64),
            "inclusion_prob": np.ones(n), "loss_weight": np.ones(n), "repeat": repeat, "phase": zeros,
            "order_rank": rows + bounds[shard], "group": ["all"] * n, "method": ["uniform"] * n,
            "grad_norm": np.ones(n, np.float32), "score": [None] * n,
        }  # fmt: skip
        table = pa.table({field.name: pa.array(columns[field.name]).cast(field.type) for field in SAMPLES}, SAMPLES)
        io.write_parquet(str(folder / samples_name(shard)), table)
        played = int(repeat.sum())
        plays += played
        counted = {f"{kind}_{what}": n * size for kind in ("population", "selected") for what, size in _SIZES.items()}
        shard_rows.append(
            {"shard_id": shard, "uri": f"/corpus/{shard:06d}.jsonl", "path": f"{shard:06d}.jsonl", "format": "jsonl"}
            | {
                "compression": "none",
                "bytes": 1000 * n,
                "sha256": "0" * 64,
                "rows": n,
                "replay_tokens": TOKENS * played,
            }
            | counted
        )
    io.write_parquet(str(folder / "shards.parquet"), pa.Table.from_pylist(shard_rows, schema=REPLAY_SHARDS))
    whole = {"population_samples": samples, "population_tokens": samples * TOKENS}
    whole |= {"population_mass": float(samples * TOKENS), "selected_samples": samples}
    whole |= {"selected_tokens": samples * TOKENS, "replay_tokens": plays * TOKENS}
    replay = {"requested": plays * TOKENS, "realised": plays * TOKENS, "shortfall": 0}
    header = {
        "required_features": list(REQUIRED_FEATURES["repeat"]),
        "weighting": {"realisation": "repeat", "max_repeats": 4, "replay_tokens": replay},
        "order": {"kind": "corpus"}, "selection": {"method": "uniform", "options": {"seed": 0}, "scope": "shard"},
        "groups": [{"group": "all", "phase": 0, **whole, "target_mass": 1.0, "budget": 1}],
        "totals": {"shards": shards, **whole, "plays": plays},
        "phases": [
            {"phase": 0, "mix_fraction": None, "samples": samples, "tokens": samples * TOKENS, "order": "corpus"}
        ],
        "corpus": {"root": "/corpus", "text_field": "text", "id_field": "id", "tokenizer": "0" * 64, "max_tokens": 512},
        "provenance": {"runs": [{"fingerprint": "0" * 64}], "model": {}, "tool": {"name": "cptsel", "version": "0"},
                       "packages": {}},
    }  # fmt: skip
    finish_manifest(str(folder), header, "seed: 0\n", {"seconds": 0.0})
    return named


_SIZES = {"samples": 1, "tokens": TOKENS, "mass": float(TOKENS)}


def least(times: int, call: Callable[[], object]) -> float:
    """CPU seconds of the cheapest of several calls, threads and child processes included."""
    found = []
    for _ in range(times):
        began = _spent()
        call()
        found.append(_spent() - began)
    return min(found)


def _spent() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def command(*words: str) -> Callable[[], object]:
    """A call of the command line in a process of its own."""
    line = [sys.executable, "-m", "cptsel", *words]
    return lambda: subprocess.run(line, check=True, capture_output=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=256)
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        replay, ordered = f"{folder}/replay", f"{folder}/ordered"
        sample, document = make_manifest(Path(replay), args.samples, args.shards)
        order(OrderConfig(replay=replay, out=ordered, epochs=2, world_size=8))
        middle = args.samples // 16
        print(f"{args.samples:,} samples in {args.shards:,} shards, repeats; CPU seconds here, and as a command")
        for name, where in (("without a schedule", replay), ("with a schedule", ordered)):
            for what, names in (("sample_id", sample), ("doc_key", document), ("doc_id", f"d{args.shards // 2}/1")):
                call = least(args.times, lambda w=where, n=names: explain(ExplainConfig(replay=w, sample=n)))
                whole = least(args.times, command("explain", where, names))
                print(f"explain by {what:<9}  {name:<18}  {call:6.2f}  {whole:6.2f}")
            call = least(args.times, lambda w=where: locate(LocateConfig(replay=w, position=middle)))
            whole = least(args.times, command("locate", where, "--position", str(middle)))
            print(f"locate                {name:<18}  {call:6.2f}  {whole:6.2f}")


if __name__ == "__main__":
    main()
