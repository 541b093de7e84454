"""Megatron-core without a copy of tokens: an ``.idx`` whose sequences point into the ``.bin`` of the corpus itself."""

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.exports.base import ExportFormat, Linked, Record
from cptsel.pipeline.exports.megatron import index_of
from cptsel.pipeline.exports.trainers import Trainer
from cptsel.pipeline.model.vocabulary import Vocabulary
from cptsel.schemas.headers import ExportFile

if TYPE_CHECKING:
    from cptsel.pipeline.artifacts.manifest import Manifest
    from cptsel.pipeline.corpus.formats.megatron import MegatronIndex
    from cptsel.pipeline.corpus.formats.spans import SoughtSpans

_BLEND = "blend.json"
_BOUNDARIES = (
    "A play has the id that ends its document if its window ends there; other plays end without one. No BOS is written."
)
_MEGATRON = Trainer(
    name="Megatron-LM, zero copy",
    recipe="""
Beside every `.idx` of `EXPORT/{folder}` is a link to the `.bin` of the corpus, which must stay where it is. Start
the trainer in EXPORT, as paths are relative to it, and give it `--per-split-data-args-path {folder}/blend.json`: the
weights in this file are the tokens that each path plays. To mix in a new corpus, add it to the list `train` there.

**Never merge these files** (`tools/merge_datasets.py`, `IndexedDatasetBuilder.add_index`): merging assumes that
sequences follow each other in the `.bin`, and would write wrong tokens without an error. `cptsel export --to megatron`
makes a copy that can be merged.
""",
    order="lost: documents and sequences are shuffled",
    weights="refused; select with `--realisation repeat`",
    samples="token ids, in the corpus's own .bin",
    repeats="in the index",
    proved=("megatron-core",),
)


class MegatronZeroCopy(ExportFormat):
    """An ``.idx`` for each shard, a sequence a play, and beside it a link to the shard's ``.bin``.

    A play that ends its document takes the id that ends the document in the corpus, if there is one, as well.
    """

    name: ClassVar[str] = "megatron-zero-copy"
    summary: ClassVar[str] = "an .idx that points into the .bin of a Megatron corpus, without a copy of its tokens"
    suffix: ClassVar[str] = ".idx"
    beside: ClassVar[tuple[str, ...]] = (".bin", f"/{_BLEND}")
    unit: ClassVar[str] = "document"
    layout: ClassVar = "shards"
    writes_text: ClassVar[bool] = False
    writes_ids: ClassVar[bool] = True
    refers: ClassVar = "place"
    keeps: ClassVar[tuple[str, ...]] = ()
    weighs: ClassVar[tuple[str, ...]] = ()
    shuffles: ClassVar[bool] = True
    mixes: ClassVar[bool] = False
    trainers: ClassVar[tuple[Trainer, ...]] = (_MEGATRON,)

    def check_corpus(self, manifest: "Manifest", root: str | None) -> None:
        """Every shard must be a ``.bin`` of Megatron's."""
        others = sorted({shard["format"] for shard in manifest.shards().to_pylist()} - {"megatron"})
        if others:
            raise UsageError(
                f"--to {self.name} points into .bin files of Megatron's, and the corpus of {manifest.directory} is "
                f"{', '.join(others)}; use --to megatron"
            )

    def loses(self, manifest: "Manifest") -> list[str]:
        return [_BOUNDARIES, *super().loses(manifest)[1:]]

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str | Linked]:
        from cptsel.pipeline import io
        from cptsel.pipeline.corpus.formats.megatron import Megatron, MegatronIndex
        from cptsel.pipeline.corpus.formats.spans import SoughtSpans

        assert vocabulary is not None
        rows = [record["place"] for record in records]
        source = rows[0]["source"]
        with io.open_read(Megatron().companion(source["uri"])) as handle, io.open_read(source["uri"]) as tokens:
            index, spans = MegatronIndex(handle), SoughtSpans(tokens)
            found = [_span(index, spans, place, vocabulary.eos) for place in rows]
        starts, lengths = np.array(found, np.int64).T
        with io.atomic_writer(path) as handle:
            for part in index_of(lengths, index.dtype, starts):
                handle.write(part)
        return [path, _link(source, path.removesuffix(self.suffix) + ".bin")]

    def read(self, path: str) -> Iterator[Record]:
        """The ids of a play that ends its document may have that which ends it as well."""
        from cptsel.pipeline import io
        from cptsel.pipeline.corpus.formats.megatron import MegatronIndex
        from cptsel.pipeline.corpus.formats.spans import SoughtSpans
        from cptsel.pipeline.corpus.formats.tokens import read_ids
        from cptsel.pipeline.corpus.types import Damage

        try:
            with io.open_read(path) as handle, io.open_read(path.removesuffix(self.suffix) + ".bin") as tokens:
                index, spans = MegatronIndex(handle), SoughtSpans(tokens)
                starts, lengths = index.places(0, index.documents)
                if b"".join(index_of(lengths, index.dtype, starts)) != io.read_bytes(path):
                    raise ValueError("is no index of a sequence a play")
                for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
                    yield {"input_ids": read_ids(spans, start, length, index.dtype).tolist()}
        except Damage as damage:
            raise ValueError(f"is damaged: {damage.detail}") from damage

    def index(self, folder: str, files: Mapping[str, ExportFile]) -> Mapping[str, Any]:
        """What ``--per-split-data-args-path`` takes: weight and path of every file, relative to the export."""
        pairs = ((str(entry["tokens"]), name.removesuffix(self.suffix)) for name, entry in files.items())
        return {_BLEND: {"train": [word for pair in pairs for word in pair], "valid": None, "test": None}}


def _span(index: "MegatronIndex", spans: "SoughtSpans", place: Mapping[str, Any], eod: int | None) -> tuple[int, int]:
    """First byte of a play in the ``.bin``, and its ids, that which ends the document among them."""
    from cptsel.pipeline.corpus.formats.tokens import read_ids

    ((start,), (ids,)), size = index.places(place["row"], 1), index.dtype.itemsize
    end = place["token_start"] + place["token_count"]
    ended = end == ids - 1 and read_ids(spans, int(start) + end * size, 1, index.dtype)[0] == eod
    return int(start) + place["token_start"] * size, place["token_count"] + bool(ended)


def _link(source: Mapping[str, Any], path: str) -> Linked:
    """A link to a shard of the corpus.

    Raises:
        UsageError: it, or the export, lies where there are no links.
    """
    from cptsel.pipeline import io

    for place in (source["uri"], path):
        if io.is_remote(place):
            raise UsageError(f"--to megatron-zero-copy: {place} can't be linked; use --to megatron, or mount it")
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex[:12]}.tmp")  # as io.TEMPORARY has it
    os.symlink(source["uri"], temporary)
    os.replace(temporary, path)
    return Linked(path, source["sha256"], source["bytes"])
