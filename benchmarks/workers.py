"""What a second worker brings: tokens a second of ``cptsel embed`` by the number of workers, start-up apart.

    python benchmarks/workers.py                     # sample_data, one worker and two
    python benchmarks/workers.py --corpus 'old/*/*' --model MODEL --workers 1 2 4 --documents 20000

The documents are dealt out to shards of equal size. The command runs on a fifth of the shards and on all of them, with
one thread a worker; what the difference took tells tokens a second beyond the start. Times are of the clock, so
nothing else should run.
"""

from __future__ import annotations

import os
import sys

if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:  # where select.py would hide the standard module
    sys.path.remove(here)

import argparse
import glob
import gzip
import json
import subprocess
import tempfile
import time
from itertools import islice, zip_longest
from pathlib import Path

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"


def main() -> None:
    """Deal out, embed, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default=str(SAMPLE / "tiny-lm"))
    parser.add_argument("--corpus", default=str(SAMPLE / "old/*/*.jsonl.gz"), help="glob of JSONL files, gzip or plain")
    parser.add_argument("--documents", type=int, default=2_000, help="so many of the corpus at most (default 2,000)")
    parser.add_argument("--shards", type=int, default=40, help="to deal them out to (default 40)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2], help="others are compared to the first (default 1 2)"
    )
    parser.add_argument("--max-tokens", default="256")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cptsel-workers-") as folder:
        deal(args.corpus, args.documents, args.shards, Path(folder))
        print(f"{'workers':>8}{'tokens':>12}{'seconds':>9}{'tokens':>12}{'seconds':>9}{'tokens/s':>10}", flush=True)
        for _ in range(args.rounds):
            first = 0.0
            for workers in args.workers:
                few = embedded(args, Path(folder), "shard-*[05].jsonl", workers)
                many = embedded(args, Path(folder), "shard-*.jsonl", workers)
                rate = (many[0] - few[0]) / (many[1] - few[1])
                first = first or rate
                line = f"{workers:>8}{few[0]:>12,}{few[1]:>9.1f}{many[0]:>12,}{many[1]:>9.1f}{rate:>10,.0f}"
                print(f"{line}  {rate / first:.2f} x", flush=True)


def deal(pattern: str, documents: int, shards: int, folder: Path) -> None:
    """Write the first documents of the corpus, each file in turn, as shards of about as many bytes each."""
    files = [(gzip.open if path.endswith(".gz") else open)(path, "rb") for path in sorted(glob.glob(pattern))]
    turns = (line for lines in zip_longest(*files) for line in lines if line)
    dealt: list[list[bytes]] = [[] for _ in range(shards)]
    sizes = [0] * shards
    for line in sorted(islice(turns, documents), key=len, reverse=True):
        least = sizes.index(min(sizes))
        dealt[least].append(line)
        sizes[least] += len(line)
    for number, lines in enumerate(dealt):
        Path(folder, f"shard-{number:05d}.jsonl").write_bytes(b"".join(lines))


def embedded(args: argparse.Namespace, folder: Path, shards: str, workers: int) -> tuple[int, float]:
    """Tokens and seconds of one command."""
    command = [sys.executable, "-m", "cptsel", "embed", f"{folder}/{shards}", "--model", args.model]
    command += ["--max-tokens", args.max_tokens, "--workers", str(workers), "--threads", "1"]
    command += ["--out", f"{folder}/run", "--overwrite", "--json"]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(done.stdout)["totals"]["tokens"], time.perf_counter() - start


if __name__ == "__main__":
    main()
