"""Commands that read a whole run or manifest, by the number of shards: time and memory of the driver.

    python benchmarks/run_directory.py --shards 1000 10000 100000
    python benchmarks/run_directory.py --shards 100000 --blocks 10 --hollow --only inspect
    python benchmarks/run_directory.py --shards 1000000 --hollow --only order
    python benchmarks/run_directory.py --shards 25 100 400 --rows 20000 --only "select half" "verify half"

Makes embedding runs of so many shards, of a few samples with tiny sketches, and manifests of so many shards, through
the writers of cptsel; then runs ``inspect``, ``select --dry-run``, ``select``, ``order --dry-run`` and ``order``, each
in a process of its own. *Half* is a selection of half of the samples, with repeats and a curriculum, and its check by
``verify``. Prints one JSON line a command. The directories are made where ``--work`` says, and deleted unless it is
given. With ``--hollow`` all files of a run have the bytes of the first, and so have those of a manifest: they are soon
made, as links to few files, and may only be listed, as ``inspect`` does, or taken over, as by ``order``.
"""

from __future__ import annotations

import os
import sys

if (here := os.path.dirname(os.path.abspath(__file__))) in sys.path:  # where select.py would hide the standard module
    sys.path.remove(here)

import argparse
import json
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import SHARDS, finish_manifest, load_manifest, samples_name
from cptsel.pipeline.artifacts.outputs import sha256
from cptsel.pipeline.artifacts.run import unit_name
from cptsel.pipeline.artifacts.seal import SEAL_COLUMNS, seal_of, sealed
from cptsel.pipeline.hashing import content_hash, doc_key, fingerprint, sample_id
from cptsel.pipeline.selection.reading.kept import keep_cells
from cptsel.schemas.arrow import (
    COUNT_COLUMNS,
    REJECTS,
    REPLAY_SHARDS,
    RUN_SHARDS,
    RUN_VERSION,
    SAMPLES,
    UNITS,
    VISITS,
    embeddings_schema,
)

GROUPS = ("de", "en", "uk")
K, K_VAL = 8, 4
LINKS = 30_000  # of one file: ext4 takes 65,000
SELECT_HALF = ["select", "{run}", "--method", "uniform", "--group-by", "lang", "--budget", "50%",
               "--realisation", "repeat", "--curriculum", "norm", "--curriculum-buckets", "10", "--skip-residuals",
               "--out", "{out}", "--json"]  # fmt: skip
COMMANDS = {
    "inspect": ("run", ["inspect", "{run}", "--json"]),
    "select --dry-run": ("run", ["select", "{run}", "--method", "uniform", "--group-by", "lang", "--budget", "10%",
                                 "--out", "{out}", "--dry-run", "--json"]),
    "select": ("run", ["select", "{run}", "--method", "uniform", "--budget", "1%", "--skip-residuals", "--out", "{out}",
                       "--json"]),
    "select half": ("run", SELECT_HALF),
    "verify half": ("half", ["verify", "{half}", "--json"]),
    "order --dry-run": ("replay", ["order", "{replay}", "--world-size", "8", "--out", "{out}", "--dry-run", "--json"]),
    "order": ("replay", ["order", "{replay}", "--world-size", "8", "--out", "{out}", "--json"]),
}  # fmt: skip


def header(shards: int) -> dict[str, Any]:
    """``run.json`` of a run that no model made."""
    return {
        "format": "cptsel.run",
        "spec_version": RUN_VERSION,
        "fingerprints": {name: fingerprint(name) for name in ("weights", "tokenizer", "corpus", "projection")},
        "model": {
            "source": "none", "revision": None, "class": "None", "vocab_size": 100, "hidden_size": 8,
            "dtype": "float32", "bos": "none", "head": {"tied": True, "bias": False, "scale": None, "softcap": None},
        },
        "projection": {
            "gradient": "head", "modules": None, "seed": 0, "format_version": 1, "k": K, "k_v": 4,
            "validation": {"k": K_VAL, "k_v": 3},
        },
        "options": {"text_field": "text", "id_field": "id", "group_by": ["lang"], "max_tokens": 64,
                    "storage": "float16", "block_bytes": 1000, "pool": None},
        "norm_kind": "sketch",
        "corpus": {"root": "/corpus", "shards": shards, "bytes": 1000 * shards},
        "packages": {},
    }  # fmt: skip


def make_run(directory: Path, shards: int, blocks: int, rows: int, hollow: bool = False) -> None:
    """A finished run of ``shards`` · ``blocks`` units of ``rows`` samples each."""
    schema = embeddings_schema(K, K_VAL, "float16", ["lang"])
    rejects = io.parquet_bytes(REJECTS.empty_table())
    units: dict[str, list[Any]] = {name: [] for name in UNITS.names}
    seal = None
    for kind in ("embeddings", "rejects"):
        (directory / kind).mkdir(parents=True)
    first = io.parquet_bytes(unit_rows(0, 0, rows, schema))
    if hollow:
        names = [unit_name(shard, block) for shard in range(shards) for block in range(blocks)]
        make_copies(directory / "embeddings", names, first)
        make_copies(directory / "rejects", names, rejects)
    for shard in range(shards):
        for block in range(blocks):
            embeddings = first if hollow else io.parquet_bytes(unit_rows(shard, block, rows, schema))
            name = unit_name(shard, block)
            if not hollow:
                (directory / "embeddings" / name).write_bytes(embeddings)
                (directory / "rejects" / name).write_bytes(rejects)
            counts = dict.fromkeys(COUNT_COLUMNS, 0) | dict.fromkeys(("rows_read", "rows_kept", "windows"), rows)
            counts |= {"windows_embedded": rows, "tokens": 40 * rows, "n_tokens": 40 * rows}
            seal = seal_of(embeddings, rejects) if not hollow or seal is None else seal
            unit = {"shard_id": shard, "block": block} | counts | {name: seal[name] for name in SEAL_COLUMNS}
            for key, value in unit.items():
                units[key].append(value)
    totals: dict[str, Any] = {name: sum(units[name]) for name in COUNT_COLUMNS}
    io.write_parquet(str(directory / "units.parquet"), pa.table(units, schema=UNITS))
    io.write_parquet(str(directory / "shards.parquet"), shards_table(shards, rows * blocks))
    whole = header(shards) | {"totals": totals | {"rejects": {}, "shards_damaged": 0}}
    if not hollow:
        keep_cells(str(directory), whole)  # type: ignore[arg-type]
    io.write_json(str(directory / "run.json"), sealed(str(directory), whole))  # type: ignore[arg-type]
    io.write_bytes(str(directory / "config.yaml"), b"# cptsel embed: none\n")
    io.write_bytes(str(directory / "_SUCCESS"), b"")


def make_copies(directory: Path, names: list[str], data: bytes) -> None:
    """Files with the same bytes: links to few files, so that whoever links them once more may."""
    for number, name in enumerate(names):
        if number % LINKS == 0:
            (first := directory / name).write_bytes(data)
        else:
            os.link(first, directory / name)


def shards_table(shards: int, rows: int) -> pa.Table:
    paths = [path_of(shard) for shard in range(shards)]
    columns = {
        "shard_id": range(shards), "uri": [f"/corpus/{path}" for path in paths], "path": paths,
        "format": ["jsonl"] * shards, "compression": ["none"] * shards, "bytes": [1000] * shards,
        "sha256": [f"{shard:064x}" for shard in range(shards)], "rows": [rows] * shards,
        "tokens": [40 * rows] * shards, "bytes_lost": [0] * shards,
    }  # fmt: skip
    return pa.table({name: pa.array(list(values)) for name, values in columns.items()}).cast(RUN_SHARDS)


def path_of(shard: int) -> str:
    """Below the root."""
    return f"lang={GROUPS[shard % 3]}/part-{shard:08d}.jsonl"


def locators(shard: int, block: int, rows: int) -> dict[str, Any]:
    """Locator columns of a unit."""
    numbers = range(block * rows, (block + 1) * rows)
    keys = [doc_key(path_of(shard), number) for number in numbers]
    return {
        "sample_id": [sample_id(key, 0, 100) for key in keys],
        "doc_key": keys,
        "doc_id": [None] * rows,
        "shard_id": [shard] * rows,
        "row_index": list(numbers),
        "window": [0] * rows,
        "byte_offset": [100 * number for number in numbers],
        "byte_length": [99] * rows,
        "char_start": [0] * rows,
        "char_end": [100] * rows,
        "token_start": [0] * rows,
        "token_count": [40] * rows,
        "n_tokens": [40] * rows,
        "content_hash": [content_hash(key.encode()) for key in keys],
    }


def unit_rows(shard: int, block: int, rows: int, schema: pa.Schema) -> pa.Table:
    """Rows of a unit; sketches are drawn."""
    draw = np.random.default_rng([shard, block])
    norm = draw.uniform(1, 3, rows).astype(np.float32)

    def unit_vectors(k: int) -> pa.Array:
        x = draw.normal(size=(rows, k))
        return pa.array((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16).ravel())

    columns = locators(shard, block, rows) | {
        "pool_prob": [1.0] * rows, "lang": pa.array([GROUPS[shard % 3]] * rows).dictionary_encode(),
        "loss_sum": norm * 40, "grad_norm": norm, "sketch_norm": norm, "validation_norm": norm,
    }  # fmt: skip
    for name, k in (("direction", K), ("validation", K_VAL)):
        columns[name] = pa.FixedSizeListArray.from_arrays(unit_vectors(k), type=schema.field(name).type)
    arrays = [
        values if isinstance(values, pa.Array) and not pa.types.is_dictionary(field.type)
        else values.cast(field.type) if isinstance(values, pa.Array) else pa.array(values, field.type)
        for field in schema for values in [columns[field.name]]
    ]  # fmt: skip
    return pa.Table.from_arrays(arrays, schema=schema)


def make_replay(directory: Path, shards: int, rows: int, work: Path, hollow: bool = False) -> None:
    """A finished manifest with ``rows`` picks of each shard, whose header is that of a small selection."""
    small = work / "small"
    make_run(small / "run", 30, 1, rows)
    command = [sys.executable, "-m", "cptsel", "select", str(small / "run"), "--method", "uniform", "--budget", "50%"]
    subprocess.run([*command, "--out", str(small / "replay")], check=True, stdout=subprocess.DEVNULL)
    manifest = load_manifest(str(small / "replay"))
    (directory / "samples").mkdir(parents=True)
    word = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["all"]))
    known = {}
    for shard in range(1 if hollow else shards):
        columns = locators(shard, 0, rows) | {
            "weight": [1.0] * rows, "inclusion_prob": [1.0] * rows, "loss_weight": [1.0] * rows, "repeat": [1] * rows,
            "phase": [0] * rows, "order_rank": list(range(shard * rows, shard * rows + rows)), "group": word,
            "method": word, "grad_norm": [1.0 + shard % 7] * rows, "score": [None] * rows,
        }  # fmt: skip
        arrays = [
            values if isinstance(values, pa.Array) else pa.array(values, field.type)
            for field in SAMPLES
            for values in [columns[field.name]]
        ]
        data = io.parquet_bytes(pa.Table.from_arrays(arrays, schema=SAMPLES))
        (directory / samples_name(shard)).write_bytes(data)
    if hollow:
        names = [samples_name(shard) for shard in range(shards)]
        make_copies(directory, names[1:], data)
        known = {name: {"sha256": sha256(data), "bytes": len(data), "rows": rows} for name in names}
    table = shards_table(shards, rows)
    counts = {"samples": [rows] * shards, "tokens": [40 * rows] * shards, "mass": [40.0 * rows] * shards}
    more = {f"{of}_{name}": values for of in ("population", "selected") for name, values in counts.items()}
    more |= {"replay_tokens": counts["tokens"]} | {name: [None] * shards for name in ("q", "priority", "order")}
    fields = {**{name: table[name] for name in table.column_names if name in REPLAY_SHARDS.names}, **more}
    pairs = [(fields[field.name], field) for field in REPLAY_SHARDS]
    arrays = [a if isinstance(a, pa.ChunkedArray) else pa.array(a, f.type) for a, f in pairs]
    table = pa.Table.from_arrays(arrays, schema=REPLAY_SHARDS)
    visit = {"phase": 0, "t": 40.0 * rows, "samples": [rows], "tokens": [40 * rows]}
    visits = [[visit | {"x": rows * (1.0 + shard % 7)}] for shard in range(shards)]
    io.write_parquet(str(directory / SHARDS), table.append_column(VISITS, pa.array(visits, VISITS.type)))
    body = {k: v for k, v in manifest.header.items() if k not in ("format", "spec_version", "manifest_id", "files")}
    finish_manifest(str(directory), body, "", {"seconds": 0.0}, known=known)  # type: ignore[arg-type]


def measure(command: list[str]) -> dict[str, Any]:
    """Time and peak memory of a command, in a process of its own."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "cptsel", *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"cptsel {' '.join(command)}: exit code {os.waitstatus_to_exitcode(status)}")
    return {
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": usage.ru_maxrss >> 10,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shards", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--blocks", type=int, default=1, help="of a shard")
    parser.add_argument("--rows", type=int, default=2, help="samples of a block, picks of a shard")
    parser.add_argument("--hollow", action="store_true", help="all files have the bytes of the first")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--work", type=Path, help="directory to keep, and to take what is there from")
    args = parser.parse_args()
    os.fsync = lambda _: None  # of files that are made here alone
    work = args.work or Path(tempfile.mkdtemp(prefix="cptsel-"))
    try:
        for shards in args.shards:
            places = {
                "run": work / f"run-{shards}-{args.blocks}{'-hollow' * args.hollow}",
                "replay": work / f"replay-{shards}{'-hollow' * args.hollow}",
                "half": work / f"half-{shards}-{args.blocks}",
                "out": work / "out",
            }
            needed = [COMMANDS[command][0] for command in args.only]
            for name in dict.fromkeys(["run"] * ("half" in needed) + needed):
                if not places[name].exists():
                    began = time.monotonic()
                    if name == "run":
                        make_run(places[name], shards, args.blocks, args.rows, args.hollow)
                    elif name == "half":
                        measure([word.format(**(places | {"out": places["half"]})) for word in SELECT_HALF])
                    else:
                        make_replay(places[name], shards, args.rows, work / f"for-{shards}", args.hollow)
                    print(json.dumps({"made": name, "shards": shards, "seconds": round(time.monotonic() - began, 1)}))
            for command in args.only:
                shutil.rmtree(places["out"], ignore_errors=True)
                words = [word.format(**places) for word in COMMANDS[command][1]]
                line = {"command": command, "shards": shards, "blocks": shards * args.blocks, "rows": args.rows}
                print(json.dumps(line | measure(words) | {"load": round(os.getloadavg()[0], 1)}), flush=True)
    finally:
        shutil.rmtree(work / "out", ignore_errors=True)
        if args.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    print(json.dumps({"cpus": os.cpu_count(), "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0]}))
    main()
