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
from cptsel.pipeline.embedding.cutting import Cut, cut_block
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
    """What the parts that were read hold, each scaled to its shard and a byte of that, added up.

    Attributes:
        tokenizing: seconds of the tokenizer.
    """

    documents: float = 0.0
    tokens: float = 0.0
    samples: float = 0.0
    blocks: float = 0.0
    tokenizing: float = 0.0

    def add(self, blocks: Sequence[DocumentBlock], cut: Cut, seconds: float, max_tokens: int, scale: float) -> None:
        """Add a part.

        Args:
            blocks: of the part.
            cut: what became of a few of its documents.
            seconds: that cutting these took.
            max_tokens: of a window.
            scale: of the part to a byte of its shard.
        """
        documents = _documents(blocks)
        characters = sum(len(document.content) for document in _few(documents))
        rate = sum(len(sample.ids) for sample in cut.samples) / max(1, characters)  # tokens a character
        lengths = [len(document.content) * rate for document in documents]
        self.documents += len(documents) * scale
        self.tokens += sum(lengths) * scale
        self.samples += sum(max(1.0, -(-length // max_tokens)) for length in lengths if length > 0) * scale
        self.blocks += len(blocks) * scale
        self.tokenizing += seconds * sum(lengths) / max(1.0, characters * rate) * scale


class _Embedded:
    """A few windows of every part through the model: their rows, and the seconds and tokens that these took."""

    def __init__(self, embedder: BlockEmbedder) -> None:
        self.embedder = embedder
        self.tables: list[pa.Table] = []
        self.seconds, self.tokens = 0.0, 0

    def add(self, cut: Cut, shard_id: int) -> None:
        """Embed some samples of a part; the others fall away from it."""
        cut.samples = cut.samples[:: max(1, len(cut.samples) // WINDOWS)]
        began = time.perf_counter()
        self.tables.append(self.embedder.rows_of(cut, [[*range(len(cut.samples))]], shard_id)[0])
        self.seconds += time.perf_counter() - began
        self.tokens += sum(len(sample.ids) for sample in cut.samples)

    def stored(self) -> tuple[float, float]:
        """Bytes, as stored, of a sample, and of a file without any."""
        table = pa.concat_tables(self.tables, promote_options="permissive")
        empty = len(io.parquet_bytes(table.slice(0, 0)))
        return (len(io.parquet_bytes(table)) - empty) / max(1, len(table)), float(empty)


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
    options = replace(options, pool=Pool())
    sums, embedded = _Sums(), None if embedder is None else _Embedded(embedder)
    picked = _spread([size for _, _, size in files])
    for index, points in picked.items():
        _, path, size = files[index]
        blocks, share = _read(files, index, options, named)
        few = _block(index, _few(_documents(blocks)))
        began = time.perf_counter()
        cut = cut_block(path, few, tokenizer, prefix, max_tokens)
        sums.add(blocks, cut, time.perf_counter() - began, max_tokens, points / max(share * size, 1e-9))
        if embedded is not None:
            embedded.add(cut, index)
    per = sum(size for _, _, size in files) / sum(picked.values())  # bytes of the corpus that a point stands for
    found = Probe(sums.documents * per, sums.tokens * per, sums.samples * per, sums.blocks * per)
    if embedded is None:
        return found
    sample_bytes, block_bytes = embedded.stored()
    return replace(
        found,
        seconds=sums.tokenizing * per + found.tokens * embedded.seconds / max(1.0, embedded.tokens),
        sample_bytes=sample_bytes,
        block_bytes=block_bytes,
    )


def few_documents(
    files: Sequence[tuple[str, str, int]], options: ReadOptions, named: str | None
) -> Iterator[tuple[str, DocumentBlock]]:
    """Path, and a block of the documents that ``probe`` would tokenise, of each shard that it would read."""
    for index in _spread([size for _, _, size in files]):
        blocks, _ = _read(files, index, replace(options, pool=Pool()), named)
        yield files[index][1], _block(index, _few(_documents(blocks)))


def _documents(blocks: Sequence[DocumentBlock]) -> list[Document]:
    return [document for block in blocks for document in block.documents]


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
