"""Documents cut into samples: tokenised once each, split into windows, and what falls away with its reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from cptsel.pipeline import hashing
from cptsel.pipeline.corpus.contents import content_bytes
from cptsel.pipeline.corpus.documents import Document, DocumentBlock, Reject
from cptsel.pipeline.corpus.types import FIRST_BYTES
from cptsel.pipeline.kernels.windows import cut_windows
from cptsel.pipeline.model.tokenizer import Prefix, TokenizerError, encode, special_ids

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "no_predicted_tokens": "the window is one token, and the model has no BOS or EOS that stands before it",
        "no_tokens": "the tokenizer makes no token of the text",
        "non_finite_gradient": "the window's loss or gradient is infinite or not a number",
        "tokenizer_failed": "the tokenizer fails on the text",
        "unsplittable_window": "more than --max-tokens tokens without a code point boundary between them",
        "zero_gradient": "the window's gradient is zero, or too small for its sketch",
    }
)
"""Reasons for the reject of a row that could be read, or of one of its windows, with a line of explanation."""


@dataclass
class Sample:
    """A window of a document, before it is embedded.

    ``start`` and ``end`` are its place in the document's content: in code points, or in tokens where that is ids.
    """

    document: Document
    doc_key: str
    sample_id: str
    window: int
    start: int
    end: int
    token_start: int
    ids: np.ndarray  # int32, the window's own tokens
    content_hash: bytes
    n_tokens: int  # that are predicted


@dataclass
class Cut:
    """A block cut into samples, with everything that fell away and why."""

    samples: list[Sample] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    rows_kept: int = 0
    rows_excluded: int = 0
    rows_special: int = 0
    windows: int = 0
    windows_excluded: int = 0


def cut_block(
    path: str,
    block: DocumentBlock,
    tokenizer: Any | None,
    prefix: Prefix,
    max_tokens: int,
    exclusions: frozenset[str] = frozenset(),
    split_special_tokens: bool = False,
) -> Cut:
    """Tokenise the documents of a block once each and cut them into samples, rejects and exclusions.

    Documents of ids are cut as they are; without a tokenizer there may be no others.

    Raises:
        RuntimeError: the tokenizer fails on every text.
    """
    cut, special = Cut(), special_ids(tokenizer) if tokenizer is not None else frozenset[int]()
    kept = []
    for document in block.documents:
        key = hashing.doc_key(path, document.row_index)
        if exclusions and not exclusions.isdisjoint(
            (key, document.doc_id, hashing.content_hash(content_bytes(document.content)).hex())
        ):
            cut.rows_excluded += 1
        else:
            kept.append((document, key))
    texts = (((document, key), text) for document, key in kept if isinstance(text := document.content, str))
    for (document, key), encoded in encode(tokenizer, texts, split_special_tokens):
        if isinstance(encoded, TokenizerError):
            cut.rejects.append(reject_of(document, None, "tokenizer_failed", str(encoded)))
            continue
        ids, offsets = encoded
        spans = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
        _cut_document(cut, document, key, np.asarray(ids, dtype=np.int32), spans, prefix, max_tokens, exclusions)
        cut.rows_special += not special.isdisjoint(ids)
    for document, key in kept:
        if not isinstance(tokens := document.content, str):
            first = np.arange(len(tokens))
            spans = np.column_stack([first, first + 1])
            _cut_document(cut, document, key, tokens, spans, prefix, max_tokens, exclusions)
    return cut


def _cut_document(
    cut: Cut,
    document: Document,
    key: str,
    tokens: np.ndarray,
    spans: np.ndarray,
    prefix: Prefix,
    max_tokens: int,
    exclusions: frozenset[str],
) -> None:
    """Cut one document.

    Args:
        cut: takes what becomes of it.
        document, key: the document and its name.
        tokens: (t,) int32, its ids.
        spans: (t, 2) int64, where each token lies in the document's content, end excluded.
        prefix, max_tokens, exclusions: as of ``cut_block``.
    """
    if not len(tokens):
        cut.rejects.append(reject_of(document, None, "no_tokens", "the tokenizer makes no token of this text"))
        return
    cut.rows_kept += 1
    windows = cut_windows(spans[:, 0], spans[:, 1], len(document.content), max_tokens)
    cut.windows += len(windows.token_start)
    for window in range(len(windows.token_start)):
        start, count = int(windows.token_start[window]), int(windows.token_count[window])
        first, end = int(windows.char_start[window]), int(windows.char_end[window])
        name = hashing.sample_id(key, first, end)
        data = content_bytes(document.content[first:end])
        content = hashing.content_hash(data)
        if exclusions and not exclusions.isdisjoint((name, content.hex())):
            cut.windows_excluded += 1
        elif not windows.splittable[window]:
            detail = f"{count} tokens without a code point boundary, more than --max-tokens {max_tokens}"
            cut.rejects.append(reject_of(document, window, "unsplittable_window", detail, data))
        elif count + len(prefix.ids) < 2:
            detail = "one token and no BOS or EOS before it"
            cut.rejects.append(reject_of(document, window, "no_predicted_tokens", detail, data))
        else:
            part = tokens[start : start + count]
            cut.samples.append(
                Sample(document, key, name, window, first, end, start, part, content, count - (not prefix.ids))
            )


def reject_of(document: Document, window: int | None, reason: str, detail: str, data: bytes | None = None) -> Reject:
    first = content_bytes(document.content[:FIRST_BYTES]) if data is None else data
    return Reject(document.row_index, window, document.byte_offset, reason, detail, first[:FIRST_BYTES])
