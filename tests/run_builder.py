"""Small synthetic embedding runs, written straight to disk in the layout of schemas/arrow.py: no model, no corpus."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.run import unit_name
from cptsel.pipeline.artifacts.seal import SEAL_COLUMNS, read_seal, sealed
from cptsel.pipeline.hashing import content_hash, doc_key, fingerprint, sample_id
from cptsel.schemas.arrow import COUNT_COLUMNS, REJECTS, RUN_SHARDS, UNITS, embeddings_schema
from cptsel.schemas.validation import validate

#: A run.json that is valid and of no run.
HEADER = {
    "format": "cptsel.run",
    "spec_version": 1,
    "fingerprints": {"weights": "a" * 64, "tokenizer": "b" * 64, "corpus": "c" * 64, "projection": "d" * 64},
    "model": {
        "source": "models/base",
        "revision": None,
        "class": "LlamaForCausalLM",
        "vocab_size": 32000,
        "hidden_size": 64,
        "dtype": "float32",
        "head": {"tied": True, "bias": False, "scale": None, "softcap": 30.0},
        "bos": "eos",
    },
    "projection": {
        "gradient": "head",
        "modules": None,
        "seed": 0,
        "format_version": 1,
        "k": 1024,
        "k_v": 256,
        "validation": {"k": 256, "k_v": 251},
    },
    "options": {"max_tokens": 512},
    "norm_kind": "sketch",
    "corpus": {"root": "corpus", "shards": 3, "bytes": 12},
    "packages": {"torch": "2.13"},
}

K, K_VAL = 12, 6
#: Samples of the shards of the run that most tests of selections share.
ROWS = (90, 60, 0, 130)

LANGUAGES = ("de", "en", None, "uk")


def build_run(
    directory: Path,
    rows: Sequence[int] = (60, 40, 0, 80),
    *,
    seed: int = 0,
    block_rows: int = 25,
    storage: str = "float16",
    group_by: Sequence[str] = ("language",),
    languages: Sequence[str | None] = LANGUAGES,
    prefix: str = "",
    pool: bool = False,
    drift: float = 0.0,
    header: dict[str, Any] | None = None,
) -> Path:
    """Write a finished run.

    Every row is a function of (seed, prefix, shard, row) alone, so runs that differ in ``block_rows`` hold the same
    samples. Gradients lie in clusters, languages differ in share, every third document has two windows.

    Args:
        directory: where to write.
        rows: samples of each shard; 0 makes a shard from which nothing was embedded.
        block_rows: samples of each embedding file.
        languages: values of the group column, falling in share; None is a null.
        prefix: folder of the shards below the root, so that several runs are disjoint.
        pool: give each sample a pool_prob below 1.
        drift: how far the model has moved since: gradients and losses of the same samples, by cluster, under other
            weights.
        header: top-level fields of run.json to replace.
    """
    schema = embeddings_schema(K, K_VAL, storage, list(group_by))
    shard_rows, unit_rows = [], []
    for shard_id, count in enumerate(rows):
        path = f"{prefix}{shard_id:03d}.jsonl"
        samples = make_samples(seed, shard_id, path, count, languages, pool, drift)
        for block in range(max(1, -(-count // block_rows))):
            part = samples[block * block_rows : (block + 1) * block_rows]
            unit_rows.append(_write_unit(directory, shard_id, block, part, schema, storage))
        shard_rows.append(_shard_row(shard_id, path, samples))
    io.write_parquet(str(directory / "shards.parquet"), pa.Table.from_pylist(shard_rows, RUN_SHARDS))
    io.write_parquet(str(directory / "units.parquet"), pa.Table.from_pylist(unit_rows, UNITS))
    totals: dict[str, Any] = {name: sum(unit[name] for unit in unit_rows) for name in COUNT_COLUMNS}
    whole = run_header(len(rows), storage, group_by) | {"totals": totals | {"rejects": {}}} | (header or {})
    if drift:
        whole["fingerprints"] = whole["fingerprints"] | {"weights": fingerprint(drift)}
    validate(whole, "run")
    io.write_json(str(directory / "run.json"), whole)
    reseal_run(directory)
    io.write_bytes(str(directory / "_SUCCESS"), b"")
    return directory


def _write_unit(
    directory: Path, shard_id: int, block: int, samples: list[dict[str, Any]], schema: pa.Schema, storage: str
) -> dict[str, Any]:
    """Write the files of a block; returns its row of units.parquet, without checksums."""
    name = unit_name(shard_id, block)
    write_block(directory / "embeddings" / name, samples, schema, storage)
    io.write_parquet(str(directory / "rejects" / name), REJECTS.empty_table())
    counts = dict.fromkeys(COUNT_COLUMNS, 0)
    counts |= dict.fromkeys(("rows_read", "rows_kept", "windows", "windows_embedded"), len(samples))
    counts |= {"tokens": sum(s["token_count"] for s in samples), "n_tokens": sum(s["n_tokens"] for s in samples)}
    return {"shard_id": shard_id, "block": block} | counts | dict.fromkeys(SEAL_COLUMNS, "") | {"bytes": 0}


def _shard_row(shard_id: int, path: str, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A shard's row of shards.parquet."""
    return {
        "shard_id": shard_id, "uri": f"/corpus/{path}", "path": path, "format": "jsonl", "compression": "none",
        "bytes": 1000 * len(samples), "sha256": fingerprint(path), "rows": len(samples),
        "tokens": sum(s["token_count"] for s in samples), "bytes_lost": 0,
    }  # fmt: skip


def reseal_run(directory: Path) -> None:
    """Make the checksums of a run those of what is in it now, as if it had been embedded so."""
    units = io.read_parquet(str(directory / "units.parquet")).to_pylist()
    units = [unit | read_seal(str(directory), unit_name(unit["shard_id"], unit["block"])) for unit in units]
    io.write_parquet(str(directory / "units.parquet"), pa.Table.from_pylist(units, UNITS))
    io.write_json(str(directory / "run.json"), sealed(str(directory), io.read_json(str(directory / "run.json"))))


def run_header(shards: int, storage: str, group_by: Sequence[str]) -> dict[str, Any]:
    """A whole ``run.json``."""
    return {
        "format": "cptsel.run", "spec_version": 2,
        "fingerprints": {name: fingerprint(name) for name in ("weights", "tokenizer", "corpus", "projection")},
        "model": {
            "source": "tiny", "revision": None, "class": "Tiny", "vocab_size": 100, "hidden_size": 8,
            "dtype": "float32", "bos": "none", "head": {"tied": True, "bias": False, "scale": None, "softcap": None},
        },
        "projection": {
            "gradient": "head", "modules": None, "seed": 0, "format_version": 1, "k": K, "k_v": 4,
            "validation": {"k": K_VAL, "k_v": 3},
        },
        "options": {
            "text_field": "text", "id_field": "id", "group_by": list(group_by), "max_tokens": 64, "storage": storage,
            "block_bytes": 1000, "seed": 0,
        },
        "norm_kind": "sketch", "corpus": {"root": "/corpus", "shards": shards, "bytes": 1}, "packages": {},
    }  # fmt: skip


def make_samples(
    seed: int,
    shard_id: int,
    path: str,
    count: int,
    languages: Sequence[str | None],
    pool: bool,
    drift: float = 0.0,
) -> list[dict[str, Any]]:
    """Rows of one shard as plain dicts; vectors are float64 arrays."""
    shared = np.random.default_rng(seed)
    centres = shared.normal(size=(6, K))
    moves, project = shared.normal(size=(6, K)), shared.normal(size=(K, K_VAL)) / np.sqrt(K_VAL)
    rng = np.random.default_rng([seed, shard_id, *path.encode()])
    share = np.arange(len(languages), 0, -1.0)
    samples = []
    row, window = 0, 0
    for _ in range(count):
        n_tokens = int(rng.integers(4, 64))
        cluster = int(rng.integers(len(centres)))
        gradient = n_tokens * (centres[cluster] + 0.2 * rng.normal(size=K) + drift * moves[cluster])
        norm = float(np.linalg.norm(gradient))
        validation = gradient @ project
        loss = 3.0 + 0.1 * cluster + drift * (cluster - 2.5)  # rises in half of the clusters, falls in the others
        key = doc_key(path, row)
        samples.append(
            {
                "sample_id": sample_id(key, 50 * window, 50 * window + 50), "doc_key": key, "doc_id": f"{path}#{row}",
                "shard_id": shard_id, "row_index": row, "window": window, "byte_offset": 100 * row, "byte_length": 99,
                "char_start": 50 * window, "char_end": 50 * window + 50, "token_start": 64 * window,
                "token_count": n_tokens, "n_tokens": n_tokens, "content_hash": content_hash(f"{key}{window}".encode()),
                "pool_prob": float(rng.choice([0.25, 0.5])) if pool else 1.0,
                "language": languages[int(rng.choice(len(languages), p=share / share.sum()))],
                "source": "web" if row % 2 else "books",
                "loss_sum": loss * n_tokens, "grad_norm": norm, "sketch_norm": norm,
                "validation_norm": float(np.linalg.norm(validation)), "direction": gradient / norm,
                "validation": validation / np.linalg.norm(validation),
            }
        )  # fmt: skip
        if row % 3 == 0 and window == 0:
            window = 1
        else:
            row, window = row + 1, 0
    return samples


def write_block(path: Path, samples: list[dict[str, Any]], schema: pa.Schema, storage: str) -> None:
    """Write one embedding file."""
    arrays = []
    for field in schema:
        if field.name == "direction_scale":
            values: list[Any] = [float(np.abs(s["direction"]).max() / 127) for s in samples]
        elif field.name == "direction" and storage == "int8":
            values = [np.round(s["direction"] / np.abs(s["direction"]).max() * 127).astype(np.int8) for s in samples]
        elif field.name in ("direction", "validation"):
            values = [s[field.name].astype(np.float16) for s in samples]
        else:
            values = [s[field.name] for s in samples]
        if pa.types.is_fixed_size_list(field.type):
            flat = np.concatenate(
                [np.zeros(0, np.float16 if field.type.value_type == pa.float16() else np.int8), *values]
            )
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat, field.type.value_type), type=field.type))
        elif pa.types.is_dictionary(field.type):
            arrays.append(pa.array(values, pa.string()).dictionary_encode().cast(field.type))
        else:
            arrays.append(pa.array(values, field.type))
    io.write_parquet(str(path), pa.Table.from_arrays(arrays, schema=schema))
