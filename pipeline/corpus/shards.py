"""What a corpus consists of: its files, their hashes, and the blocks in which they are read."""

import hashlib
from collections.abc import Callable
from typing import BinaryIO

from cptsel.pipeline import io
from cptsel.pipeline.corpus.formats.registry import FORMATS, file_format
from cptsel.pipeline.corpus.listing import list_inputs, would_find
from cptsel.pipeline.corpus.streams import chunks
from cptsel.pipeline.corpus.types import Block, Companion, ReadOptions, Shard, TokenRule
from cptsel.pipeline.corpus.unchanged import ChunkDigests

__all__ = ["Block", "Shard", "inventory", "list_inputs", "would_find"]


def inventory(
    shard_id: int,
    uri: str,
    path: str,
    size: int,
    block_bytes: int,
    named: str | None = None,
    digests: str = "",
    tokens: TokenRule | None = None,
) -> Shard:
    """Read a file once, and its companion, and say what it is: its hash, and its blocks where it is no stream.

    Never fails on what the file holds: where that is no Parquet, or not what the suffix says, there is one block of one
    row, which becomes a reject when it is read.

    Args:
        shard_id: number of the shard.
        uri, path, size: as listed.
        block_bytes: size of a block. A block of plain JSONL ends at the first line end at or past so many bytes;
            Parquet row groups are joined up to so many uncompressed bytes.
        named: the format, where the suffix doesn't tell it.
        digests: file to write the digests of its chunks to, those of its companion beside it; none by default.
        tokens: how files of token ids are read.

    Raises:
        UsageError: unknown suffix.
        OSError: the file or its companion can't be read, or it has not the size that was listed.
        ValueError: ``block_bytes`` is less than 1.
    """
    if block_bytes < 1:
        raise ValueError(f"block_bytes must be at least 1, not {block_bytes}")
    format, compression = file_format(path, named)
    companion = _companion(FORMATS[format].companion(uri), digests and f"{digests}-companion")
    options = ReadOptions(block_bytes=block_bytes, tokens=tokens or TokenRule())
    finder = FORMATS[format].finder(options, compression, companion)
    with io.open_read(uri) as handle:
        found, sha256 = _hashed(handle, digests, finder.feed)
        if found != size:
            raise OSError(f"{uri}: has changed since it was listed ({found} bytes now, {size} then)")
        blocks = finder.finish(handle)
    return Shard(shard_id, uri, path, format, compression, size, sha256, blocks, digests, companion)


def _companion(uri: str | None, digests: str) -> Companion | None:
    if uri is None:
        return None
    if not io.exists(uri):
        raise OSError(f"can't be read without {uri}, which is missing")
    with io.open_read(uri) as handle:
        return Companion(uri, *_hashed(handle, digests), digests)


def _hashed(handle: BinaryIO, digests: str, feed: Callable[[bytes], None] = lambda _: None) -> tuple[int, str]:
    """Bytes and SHA-256 of a file, which ``feed`` is given; writes the digests of its chunks."""
    digest, chunk_digests, size = hashlib.sha256(), ChunkDigests(), 0
    for chunk in chunks(handle):
        digest.update(chunk)
        chunk_digests.feed(chunk)
        feed(chunk)
        size += len(chunk)
    if digests:
        io.write_bytes(digests, chunk_digests.finish())
    return size, digest.hexdigest()
