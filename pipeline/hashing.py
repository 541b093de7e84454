"""The hashes that name things: documents, samples, contents, uniform variates and fingerprints."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np


def _blake(*parts: bytes) -> "hashlib.blake2b":
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:  # length-prefixed, so that ("ab", "c") and ("a", "bc") differ
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest


def doc_key(path: str, row_index: int) -> str:
    """Name of a document: BLAKE2b-128, in hex, of its shard's path relative to the corpus root and its physical row."""
    return _blake(path.encode(), row_index.to_bytes(8, "little")).hexdigest()


def sample_id(key: str, start: int, end: int) -> str:
    """Name of a window: BLAKE2b-128, in hex, of its document's key and its span in code points (or tokens)."""
    return _blake(key.encode(), start.to_bytes(8, "little"), end.to_bytes(8, "little")).hexdigest()


def content_hash(data: bytes) -> bytes:
    """BLAKE2b-128 of a window's UTF-8 bytes: 16 bytes. No prefix is hashed with them, so any reader can check it."""
    return hashlib.blake2b(data, digest_size=16).digest()


def uniform(seed: int, purpose: str, keys: Iterable[str]) -> np.ndarray:
    """Uniform variates in (0, 1], one a key, float64: a function of (seed, purpose, key) and nothing else.

    The top 53 bits of an 8-byte BLAKE2b (little-endian) of ``seed NUL purpose NUL key``, plus one, times 2**-53: 0
    never occurs, 1 may.
    """
    return np.asarray([variate(seed, purpose, key) for key in keys], dtype=np.float64)


def variate(seed: int, purpose: str, key: str) -> float:
    """One of ``uniform``'s."""
    digest = hashlib.blake2b(f"{seed}\0{purpose}\0{key}".encode(), digest_size=8).digest()
    return ((int.from_bytes(digest, "little") >> 11) + 1) * 2.0**-53


def fingerprint(value: Any) -> str:
    """SHA-256, in hex, of a JSON value's canonical form (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
