"""What a candidate pool costs: CPU time of ``cptsel embed --pool`` beside that of embedding everything.

    python benchmarks/pool.py                        # sample_data, 2 %
    python benchmarks/pool.py --corpus 'old/*/*' --model MODEL --pool 1%

The corpus is copied as gzip, plain JSONL and Parquet. Each copy is embedded as a pool, the first one also whole, all by
commands of their own: start, reading and hashing count. ``--share S`` embeds a pool of that share in place of the whole
corpus, and its CPU time, less that of a pool of nothing much, is scaled up: for corpora that take too long.
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
import resource
import subprocess
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"


def main() -> None:
    """Copy, embed, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default=str(SAMPLE / "tiny-lm"))
    parser.add_argument("--corpus", default=str(SAMPLE / "old/*/*.jsonl.gz"), help="glob of JSONL files, gzip or plain")
    parser.add_argument("--pool", default="2%")
    parser.add_argument("--share", default="100%", help="embedded in place of the whole corpus, and scaled up")
    parser.add_argument("--max-tokens", default="256")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cptsel-pool-") as folder:
        places = copies(args.corpus, Path(folder))
        print(f"{'corpus':<12}{'pool':>8}{'rows':>10}{'samples':>10}{'CPU s':>10}{'of all':>9}", flush=True)
        whole = embedded(args, Path(folder), places["jsonl.gz"], args.share)
        everything = whole["cpu"]
        if args.share != "100%":
            least = embedded(args, Path(folder), places["jsonl.gz"], "0.01%")
            each = (whole["cpu"] - least["cpu"]) / max(1, whole["kept"] - least["kept"])
            everything = least["cpu"] + each * whole["rows"]
        show("jsonl.gz", args.share, whole, everything)
        for name, pattern in places.items():
            show(name, args.pool, embedded(args, Path(folder), pattern, args.pool), everything)


def copies(pattern: str, folder: Path) -> dict[str, str]:
    """Globs of copies of the corpus, by format."""
    for number, path in enumerate(sorted(glob.glob(pattern))):
        data = Path(path).read_bytes()
        data = gzip.decompress(data) if path.endswith(".gz") else data
        rows = [json.loads(line) for line in data.splitlines()]
        table = pa.table({"id": [str(row.get("id")) for row in rows], "text": [row["text"] for row in rows]})
        for name in ("jsonl.gz", "jsonl", "parquet"):
            place = folder / name / f"{number:05d}.{name}"
            place.parent.mkdir(exist_ok=True)
            if name == "parquet":
                pq.write_table(table, place, row_group_size=1000)
            else:
                place.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    return {name: f"{folder}/{name}/*" for name in ("jsonl.gz", "jsonl", "parquet")}


def embedded(args: argparse.Namespace, folder: Path, pattern: str, pool: str) -> dict[str, float]:
    """Rows, samples and CPU seconds of one command."""
    out = folder / "run"
    command = [sys.executable, "-m", "cptsel", "embed", pattern, "--model", args.model, "--max-tokens", args.max_tokens]
    command += ["--out", str(out), "--overwrite", "--json", *([] if pool == "100%" else ["--pool", pool])]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    totals = json.loads(done.stdout)["totals"]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"rows": totals["rows read"], "kept": totals["rows kept"], "samples": totals["samples"], "cpu": cpu}


def show(name: str, pool: str, found: dict[str, float], everything: float) -> None:
    """One line."""
    counts = f"{found['kept']:>10,.0f}{found['samples']:>10,.0f}"
    print(f"{name:<12}{pool:>8}{counts}{found['cpu']:>10.1f}{found['cpu'] / everything:>9.1%}", flush=True)


if __name__ == "__main__":
    main()
