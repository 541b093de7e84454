"""What a corpus consists of: its files, their hashes, and the blocks in which they are read."""

import hashlib

from cptsel.pipeline import io
from cptsel.pipeline.corpus.formats.registry import FORMATS, file_format
from cptsel.pipeline.corpus.listing import list_inputs, would_find
from cptsel.pipeline.corpus.streams import chunks
from cptsel.pipeline.corpus.types import Block, Shard
from cptsel.pipeline.corpus.unchanged import ChunkDigests

__all__ = ["Block", "Shard", "inventory", "list_inputs", "would_find"]


def inventory(
    shard_id: int, uri: str, path: str, size: int, block_bytes: int, named: str | None = None, digests: str = ""
) -> Shard:
    """Read a file once and say what it is: its hash, and its blocks where it is no stream.

    Never fails on what the file holds: where that is no Parquet, or not what the suffix says, there is one block of one
    row, which becomes a reject when it is read.

    Args:
        shard_id: number of the shard.
        uri, path, size: as listed.
        block_bytes: size of a block. A block of plain JSONL ends at the first line end at or past so many bytes;
            Parquet row groups are joined up to so many uncompressed bytes.
        named: the format, where the suffix doesn't tell it.
        digests: file to write the digests of its chunks to; none by default.

    Raises:
        UsageError: unknown suffix.
        OSError: the file can't be read, or has not the size that was listed.
        ValueError: ``block_bytes`` is less than 1.
    """
    if block_bytes < 1:
        raise ValueError(f"block_bytes must be at least 1, not {block_bytes}")
    format, compression = file_format(path, named)
    digest, chunk_digests = hashlib.sha256(), ChunkDigests()
    finder = FORMATS[format].finder(block_bytes, compression)
    found = 0
    with io.open_read(uri) as handle:
        for chunk in chunks(handle):
            digest.update(chunk)
            chunk_digests.feed(chunk)
            found += len(chunk)
            finder.feed(chunk)
        if found != size:
            raise OSError(f"{uri}: has changed since it was listed ({found} bytes now, {size} then)")
        blocks = finder.finish(handle)
    if digests:
        io.write_bytes(digests, chunk_digests.finish())
    return Shard(shard_id, uri, path, format, compression, size, digest.hexdigest(), blocks, digests)
