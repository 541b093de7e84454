"""Embedding one block of documents: windows, batches, gradients, rows. No Beam here.

Nothing here depends on the runner: inside a block, samples are batched by length under a token budget, in an order that
only the block's own content decides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from cptsel.pipeline.artifacts.exclusion import read_exclusions
from cptsel.pipeline.corpus.contents import content_bytes
from cptsel.pipeline.corpus.documents import DocumentBlock
from cptsel.pipeline.embedding.cutting import Cut, Sample, cut_block, reject_of
from cptsel.pipeline.embedding.earlier import EarlierRun, StoredRows
from cptsel.pipeline.embedding.rows import embedding_rows, reject_rows
from cptsel.pipeline.model.batching import batches, chunks
from cptsel.pipeline.model.frozen import FrozenModel, ModelSpec, another_model
from cptsel.pipeline.model.gradients.registry import GRADIENTS
from cptsel.pipeline.model.tokenizer import find_tokenizer, tokenizer_fingerprint


@dataclass(frozen=True)
class RowOptions:
    """What shapes the rows of a block, apart from the model."""

    max_tokens: int
    tokens_per_batch: int
    storage: str
    groups: tuple[str, ...]
    exclude: str | None = None  # file of ids and content hashes
    split_special_tokens: bool = False  # whether text that spells a special token stays text
    ids: bool = False  # whether documents hold token ids, so that no tokenizer is needed
    earlier: EarlierRun | None = None  # of a smaller pool, whose rows are taken over


@dataclass(frozen=True)
class EmbeddedBlock:
    """What is written for one block: rows, rejects, and counts over the columns of ``arrow.COUNT_COLUMNS``.

    ``taken`` are tokens of rows that an earlier run had.
    """

    shard_id: int
    block: int
    last: bool
    embeddings: pa.Table
    rejects: pa.Table
    counts: dict[str, int]
    taken: int


class BlockEmbedder:
    """A frozen model, its tokenizer and the row options: turns DocumentBlocks into EmbeddedBlocks."""

    def __init__(self, spec: ModelSpec, options: RowOptions):
        """Load the model. Raises UsageError where cptsel can't handle it."""
        self.options = options
        self.model = FrozenModel(spec)
        self.gradients = GRADIENTS[spec.gradient](self.model)
        self.base = _base_of(spec)
        self.tokenizer, self.prefix, _ = find_tokenizer(self.model.path, spec.trust_remote_code, needed=not options.ids)
        if self.tokenizer is not None and spec.tokenizer not in (None, tokenizer_fingerprint(self.tokenizer)):
            raise another_model(spec.source, "its tokenizer differs")
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
        options = self.options
        cut = cut_block(
            path,
            block,
            self.tokenizer,
            self.prefix,
            options.max_tokens,
            self.exclusions,
            options.split_special_tokens,
        )
        chunked = self._chunks([sample.document.pool_place for sample in cut.samples], cut.samples)
        stored = self._stored(path, block, cut.samples, chunked)
        rows, good = self.rows_of(cut, [chunk for chunk in chunked if chunk[0] not in stored.rows], block.shard_id)
        samples = [cut.samples[index] for index in sorted([*good, *stored.rows])]
        return EmbeddedBlock(
            shard_id=block.shard_id,
            block=block.block,
            last=block.last,
            embeddings=stored.merged(rows, good, [sample.document.pool_prob for sample in samples], options.groups),
            rejects=reject_rows(block.shard_id, [*block.rejects, *cut.rejects]),
            counts=_counts(block, cut, samples),
            taken=sum(len(cut.samples[index].ids) for index in stored.rows),
        )

    def rows_of(self, cut: Cut, chunked: list[list[int]], shard_id: int) -> tuple[pa.Table, list[int]]:
        """Embed the samples of some chunks; those without a usable gradient become rejects of ``cut``.

        Returns:
            Rows of the others, in the order of ``cut.samples``, and their indices there.
        """
        vectors = self._gradients(cut.samples, chunked)
        mine = sorted(index for chunk in chunked for index in chunk)
        good = _judge(cut, mine, {name: values[mine] for name, values in vectors.items() if values.ndim == 1})
        samples = [cut.samples[index] for index in good]
        if len(good) < len(cut.samples):  # else nothing is copied: vectors are most of what a block holds
            vectors = {name: rows[good] for name, rows in vectors.items()}
        return embedding_rows(samples, vectors, shard_id, self.options.storage, self.options.groups), good

    def _chunks(self, places: Sequence[float], samples: Sequence[Sample]) -> list[list[int]]:
        return chunks(places, [len(sample.ids) for sample in samples], self.options.tokens_per_batch)

    def _stored(
        self, path: str, block: DocumentBlock, samples: Sequence[Sample], chunked: list[list[int]]
    ) -> StoredRows:
        """Rows of the samples whose chunk the earlier run, if there is one, had as it is now."""
        earlier = self.options.earlier
        table = earlier.rows(block.shard_id, block.block) if earlier else None
        if earlier is None or table is None:
            return StoredRows()
        places = [earlier.place(path, sample.document, self.options.groups) for sample in samples]
        before = [index for index, place in enumerate(places) if place is not None]
        parts = self._chunks([places[index] or 0.0 for index in before], [samples[index] for index in before])
        kept = {tuple(before[i] for i in part) for part in parts}
        row_of = {name: row for row, name in enumerate(table["sample_id"].to_pylist())}
        found: dict[int, int] = {}
        for chunk in chunked:
            names = [samples[index].sample_id for index in chunk]
            if tuple(chunk) in kept and row_of.keys() >= set(names):
                found.update(zip(chunk, map(row_of.__getitem__, names), strict=True))
        return StoredRows(table, found)

    def _batches(self, samples: Sequence[Sample], chunked: list[list[int]]) -> Iterator[list[int]]:
        for chunk in chunked:
            for batch in batches([len(samples[i].ids) for i in chunk], self.options.tokens_per_batch):
                yield [chunk[i] for i in batch]

    def _gradients(self, samples: Sequence[Sample], chunked: list[list[int]]) -> dict[str, np.ndarray]:
        """float32 arrays by name, one row a sample; those of samples in no chunk are not set."""
        spec = self.model.spec
        n = len(samples)
        out = {
            "sketch": np.zeros((n, spec.sketch_dim), np.float32),
            "validation": np.zeros((n, spec.validation_dim), np.float32),
            **{name: np.zeros(n, np.float32) for name in ("loss_sum", "exact_norm", "sketch_norm", "validation_norm")},
        }
        if self.base is not None:
            out["base_loss_sum"] = np.zeros(n, np.float32)
        prefix = np.asarray(self.prefix.ids, dtype=np.int32)
        for batch in self._batches(samples, chunked):
            windows = [np.concatenate([prefix, samples[i].ids]) for i in batch]
            result = self.gradients.of_windows(windows)
            found = {"sketch": result.sketch, "validation": result.validation, "loss_sum": result.loss_sum}
            if result.exact_norm is not None:
                found["exact_norm"] = result.exact_norm
            if self.base is not None:
                found["base_loss_sum"] = self.base.losses(windows)
            for name, values in _on_host(found).items():
                out[name][batch] = values
            for name in ("sketch", "validation"):
                out[f"{name}_norm"][batch] = np.linalg.norm(out[name][batch].astype(np.float64), axis=1)
        out["grad_norm"] = out["exact_norm"] if spec.exact_norm else out["sketch_norm"]
        return out


def _base_of(spec: ModelSpec) -> FrozenModel | None:
    """The model before the lookahead, where its losses are wanted."""
    if spec.base is None:
        return None
    source, revision = spec.base
    return FrozenModel(replace(spec, source=source, revision=revision, base=None))


def _on_host(found: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Vectors and numbers of the samples of a batch, float32, in one copy: each would wait for the device by itself."""
    columns = {name: values if values.ndim == 2 else values.unsqueeze(1) for name, values in found.items()}
    whole = torch.cat(list(columns.values()), dim=1).cpu()
    parts = torch.split(whole, [values.shape[1] for values in columns.values()], dim=1)
    return {name: part.reshape(found[name].shape).numpy() for name, part in zip(found, parts, strict=True)}


def _judge(cut: Cut, indices: Sequence[int], vectors: dict[str, np.ndarray]) -> list[int]:
    """Which samples have a gradient that can be stored; the others become rejects.

    Args:
        cut: takes the rejects.
        indices: of the samples that were embedded.
        vectors: theirs.
    """
    norms = [vectors["sketch_norm"], vectors["validation_norm"], vectors["loss_sum"], vectors["grad_norm"]]
    before = [vectors["base_loss_sum"]] if "base_loss_sum" in vectors else []
    finite = np.isfinite(np.stack(norms + before)).all(axis=0)
    nonzero = (np.stack(norms[:2] + norms[3:]) > 0).all(axis=0)
    for row in np.flatnonzero(~(finite & nonzero)).tolist():
        sample = cut.samples[indices[row]]
        reason = "zero_gradient" if finite[row] else "non_finite_gradient"
        data = content_bytes(sample.document.content[sample.start : sample.end])
        detail = f"loss {vectors['loss_sum'][row]}, norm of the sketch {vectors['sketch_norm'][row]}"
        cut.rejects.append(reject_of(sample.document, sample.window, reason, detail, data))
    return [index for index, ok in zip(indices, finite & nonzero, strict=True) if ok]


def _counts(block: DocumentBlock, cut: Cut, samples: list[Sample]) -> dict[str, int]:
    """Counts of one block, with both identities checked (docs/design.md, Counts)."""
    counts = {
        "rows_read": block.rows_read,
        "rows_kept": cut.rows_kept,
        "rows_rejected": sum(r.window is None for r in [*block.rejects, *cut.rejects]),
        "rows_not_drawn": block.rows_not_drawn,
        "rows_excluded": cut.rows_excluded,
        "bytes_lost": sum(r.bytes_lost for r in block.rejects),
        "rows_special": cut.rows_special,
        "windows": cut.windows,
        "windows_embedded": len(samples),
        "windows_rejected": sum(r.window is not None for r in [*block.rejects, *cut.rejects]),
        "windows_excluded": cut.windows_excluded,
        "tokens": sum(len(s.ids) for s in samples),
        "n_tokens": sum(s.n_tokens for s in samples),
    }
    check_counts(counts, f"shard {block.shard_id}, block {block.block}")
    return counts


def check_counts(counts: dict[str, int], where: str) -> None:
    """Raise AssertionError unless both identities of counts hold."""
    rows = sum(counts[f"rows_{name}"] for name in ("kept", "rejected", "not_drawn", "excluded"))
    windows = sum(counts[f"windows_{name}"] for name in ("embedded", "rejected", "excluded"))
    if counts["rows_read"] != rows or counts["windows"] != windows:
        raise AssertionError(f"{where}: samples were lost: {counts}; please report this")
