"""Checksums of an embedding run: of its small files in ``run.json``, of every file of embeddings in ``units.parquet``.

A run is opened often and may be terabytes. So the small files are hashed whenever it is opened. A file of embeddings is
held against its size and the hash of its Parquet footer, which has the place and the statistics of every column; what
lies between is covered by the checksums of its pages. ``verify`` hashes all of it.
"""

import hashlib
import os
from io import BytesIO
from typing import Any, BinaryIO, cast

import rfc8785

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.schemas.headers import RunHeader

#: Columns of ``units.parquet`` that name files by what is in them.
SEAL_COLUMNS = ("bytes", "sha256", "footer_sha256", "rejects_sha256")

#: Files whose checksums stand in ``run.json``.
SMALL_FILES = ("shards.parquet", "units.parquet")

#: Another one, which a run need not have.
CELLS_FILE = "cells.parquet"

_TAIL = 8  # bytes at the end of a Parquet file: length of the footer, and the magic


def run_id(header: RunHeader) -> str:
    """SHA-256, in hex, of ``run.json``'s RFC 8785 canonical form without the field ``run_id``."""
    return hashlib.sha256(rfc8785.dumps({k: cast(Any, v) for k, v in header.items() if k != "run_id"})).hexdigest()


def sealed(directory: str, header: RunHeader) -> RunHeader:
    """The header of a finished run with the checksums of its small files and its id."""
    kept = [CELLS_FILE] if io.exists(io.join(directory, CELLS_FILE)) else []
    sums = outputs.hash_files(directory, [*SMALL_FILES, *kept])
    whole = header | {"files": {name: {"sha256": digest, "bytes": size} for name, (digest, size) in sums.items()}}
    return whole | {"run_id": run_id(whole)}


def broken_small_files(directory: str, header: RunHeader) -> list[str]:
    """What is wrong with ``run.json`` or the small files of a finished run, one phrase each, the file first."""
    if "run_id" not in header or "files" not in header:
        return ["run.json has no checksums, as those of an older cptsel"]
    if run_id(header) != header["run_id"]:
        return ["run.json was changed after it was written: run_id does not match"]
    broken = []
    for name in (*SMALL_FILES, *([CELLS_FILE] if CELLS_FILE in header["files"] else [])):
        if not io.exists(io.join(directory, name)):
            broken.append(f"{name} is missing")
        elif outputs.hash_file(io.join(directory, name))[0] != header["files"][name]["sha256"]:
            broken.append(f"{name} is not what was written: its SHA-256 does not match")
    return broken


def seal_of(embeddings: bytes, rejects: bytes) -> dict[str, Any]:
    """The columns of ``units.parquet`` that name the two files of a unit by what is in them."""
    return {
        "bytes": len(embeddings),
        "sha256": outputs.sha256(embeddings),
        "footer_sha256": footer_sha256(BytesIO(embeddings)),
        "rejects_sha256": outputs.sha256(rejects),
    }


def read_seal(directory: str, name: str) -> dict[str, Any]:
    """``seal_of`` the two files of a unit, whose name is ``name`` in both folders."""
    return seal_of(*(io.read_bytes(io.join(directory, kind, name)) for kind in ("embeddings", "rejects")))


def footer_sha256(handle: BinaryIO) -> str:
    """SHA-256, in hex, of the footer of an open Parquet file; of what stands there where it is none."""
    size = handle.seek(0, os.SEEK_END)
    handle.seek(max(0, size - _TAIL))
    length = int.from_bytes(handle.read(_TAIL)[:4], "little")
    handle.seek(max(0, size - _TAIL - length))
    return outputs.sha256(handle.read())
