"""An attack on cptsel: how often it was tried, and how often it succeeded, by kind. All of the latter are to be 0.

    python benchmarks/attack.py                      # a minute a kind
    python benchmarks/attack.py --seconds 3600       # an hour a kind
    python benchmarks/attack.py --only corpus run    # some kinds alone

Kinds:

- ``corpus``: JSONL (plain, gzip, zstd) and Parquet with bytes changed, cut, repeated or exchanged are read. It fails
  where anything but a row, a reject or OSError comes out, or a row is neither.
- ``manifest``: a byte of a file of an ordered manifest is changed, or a file cut, deleted or exchanged with another.
  It fails where ``verify`` finds nothing, or ends in anything but its own errors.
- ``run``: the same with an embedding run, and ``verify RUN``.
- ``kill``: ``order`` dies at a random file operation, with and without ``--overwrite``. It fails where half an output
  is marked as finished, or a rerun gives other bytes.

The tests hold the same in small (docs/reliability.md). What failed is printed with the seed that does it again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:  # where select.py would hide the standard module
    sys.path.remove(here)
sys.path.append(os.path.join(os.path.dirname(here), "tests"))  # for what makes small runs and manifests

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from killing import killed, tree
from manifest_builder import build_replay
from run_builder import build_run

from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.config import OrderConfig, VerifyConfig
from cptsel.pipeline.corpus.documents import ReadOptions, read_block, read_stream
from cptsel.pipeline.corpus.shards import inventory
from cptsel.pipeline.errors import CptselError, UsageError, VerificationError
from cptsel.pipeline.order import order
from cptsel.pipeline.verify import verify

Attack = Callable[[random.Random, Path], str | None]
"""One attack in an empty directory; what went wrong, or None."""


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut, put in, repeated or exchanged; never the same as before."""
    while True:
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            at = rng.randrange(max(1, len(changed)))
            kind = rng.randrange(5)
            if kind == 0 and changed:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del changed[at:]
            elif kind == 2:
                changed[at:at] = rng.randbytes(rng.randrange(1, 20))
            elif kind == 3:
                changed[at:at] = changed[: rng.randrange(1, 200)]
            else:
                changed[at : at + 20] = rng.randbytes(20)
        if bytes(changed) != data:
            return bytes(changed)


def corpus(rng: random.Random, folder: Path) -> str | None:
    rows = [{"id": str(i), "text": f"row {i} " * rng.randrange(1, 30), "lang": rng.choice("ab")} for i in range(60)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = folder / rng.choice(("a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"))
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=25, compression=rng.choice(("none", "zstd")))
        lines = path.read_bytes()
    elif path.suffix == ".gz":
        lines = gzip.compress(lines, mtime=0)
    elif path.suffix == ".zst":
        lines = zstandard.ZstdCompressor(write_checksum=True).compress(lines)
    path.write_bytes(mutated(lines, rng))
    options = ReadOptions(group_by=("lang",))
    try:
        shard = inventory(0, str(path), path.name, path.stat().st_size, rng.choice((200, 1 << 20)))
        if shard.blocks is None:
            blocks = list(read_stream(shard, options))
        else:
            blocks = [read_block(shard, block, options) for block in shard.blocks]
    except OSError:
        return None  # named, and counted as failed
    found = [row.row_index for block in blocks for row in (*block.documents, *block.rejects)]
    return None if sorted(found) == list(range(len(found))) else f"rows {found} of {path.name}"


def manifest(rng: random.Random, folder: Path) -> str | None:
    built = build_replay(folder, shards=3, documents=4)
    order(OrderConfig(replay=str(built.replay), out=str(folder / "ordered"), world_size=2))
    return _tampered(folder / "ordered", rng, keep={outputs.STATS, outputs.CONFIG})


def run(rng: random.Random, folder: Path) -> str | None:
    return _tampered(build_run(folder / "run", rows=(20, 30), block_rows=10), rng, keep={outputs.CONFIG, outputs.STATS})


def _tampered(directory: Path, rng: random.Random, keep: set[str]) -> str | None:
    """Change one file of a directory, and see whether ``verify`` says so."""
    names = sorted(set(outputs.list_tree(str(directory))) - keep)
    name, other = rng.choice(names), rng.choice(names)
    path = directory / name
    before = path.read_bytes()
    kind = rng.choice(("mutate", "mutate", "mutate", "delete", "exchange"))
    if kind == "delete":
        path.unlink()
    elif kind == "exchange":
        path.write_bytes((directory / other).read_bytes())
        if path.read_bytes() == before:
            return None
    elif name == outputs.SUCCESS:
        return None  # it is there or not; nothing is in it
    else:
        path.write_bytes(mutated(before, rng))
    try:
        verify(VerifyConfig(replay=str(directory)))
    except (VerificationError, UsageError):
        return None
    if name == outputs.SUCCESS and kind == "exchange":
        return None
    return f"{kind} of {name} was not found"


def kill(rng: random.Random, folder: Path) -> str | None:
    built = build_replay(folder, shards=3, documents=4)
    out = folder / "out"

    def call(where: Path, seed: int, overwrite: bool) -> None:
        order(OrderConfig(replay=str(built.replay), out=str(where), seed=seed, world_size=2, overwrite=overwrite))

    for seed in (1, 2):
        call(folder / str(seed), seed, False)
    overwrite = rng.random() < 0.5
    if overwrite:
        shutil.copytree(folder / "1", out)
    killed(lambda: call(out, 2, overwrite), rng.randrange(60), out)
    left = {name: data for name, data in tree(out).items() if not outputs.temporary_of(name)}
    if outputs.SUCCESS in left and left not in (tree(folder / "1"), tree(folder / "2")):
        return "half an output is marked as finished"
    call(out, 2, outputs.SUCCESS in left)
    return None if tree(out) == tree(folder / "2") else "a rerun gives other bytes"


KINDS: dict[str, Attack] = {"corpus": corpus, "manifest": manifest, "run": run, "kill": kill}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="how long a kind is tried (default 60)")
    parser.add_argument("--only", nargs="+", choices=sorted(KINDS), help="kinds; all by default")
    parser.add_argument("--seed", type=int, default=0, help="the first seed; each attack takes the next")
    args = parser.parse_args()
    failed_at_all = 0
    print(f"{'kind':<10}{'tried':>8}{'failed':>8}", flush=True)
    for name in args.only or KINDS:
        tried = failed = 0
        seed, end = args.seed, time.monotonic() + args.seconds
        while time.monotonic() < end:
            with tempfile.TemporaryDirectory(prefix="cptsel-attack-") as folder:
                try:
                    wrong = KINDS[name](random.Random(seed), Path(folder))
                except CptselError as error:
                    wrong = f"{type(error).__name__}: {error}"
                except Exception as error:
                    wrong = f"internal error {type(error).__name__}: {error}"
            if wrong:
                failed += 1
                print(f"  {name} --seed {seed}: {wrong}", file=sys.stderr, flush=True)
            tried, seed = tried + 1, seed + 1
        print(f"{name:<10}{tried:>8}{failed:>8}", flush=True)
        failed_at_all += failed
    return 1 if failed_at_all else 0


if __name__ == "__main__":
    sys.exit(main())
