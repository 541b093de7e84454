"""nanotron: token ids as ``.ds`` with ``.ds.index``, as datatrove writes them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np

from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.id_files import read_ids, write_ids
from cptsel.pipeline.exports.trainers import Blend, Trainer
from cptsel.pipeline.model.vocabulary import Vocabulary

_KINDS = (np.uint16, np.uint32)  # the first that holds all ids

_NANOTRON = Trainer(
    name="nanotron",
    recipe="""
nanotron cuts the ids of a folder into sequences, which cross the ends of plays, and shuffles them. datatrove's
`DatatroveFolderDataset("EXPORT/{folder}", seq_len=LENGTH, token_size=BYTES)` reads them in order; BYTES is 2 for a
vocabulary of at most 65,536, else 4.
""",
    order="lost: sequences are shuffled",
    weights="refused: realise them as repeats",
    samples="token ids that were embedded",
    proved=("datatrove",),
    blend=Blend(
        name="data_stages.yaml",
        language="yaml",
        text="""data_stages:
  - name: replay
    start_training_step: 1
    data:
      dataset:
        dataset_folder: ["{new}", "EXPORT/{folder}"]
        dataset_weights: [{rest}, {share}]
""",
        use="""Blended with the new corpus, a folder of `.ds` as well, by sequences ({file}; another phase is another
stage, with the step at which it begins):""",
    ),
)


class Nanotron(ExportFormat):
    """``replay.ds``, the ids of all plays with EOS after each, and ``replay.ds.index``, where each ends."""

    name: ClassVar[str] = "nanotron"
    summary: ClassVar[str] = "token ids as .ds and .ds.index of datatrove and nanotron"
    suffix: ClassVar[str] = ".ds"
    beside: ClassVar[tuple[str, ...]] = (".ds.index",)
    unit: ClassVar[str] = "document"
    layout: ClassVar = "whole"
    writes_text: ClassVar[bool] = False
    writes_ids: ClassVar[bool] = True
    keeps: ClassVar[tuple[str, ...]] = ()  # the ids alone: neither which sample it is nor what it weighs
    weighs: ClassVar[tuple[str, ...]] = ()
    shuffles: ClassVar[bool] = True
    trainers: ClassVar[tuple[Trainer, ...]] = (_NANOTRON,)

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        from cptsel.pipeline import io

        assert vocabulary is not None
        assert vocabulary.eos is not None
        dtype = next(kind for kind in _KINDS if vocabulary.size - 1 <= np.iinfo(kind).max)
        lengths, _ = write_ids(path, records, dtype, vocabulary.eos)
        io.write_bytes(f"{path}.index", np.cumsum(lengths).astype("<u8").tobytes())
        return [path, f"{path}.index"]

    def read(self, path: str) -> Iterator[Record]:
        from cptsel.pipeline import io

        data, size = io.read_bytes(f"{path}.index"), io.size(path)
        if len(data) % 8:
            raise ValueError("has a .ds.index that ends inside a number")
        ends = np.frombuffer(data, "<u8")
        if (ends > size).any() or (ends[1:] <= ends[:-1]).any() or (len(ends) and ends[0] == 0):
            raise ValueError("has a .ds.index that is not one of its plays")
        lengths = np.diff(ends.astype(np.int64), prepend=0)
        width = size // max(1, int(lengths.sum()))  # which the size of the vocabulary decides
        kind = next((kind for kind in _KINDS if np.dtype(kind).itemsize == width), _KINDS[-1])
        return ({"input_ids": ids} for ids in read_ids(path, lengths, kind))
