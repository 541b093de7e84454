"""What a corpus holds, about, from parts of a few shards: documents, tokens, samples, and what embedding them takes."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.corpus.documents import Document, DocumentBlock, ReadOptions, read_block, read_parts
from cptsel.pipeline.corpus.pool import Pool
from cptsel.pipeline.corpus.shards import Shard, inventory
from cptsel.pipeline.embedding.block import BlockEmbedder
from cptsel.pipeline.embedding.cutting import cut_block
from cptsel.pipeline.errors import CptselError
from cptsel.pipeline.model.tokenizer import Prefix

MOST_SHARDS, LEAST_SHARDS = 24, 3
MOST_BYTES = 256 << 20  # as stored, of the shards that are read; the least number of shards may have more
BLOCKS = 3  # of a shard
DOCUMENTS = 12  # of a shard that are tokenised
WINDOWS = 8  # of a shard that go through the model


@dataclass(frozen=True)
class Probe:
    """Estimates for a whole corpus.

    Attributes:
        documents, tokens, samples, blocks: how many it holds.
        seconds: of one worker, for the model and the tokenizer; 0 where no model was asked.
        sample_bytes, block_bytes: of embeddings, as stored: of each sample, and of a block's file without any.
    """

    documents: float
    tokens: float
    samples: float
    blocks: float
    seconds: float = 0.0
    sample_bytes: float = 0.0
    block_bytes: float = 0.0

    def stored(self, share: float) -> float:
        """Bytes of embeddings of a share of the samples."""
        return self.samples * share * self.sample_bytes + self.blocks * self.block_bytes


@dataclass
class _Sums:
    """Over the parts that were read, each scaled to its shard, and per byte of that."""

    documents: float = 0.0
    tokens: float = 0.0
    samples: float = 0.0
    blocks: float = 0.0
    tokenizing: float = 0.0


def probe(
    files: Sequence[tuple[str, str, int]],
    options: ReadOptions,
    tokenizer: object,
    prefix: Prefix,
    max_tokens: int,
    named: str | None,
    embedder: BlockEmbedder | None = None,
) -> Probe:
    """Read parts of a few shards, drawn with probabilities as their bytes, and scale to the corpus by bytes.

    Tokens are those of a few documents, times all characters over theirs.

    Args:
        files: (uri, path, bytes) of every shard.
        options: how rows are read; the pool in it is left aside.
        tokenizer, prefix, max_tokens: by which documents are cut.
        named: format of all files, if it is known.
        embedder: to find ``seconds`` and bytes of embeddings.

    Raises:
        CptselError: a file can't be read.
    """
    total = sum(size for _, _, size in files)
    options = replace(options, pool=Pool())
    sums, tables = _Sums(), []
    model_seconds = model_tokens = 0.0
    picked = _spread([size for _, _, size in files])
    for index, points in picked.items():
        _, path, size = files[index]
        blocks, share = _read(files, index, options, named)
        documents = [document for block in blocks for document in block.documents]
        few = _few(documents)
        began = time.perf_counter()
        cut = cut_block(path, _block(index, few), tokenizer, prefix, max_tokens)
        seconds = time.perf_counter() - began
        characters = sum(len(document.content) for document in few)
        rate = sum(len(sample.ids) for sample in cut.samples) / max(1, characters)
        lengths = [len(document.content) * rate for document in documents]
        scale = points / max(share * size, 1e-9)
        sums.documents += len(documents) * scale
        sums.tokens += sum(lengths) * scale
        sums.samples += sum(max(1.0, -(-length // max_tokens)) for length in lengths if length > 0) * scale
        sums.blocks += len(blocks) * scale
        sums.tokenizing += seconds * sum(lengths) / max(1.0, characters * rate) * scale
        if embedder is not None:
            cut.samples = cut.samples[:: max(1, len(cut.samples) // WINDOWS)]
            began = time.perf_counter()
            tables.append(embedder.rows_of(cut, [[*range(len(cut.samples))]], index)[0])
            model_seconds += time.perf_counter() - began
            model_tokens += sum(len(sample.ids) for sample in cut.samples)
    per = total / sum(picked.values())
    tokens, samples, blocks_there = sums.tokens * per, sums.samples * per, sums.blocks * per
    found = Probe(sums.documents * per, tokens, samples, blocks_there)
    if not tables:
        return found
    table = pa.concat_tables(tables, promote_options="permissive")
    empty = len(io.parquet_bytes(table.slice(0, 0)))
    each = (len(io.parquet_bytes(table)) - empty) / max(1, len(table))
    return replace(
        found,
        seconds=sums.tokenizing * per + tokens * model_seconds / max(1.0, model_tokens),
        sample_bytes=each,
        block_bytes=float(empty),
    )


def few_documents(
    files: Sequence[tuple[str, str, int]], options: ReadOptions, named: str | None
) -> Iterator[tuple[str, DocumentBlock]]:
    """Path, and a block of the documents that ``probe`` would tokenise, of each shard that it would read."""
    for index in _spread([size for _, _, size in files]):
        blocks, _ = _read(files, index, replace(options, pool=Pool()), named)
        yield files[index][1], _block(index, _few([document for block in blocks for document in block.documents]))


def _few(documents: list[Document]) -> list[Document]:
    return documents[:: max(1, len(documents) // DOCUMENTS)]


def _read(
    files: Sequence[tuple[str, str, int]], index: int, options: ReadOptions, named: str | None
) -> tuple[list[DocumentBlock], float]:
    uri, path, size = files[index]
    try:
        return _parts(inventory(index, uri, path, size, options.block_bytes, named, tokens=options.tokens), options)
    except OSError as error:
        raise CptselError(f"{uri}: {error}") from error


def _spread(sizes: Sequence[int]) -> dict[int, int]:
    """Shards at points that are spread evenly over all bytes: how many points lie in each that has any."""
    ends = np.cumsum(sizes)
    if not ends[-1]:
        return {0: 1}
    for count in range(MOST_SHARDS, LEAST_SHARDS - 1, -1):
        points = (np.arange(count) + 0.5) * ends[-1] / count
        indices, counts = np.unique(np.searchsorted(ends, points, side="right"), return_counts=True)
        picked = dict(zip(indices.tolist(), counts.tolist(), strict=True))
        if sum(sizes[index] for index in picked) <= MOST_BYTES:
            break
    return picked


def _parts(shard: Shard, options: ReadOptions) -> tuple[list[DocumentBlock], float]:
    """A few blocks of a shard, and the share of it that they hold."""
    if shard.blocks is None:
        return read_parts(shard, options, BLOCKS)
    if options.limit is not None:  # all that is embedded lies at the start
        few = [block for block in shard.blocks if block.first_row < options.limit]
        return [read_block(shard, block, options) for block in few[:BLOCKS]], min(1.0, BLOCKS / max(1, len(few)))
    step = max(1, len(shard.blocks) // BLOCKS)
    few = list(shard.blocks[step // 2 :: step][:BLOCKS])
    share = sum(block.rows for block in few) / max(1, sum(block.rows for block in shard.blocks))
    return [read_block(shard, block, options) for block in few], share


def _block(shard_id: int, documents: list[Document]) -> DocumentBlock:
    return DocumentBlock(shard_id, 0, len(documents), documents, [], True)
