"""nanotron: token ids as ``.ds`` with ``.ds.index``, as datatrove writes them."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from cptsel.pipeline.exports.base import Record
from cptsel.pipeline.exports.id_files import IdFiles, dtype_of, holding, read_ids
from cptsel.pipeline.exports.trainers import Blend, Trainer

_KINDS = (np.uint16, np.uint32)  # the first that holds all ids

_NANOTRON = Trainer(
    name="nanotron",
    recipe="""
nanotron cuts the ids of a folder into sequences, across the ends of plays, and shuffles them. datatrove's
`DatatroveFolderDataset("EXPORT/{folder}", seq_len=LENGTH, token_size=BYTES)` reads them in order; BYTES is 2 for a
vocabulary of at most 65,536, else 4.
""",
    order="lost: sequences are shuffled",
    weights="refused; select with `--realisation repeat`",
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
        use="""To blend by sequences with the new corpus, also a folder of `.ds`, give this ({file}; another phase
is another stage, with the step at which it begins):""",
    ),
)


class Nanotron(IdFiles):
    """``replay.ds``, the ids of all plays with EOS after each, and ``replay.ds.index``, where each ends."""

    name: ClassVar[str] = "nanotron"
    summary: ClassVar[str] = "token ids as .ds and .ds.index of datatrove and nanotron"
    suffix: ClassVar[str] = ".ds"
    beside: ClassVar[tuple[str, ...]] = (".ds.index",)
    shuffles: ClassVar[bool] = True
    trainers: ClassVar[tuple[Trainer, ...]] = (_NANOTRON,)

    def dtype(self, size: int) -> np.dtype:
        return holding(size, _KINDS)

    def write_places(self, path: str, lengths: np.ndarray, dtype: np.dtype, plays: Sequence[Record]) -> str:
        from cptsel.pipeline import io

        io.write_bytes(f"{path}.index", np.cumsum(lengths).astype("<u8").tobytes())
        return f"{path}.index"

    def read(self, path: str) -> Iterator[Record]:
        from cptsel.pipeline import io

        data, size = io.read_bytes(f"{path}.index"), io.size(path)
        if len(data) % 8:
            raise ValueError("has a .ds.index that ends inside a number")
        ends = np.frombuffer(data, "<u8")
        if (ends > size).any() or (ends[1:] <= ends[:-1]).any() or (len(ends) and ends[0] == 0):
            raise ValueError("has a .ds.index that is not one of its plays")
        lengths = np.diff(ends.astype(np.int64), prepend=0)
        return ({"input_ids": ids} for ids in read_ids(path, lengths, dtype_of(path, lengths, _KINDS)))
