"""What a corpus consists of: its files, their hashes, and the blocks in which they are read."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import BinaryIO, cast

from cptsel.pipeline import io
from cptsel.pipeline.corpus.formats.base import CorpusFormat
from cptsel.pipeline.corpus.formats.registry import FORMATS, file_format
from cptsel.pipeline.corpus.forward import Followed
from cptsel.pipeline.corpus.listing import list_inputs, would_find
from cptsel.pipeline.corpus.text_bytes import TextBytes
from cptsel.pipeline.corpus.types import BLOCK_ROWS, Block, Companion, ReadOptions, Shard, TokenRule
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
    sizes: TextBytes | None = None,
    block_rows: int = BLOCK_ROWS,
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
        sizes: takes the texts of the file, where they are to be counted: in the same reading, where the format can be
            read front to back, else in one more.
        block_rows: rows of a block at most.

    Raises:
        UsageError: unknown suffix.
        OSError: the file or its companion can't be read, or it has not the size that was listed.
        ValueError: ``block_bytes`` is less than 1.
    """
    if block_bytes < 1:
        raise ValueError(f"block_bytes must be at least 1, not {block_bytes}")
    format, compression = file_format(path, named)
    companion = _companion(FORMATS[format], uri, digests and f"{digests}-companion")
    options = ReadOptions(block_bytes=block_bytes, block_rows=block_rows, tokens=tokens or TokenRule())
    finder = FORMATS[format].finder(options, compression, companion)
    shard = Shard(shard_id, uri, path, format, compression, size, "", None, digests, companion)
    forward = sizes is not None and FORMATS[format].reads_forward(compression)
    with io.open_read(uri) as handle:
        parse = partial(sizes.count, shard=shard) if sizes is not None and forward else None
        found, sha256 = _hashed(handle, digests, finder.feed, parse)
        if found != size:
            raise OSError(f"{uri}: has changed since it was listed ({found} bytes now, {size} then)")
        shard = replace(shard, sha256=sha256, blocks=finder.finish(handle))
        if sizes is not None and not forward:
            sizes.count(handle, shard)
    return shard


def _companion(format: CorpusFormat, uri: str, digests: str) -> Companion | None:
    beside = format.companion(uri)
    if beside is None:
        return None
    if not io.exists(beside):
        if not format.needs_companion:
            return None
        raise OSError(f"can't be read without {beside}, which is missing")
    with io.open_read(beside) as handle:
        return Companion(beside, *_hashed(handle, digests), digests)


def _hashed(
    handle: BinaryIO,
    digests: str,
    feed: Callable[[bytes], None] = lambda _: None,
    parse: Callable[[BinaryIO], None] | None = None,
) -> tuple[int, str]:
    """Bytes and SHA-256 of a file, which ``feed`` is given and ``parse`` reads; writes the digests of its chunks."""
    digest, chunk_digests = hashlib.sha256(), ChunkDigests()
    followed = Followed(handle, (digest.update, chunk_digests.feed, feed))
    if parse is not None:
        parse(cast(BinaryIO, followed))
    followed.finish()
    if digests:
        io.write_bytes(digests, chunk_digests.finish())
    return followed.seen, digest.hexdigest()
