"""Beam transforms of ``cptsel embed``. They move data; ``block.py`` and ``corpus`` say what is done with it.

Between reading a block and writing its rows nothing crosses a shuffle: the worker that computes vectors writes them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.seal import seal_of
from cptsel.pipeline.corpus.documents import DocumentBlock, ReadOptions
from cptsel.pipeline.embedding.block import BlockEmbedder, EmbeddedBlock, RowOptions
from cptsel.pipeline.embedding.units import RUN_KEY, UNIT_KEY, Unit, UnitResult, read_unit, stored_unit, unit_path
from cptsel.pipeline.engine.handed import Handed
from cptsel.pipeline.errors import CptselError, PartialError, first_line
from cptsel.pipeline.model.frozen import ModelSpec

DONE = "done"
_LESS_MEMORY = "run again with fewer --workers or smaller --block-bytes and --max-line-bytes, or leave the file out"


@dataclass(eq=False)
class EmbedGradients(beam.PTransform):
    """Units → UnitResults; rows and rejects are written on the way.

    A block that can't be read, or does not fit into memory, is a result that says so, and with ``keep_going`` one that
    can't be embedded too; without, that ends the pipeline.
    """

    out: str
    run: str
    spec: ModelSpec
    rows: Handed[RowOptions]
    read: Handed[ReadOptions]
    keep_going: bool = False

    def expand(self, units: beam.PCollection) -> beam.PCollection:
        """Wire: read, embed, write."""
        reading = beam.ParDo(_ReadBlocksDoFn(self.out, self.run, self.read))
        blocks = units | "ReadBlocks" >> reading.with_outputs(DONE, main="blocks")
        written = (
            blocks.blocks
            | "Embed" >> RunInference(BlockHandler(self.spec, self.rows, self.keep_going))
            | "WriteBlocks" >> beam.ParDo(_WriteBlockDoFn(self.out, self.run))
        )
        return (written, blocks[DONE]) | "Results" >> beam.Flatten()


class _ReadBlocksDoFn(beam.DoFn):
    """Unit → (path, DocumentBlock) for what is still to do; UnitResult under DONE for what is done or can't be read."""

    def __init__(self, out: str, run: str, options: Handed[ReadOptions]):
        self.out = out
        self.run = run
        self.options = options

    def process(self, unit: Unit) -> Iterator[Any]:
        shard = unit.shard
        first = 0 if unit.block is None else unit.block.block
        try:
            stored = self._stored(shard.shard_id, first, stream=unit.block is None)
            finished = bool(stored) and (unit.block is not None or stored[-1][1])
            done = {result.block: result for result, _ in stored}
            if finished:
                yield from (beam.pvalue.TaggedOutput(DONE, result) for result in done.values())
                return
            for block in read_unit(unit, self.options.value):
                if block.block in done:
                    yield beam.pvalue.TaggedOutput(DONE, done[block.block])
                else:
                    yield shard.path, block
        except OSError as error:
            yield beam.pvalue.TaggedOutput(DONE, UnitResult(shard.shard_id, first, None, _named(shard.uri, error)))
        except MemoryError:
            sentence = f"{shard.uri}: memory ran out while it was read; {_LESS_MEMORY}"
            yield beam.pvalue.TaggedOutput(DONE, UnitResult(shard.shard_id, first, None, sentence))

    def _stored(self, shard_id: int, block: int, stream: bool) -> list[tuple[UnitResult, bool]]:
        """Finished units from ``block`` on, up to the first gap; of a stream as many as there are, else at most one."""
        found = []
        while (unit := stored_unit(self.out, self.run, shard_id, block)) is not None:
            found.append(unit)
            if not stream:
                break
            block += 1
        return found


def _named(uri: str, error: OSError) -> str:
    """An error of reading with its file, once: ours name it, those of the system may not."""
    return f"{uri}: {str(error).removeprefix(f'{uri}: ')}"


@dataclass(frozen=True)
class LoadedModel:
    """A model, or what loading it raised."""

    embedder: BlockEmbedder | None
    error: Exception | None = None


class BlockHandler(ModelHandler[tuple[str, DocumentBlock], EmbeddedBlock | UnitResult, LoadedModel]):
    """RunInference over whole blocks: shares one model a process and counts batches, bytes and latency."""

    def __init__(self, spec: ModelSpec, rows: Handed[RowOptions], keep_going: bool = False):
        super().__init__()
        self.spec = spec
        self.rows = rows
        self.keep_going = keep_going

    def load_model(self) -> LoadedModel:
        """Load the frozen model, once a worker process.

        An error is kept, and raised with the first block: Beam's Spark runner waits for ever if a setup fails.
        """
        try:
            return LoadedModel(BlockEmbedder(self.spec, self.rows.value))
        except Exception as error:
            return LoadedModel(None, error)

    def run_inference(
        self,
        batch: Sequence[tuple[str, DocumentBlock]],
        model: LoadedModel,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterator[EmbeddedBlock | UnitResult]:
        """Embed blocks one by one: a block is already the batch."""
        embedder = model.embedder
        if embedder is None:
            raise model.error or RuntimeError("no model was loaded")
        return (self._embed(embedder, path, block) for path, block in batch)

    def _embed(self, embedder: BlockEmbedder, path: str, block: DocumentBlock) -> EmbeddedBlock | UnitResult:
        try:
            return embedder.embed(path, block)
        except MemoryError:
            sentence = f"{path}: memory ran out while block {block.block} was embedded; {_LESS_MEMORY}"
            return UnitResult(block.shard_id, block.block, None, sentence)
        except BaseException as error:
            if not _is_of_block(error):
                raise
            sentence = f"{path}: block {block.block} can't be embedded ({first_line(error)})"
            if self.keep_going:
                return UnitResult(block.shard_id, block.block, None, sentence)
            raise PartialError(
                f"{sentence}; run the same command again to resume, with --keep-going to finish the other shards"
            ) from error

    def get_num_bytes(self, batch: Sequence[tuple[str, DocumentBlock]]) -> int:
        """Bytes of text, about: one a code point or id. (Beam's default pickles the batch to find out.)"""
        return sum(len(document.content) for _, block in batch for document in block.documents)

    def get_metrics_namespace(self) -> str:
        """Namespace of the metrics in Beam."""
        return "cptsel"

    def batch_elements_kwargs(self) -> dict[str, Any]:
        """One block at a time, so that memory is bounded by the block."""
        return {"min_batch_size": 1, "max_batch_size": 1}


def _is_of_block(error: BaseException) -> bool:
    """Whether the tokenizer or the model failed on what they were given; the rest is the user's to mend, or a mistake.

    A panic of the tokenizer's Rust is no Exception.
    """
    if type(error).__name__ == "PanicException":
        return True
    return isinstance(error, Exception) and not isinstance(error, CptselError | AssertionError)


class _WriteBlockDoFn(beam.DoFn):
    """EmbeddedBlock → UnitResult; one that tells of a failure goes on as it is.

    Rejects are written first: a unit is whole once its embeddings are there.
    """

    def __init__(self, out: str, run: str):
        self.out = out
        self.run = run
        self.counters = [Metrics.counter("cptsel", name) for name in ("samples", "tokens", "rejects")]

    def process(self, done: EmbeddedBlock | UnitResult) -> Iterator[UnitResult]:
        if isinstance(done, UnitResult):
            yield done
            return
        unit = {"shard_id": done.shard_id, "block": done.block, "counts": done.counts, "last": done.last}
        metadata = {RUN_KEY: self.run, UNIT_KEY: json.dumps(unit, sort_keys=True)}
        rejects, embeddings = (io.parquet_bytes(table, metadata) for table in (done.rejects, done.embeddings))
        io.write_bytes(unit_path(self.out, "rejects", done.shard_id, done.block), rejects)
        io.write_bytes(unit_path(self.out, "embeddings", done.shard_id, done.block), embeddings)
        rejects_found = done.counts["rows_rejected"] + done.counts["windows_rejected"]
        for counter, more in zip(
            self.counters, (len(done.embeddings), done.counts["tokens"], rejects_found), strict=True
        ):
            counter.inc(more)
        seal = seal_of(embeddings, rejects)
        yield UnitResult(done.shard_id, done.block, done.counts, fresh=True, taken=done.taken, seal=seal)
