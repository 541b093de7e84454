"""Embedding one block of documents: windows, batches, gradients, rows. No Beam here.

Nothing here depends on the runner: inside a block, samples are batched by length under a token budget, in an order that
only the block's own content decides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel.pipeline import hashing
from cptsel.pipeline.artifacts.exclusion import read_exclusions
from cptsel.pipeline.corpus.documents import Document, DocumentBlock, Reject
from cptsel.pipeline.kernels.windows import cut_windows
from cptsel.pipeline.model.frozen import FrozenModel, ModelSpec
from cptsel.pipeline.model.gradients.registry import GRADIENTS
from cptsel.pipeline.model.tokenizer import Prefix, load_tokenizer, prefix_of, special_ids
from cptsel.schemas import arrow

TOKENIZE_AT_ONCE = 1 << 20  # code points of text handed to the tokenizer in one call: bounds the offsets in memory
FIRST_BYTES = 64


@dataclass(frozen=True)
class RowOptions:
    """What shapes the rows of a block, apart from the model."""

    max_tokens: int
    tokens_per_batch: int
    storage: str
    groups: tuple[str, ...]
    exclude: str | None = None  # file of ids and content hashes
    split_special_tokens: bool = False  # whether text that spells a special token stays text


@dataclass(frozen=True)
class EmbeddedBlock:
    """What is written for one block: rows, rejects, and counts over the columns of ``arrow.COUNT_COLUMNS``."""

    shard_id: int
    block: int
    last: bool
    embeddings: pa.Table
    rejects: pa.Table
    counts: dict[str, int]


@dataclass
class _Sample:
    document: Document
    doc_key: str
    sample_id: str
    window: int
    char_start: int
    char_end: int
    token_start: int
    ids: np.ndarray  # int32, the window's own tokens
    content_hash: bytes


@dataclass
class _Cut:
    """A block cut into samples, with everything that fell away and why."""

    samples: list[_Sample] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    rows_kept: int = 0
    rows_excluded: int = 0
    rows_special: int = 0
    windows: int = 0
    windows_excluded: int = 0


class BlockEmbedder:
    """A frozen model, its tokenizer and the row options: turns DocumentBlocks into EmbeddedBlocks."""

    def __init__(self, spec: ModelSpec, options: RowOptions):
        """Load the model. Raises UsageError where cptsel can't handle it."""
        self.options = options
        self.model = FrozenModel(spec)
        self.gradients = GRADIENTS[spec.gradient](self.model)
        self.tokenizer = load_tokenizer(self.model.path, spec.trust_remote_code)
        self.prefix = prefix_of(self.tokenizer)
        self.exclusions = read_exclusions(options.exclude) if options.exclude else frozenset()

    def embed(self, path: str, block: DocumentBlock) -> EmbeddedBlock:
        """Embed one block; rows come out in corpus order.

        Args:
            path: of the shard, relative to the corpus root: what document keys are made of.
            block: its documents and rejects.

        Raises:
            AssertionError: rows read ≠ kept + rejected + not drawn + excluded, or windows of kept rows ≠ embedded +
                rejected + excluded: a fault of this code.
        """
        cut = cut_block(
            path,
            block,
            self.tokenizer,
            self.prefix,
            self.options.max_tokens,
            self.exclusions,
            self.options.split_special_tokens,
        )
        vectors = self._gradients([sample.ids for sample in cut.samples])
        good = _judge(cut, vectors)
        samples = [sample for sample, ok in zip(cut.samples, good, strict=True) if ok]
        kept = {name: values[good] for name, values in vectors.items()}
        rows = _rows(samples, kept, block, self.options, self.prefix)
        return EmbeddedBlock(
            shard_id=block.shard_id,
            block=block.block,
            last=block.last,
            embeddings=rows,
            rejects=_reject_rows(block.shard_id, [*block.rejects, *cut.rejects]),
            counts=_counts(block, cut, samples, self.prefix),
        )

    def _gradients(self, windows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """float32 arrays by name, one row a window, in the order given."""
        spec = self.model.spec
        n = len(windows)
        out = {
            "sketch": np.empty((n, spec.sketch_dim), np.float32),
            "validation": np.empty((n, spec.validation_dim), np.float32),
            "loss_sum": np.empty(n, np.float32),
            "exact_norm": np.zeros(n, np.float32),
        }
        prefix = np.asarray(self.prefix.ids, dtype=np.int32)
        for batch in batches([len(ids) for ids in windows], self.options.tokens_per_batch):
            result = self.gradients.of_windows([np.concatenate([prefix, windows[i]]) for i in batch])
            out["sketch"][batch] = result.sketch.cpu().numpy()
            out["validation"][batch] = result.validation.cpu().numpy()
            out["loss_sum"][batch] = result.loss_sum.cpu().numpy()
            if result.exact_norm is not None:
                out["exact_norm"][batch] = result.exact_norm.cpu().numpy()
        out["sketch_norm"] = np.linalg.norm(out["sketch"].astype(np.float64), axis=1).astype(np.float32)
        out["validation_norm"] = np.linalg.norm(out["validation"].astype(np.float64), axis=1).astype(np.float32)
        out["grad_norm"] = out["exact_norm"] if spec.exact_norm else out["sketch_norm"]
        return out


def batches(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """Indices of windows, longest first (ties as they come), cut so that padded tokens fit ``tokens_per_batch``.

    A window longer than the budget makes a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        size = max(1, tokens_per_batch // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def cut_block(
    path: str,
    block: DocumentBlock,
    tokenizer: Any,
    prefix: Prefix,
    max_tokens: int,
    exclusions: frozenset[str] = frozenset(),
    split_special_tokens: bool = False,
) -> _Cut:
    """Tokenise the documents of a block once each and cut them into samples, rejects and exclusions."""
    cut, special = _Cut(), special_ids(tokenizer)
    kept = []
    for document in block.documents:
        key = hashing.doc_key(path, document.row_index)
        if exclusions and not exclusions.isdisjoint(
            (key, document.doc_id, hashing.content_hash(document.text.encode()).hex())
        ):
            cut.rows_excluded += 1
        else:
            kept.append((document, key))
    for group in _tokenizer_calls(kept):
        encoded = tokenizer(
            [document.text for document, _ in group],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            split_special_tokens=split_special_tokens,
            verbose=False,
        )
        for (document, key), ids, offsets in zip(group, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            _cut_document(cut, document, key, ids, offsets, prefix, max_tokens, exclusions)
            cut.rows_special += not special.isdisjoint(ids)
    return cut


def _tokenizer_calls(kept: list[tuple[Document, str]]) -> Iterator[list[tuple[Document, str]]]:
    group: list[tuple[Document, str]] = []
    size = 0
    for item in kept:
        group.append(item)
        size += len(item[0].text)
        if size >= TOKENIZE_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _cut_document(
    cut: _Cut,
    document: Document,
    key: str,
    ids: list[int],
    offsets: list[tuple[int, int]],
    prefix: Prefix,
    max_tokens: int,
    exclusions: frozenset[str],
) -> None:
    if not ids:
        cut.rejects.append(_reject(document, None, "no_tokens", "the tokenizer makes no token of this text"))
        return
    cut.rows_kept += 1
    spans = np.asarray(offsets, dtype=np.int64)
    windows = cut_windows(spans[:, 0], spans[:, 1], len(document.text), max_tokens)
    tokens = np.asarray(ids, dtype=np.int32)
    cut.windows += len(windows.token_start)
    for window in range(len(windows.token_start)):
        start, count = int(windows.token_start[window]), int(windows.token_count[window])
        first, end = int(windows.char_start[window]), int(windows.char_end[window])
        name = hashing.sample_id(key, first, end)
        text = document.text[first:end].encode()
        content = hashing.content_hash(text)
        if exclusions and not exclusions.isdisjoint((name, content.hex())):
            cut.windows_excluded += 1
        elif not windows.splittable[window]:
            detail = f"{count} tokens without a code point boundary, more than --max-tokens {max_tokens}"
            cut.rejects.append(_reject(document, window, "unsplittable_window", detail, text))
        elif count + len(prefix.ids) < 2:
            detail = "one token and no BOS or EOS before it"
            cut.rejects.append(_reject(document, window, "no_predicted_tokens", detail, text))
        else:
            part = tokens[start : start + count]
            cut.samples.append(_Sample(document, key, name, window, first, end, start, part, content))


def _reject(document: Document, window: int | None, reason: str, detail: str, text: bytes | None = None) -> Reject:
    first = document.text[:FIRST_BYTES].encode() if text is None else text
    return Reject(document.row_index, window, document.byte_offset, reason, detail, first[:FIRST_BYTES])


def _judge(cut: _Cut, vectors: dict[str, np.ndarray]) -> np.ndarray:
    """Which samples have a gradient that can be stored; the others become rejects. Boolean, one a sample."""
    norms = [vectors["sketch_norm"], vectors["validation_norm"], vectors["loss_sum"], vectors["grad_norm"]]
    finite = np.isfinite(np.stack(norms)).all(axis=0)
    nonzero = (np.stack(norms[:2] + norms[3:]) > 0).all(axis=0)
    for index in np.flatnonzero(~(finite & nonzero)):
        sample = cut.samples[index]
        reason = "zero_gradient" if finite[index] else "non_finite_gradient"
        text = sample.document.text[sample.char_start : sample.char_end].encode()
        detail = f"loss {vectors['loss_sum'][index]}, norm of the sketch {vectors['sketch_norm'][index]}"
        cut.rejects.append(_reject(sample.document, sample.window, reason, detail, text))
    return finite & nonzero


def _rows(
    samples: list[_Sample], vectors: dict[str, np.ndarray], block: DocumentBlock, options: RowOptions, prefix: Prefix
) -> pa.Table:
    k, k_val = vectors["sketch"].shape[1], vectors["validation"].shape[1]
    schema = arrow.embeddings_schema(k, k_val, options.storage, list(options.groups))
    n = len(samples)
    columns: dict[str, Any] = {
        "sample_id": [s.sample_id for s in samples],
        "doc_key": [s.doc_key for s in samples],
        "doc_id": [s.document.doc_id for s in samples],
        "shard_id": np.full(n, block.shard_id, np.int32),
        "row_index": [s.document.row_index for s in samples],
        "window": [s.window for s in samples],
        "byte_offset": [s.document.byte_offset for s in samples],
        "byte_length": [s.document.byte_length for s in samples],
        "char_start": [s.char_start for s in samples],
        "char_end": [s.char_end for s in samples],
        "token_start": [s.token_start for s in samples],
        "token_count": [len(s.ids) for s in samples],
        "n_tokens": [_predicted(s, prefix) for s in samples],
        "content_hash": [s.content_hash for s in samples],
        "pool_prob": np.ones(n),
        "loss_sum": vectors["loss_sum"],
        "grad_norm": vectors["grad_norm"],
        "sketch_norm": vectors["sketch_norm"],
        "validation_norm": vectors["validation_norm"],
    }
    for position, name in enumerate(options.groups):
        columns[name] = pa.array([s.document.groups[position] for s in samples], pa.string()).dictionary_encode()
    direction = vectors["sketch"] / vectors["sketch_norm"][:, None]
    if options.storage == "int8":
        direction, columns["direction_scale"] = quantise(direction)
    columns["direction"] = _fixed_list(direction, schema.field("direction").type)
    validation = vectors["validation"] / vectors["validation_norm"][:, None]
    columns["validation"] = _fixed_list(validation, schema.field("validation").type)
    return pa.table(
        [
            columns[f.name] if isinstance(columns[f.name], pa.Array) else pa.array(columns[f.name], f.type)
            for f in schema
        ],
        schema=schema,
    )


def quantise(direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) float32 → int8 codes in [-127, 127] and a float32 scale a row: direction ≈ codes · scale."""
    scale = np.abs(direction).max(axis=1) / np.float32(127) if len(direction) else np.zeros(0, np.float32)
    return np.rint(direction / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def _fixed_list(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    dtype = np.int8 if kind.value_type == pa.int8() else np.float16
    flat = pa.array(np.ascontiguousarray(values, dtype=dtype).reshape(-1), kind.value_type)
    return pa.FixedSizeListArray.from_arrays(flat, type=kind)


def _predicted(sample: _Sample, prefix: Prefix) -> int:
    return len(sample.ids) if prefix.ids else len(sample.ids) - 1


def _reject_rows(shard_id: int, rejects: list[Reject]) -> pa.Table:
    ordered = sorted(rejects, key=lambda r: (r.row_index, -1 if r.window is None else r.window))
    return pa.table(
        {
            "shard_id": pa.array([shard_id] * len(ordered), pa.int32()),
            "row_index": pa.array([r.row_index for r in ordered], pa.int64()),
            "window": pa.array([r.window for r in ordered], pa.int32()),
            "byte_offset": pa.array([r.byte_offset for r in ordered], pa.int64()),
            "reason": pa.array([r.reason for r in ordered], pa.string()),
            "detail": pa.array([r.detail for r in ordered], pa.string()),
            "first_bytes": pa.array([r.first_bytes for r in ordered], pa.binary()),
        },
        schema=arrow.REJECTS,
    )


def _counts(block: DocumentBlock, cut: _Cut, samples: list[_Sample], prefix: Prefix) -> dict[str, int]:
    """Counts of one block, with both identities checked (docs/design.md, Counts)."""
    counts = {
        "rows_read": block.rows_read,
        "rows_kept": cut.rows_kept,
        "rows_rejected": sum(r.window is None for r in [*block.rejects, *cut.rejects]),
        "rows_not_drawn": 0,
        "rows_excluded": cut.rows_excluded,
        "bytes_lost": sum(r.bytes_lost for r in block.rejects),
        "rows_special": cut.rows_special,
        "windows": cut.windows,
        "windows_embedded": len(samples),
        "windows_rejected": sum(r.window is not None for r in [*block.rejects, *cut.rejects]),
        "windows_excluded": cut.windows_excluded,
        "tokens": sum(len(s.ids) for s in samples),
        "n_tokens": sum(_predicted(s, prefix) for s in samples),
    }
    check_counts(counts, f"shard {block.shard_id}, block {block.block}")
    return counts


def check_counts(counts: dict[str, int], where: str) -> None:
    """Raise AssertionError unless both identities of counts hold."""
    rows = sum(counts[f"rows_{name}"] for name in ("kept", "rejected", "not_drawn", "excluded"))
    windows = sum(counts[f"windows_{name}"] for name in ("embedded", "rejected", "excluded"))
    if counts["rows_read"] != rows or counts["windows"] != windows:
        raise AssertionError(f"{where}: samples were lost: {counts}; please report this")
