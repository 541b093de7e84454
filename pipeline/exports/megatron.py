"""Megatron-core, NeMo and GPT-NeoX: one ``.bin`` of token ids with its ``.idx``, a document a play."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from cptsel.pipeline.corpus.formats.megatron import DTYPES, MAGIC, VERSION
from cptsel.pipeline.exports.base import Record
from cptsel.pipeline.exports.id_files import IdFiles, read_ids
from cptsel.pipeline.exports.trainers import Blend, Trainer

_CODES = {np.dtype(kind): code for code, kind in DTYPES.items()}
_LEAST_WIDE = 65_500  # from this size of a vocabulary on, ids take four bytes, as in DType.optimal_dtype

_BLEND = Blend(
    name="blend.txt",
    language="sh",
    text="{rest} {new} {share} EXPORT/{folder}/replay\n",
    use="""To blend with the new corpus, also a path without `.bin`, give this line on the command line after
`--data-path`, or as a file with `--data-args-path` ({file}):""",
)
_MEGATRON = Trainer(
    name="Megatron-LM, Megatron-core",
    recipe="""
Weights of a blend are shares of sequences. Megatron cuts the documents of a path into sequences, shuffles them, and
plays a path again when all of it has been played: set `--train-samples` so that this happens as often as you want, or
never. Each phase is a path of its own: train on one after another.
""",
    order="lost: documents and sequences are shuffled",
    weights="refused; select with `--realisation repeat`",
    samples="token ids that were embedded",
    proved=("megatron-core",),
    blend=_BLEND,
)
_AUTOMODEL = replace(
    _MEGATRON,
    name="NeMo Automodel",
    recipe="""
It has its own copy of Megatron's data sets, with the same blends:

```yaml
dataset:
  _target_: nemo_automodel.components.datasets.llm.megatron_dataset.MegatronPretraining
  paths: ["{rest}", "{new}", "{share}", "EXPORT/{folder}/replay"]
  seq_length: LENGTH
  split: "1,0,0"
  splits_to_build: train
```
""",
    proved=("nemo-automodel",),
    blend=None,
)
_NEMO = replace(
    _MEGATRON,
    name="NeMo, GPT-NeoX",
    recipe="""
NeMo takes the same list under `data.paths`. GPT-NeoX takes `"train-data-paths": ["{new}", "EXPORT/{folder}/replay"]`
and `"train-data-weights": [{rest}, {share}]`.
""",
    proved=(),
    blend=None,
)


class Megatron(IdFiles):
    """``replay.bin``, the ids of all plays with EOS after each, and ``replay.idx``, where each begins."""

    name: ClassVar[str] = "megatron"
    summary: ClassVar[str] = "token ids as .bin and .idx of Megatron-core, NeMo and GPT-NeoX, one document per play"
    suffix: ClassVar[str] = ".bin"
    beside: ClassVar[tuple[str, ...]] = (".idx",)
    shuffles: ClassVar[bool] = True
    trainers: ClassVar[tuple[Trainer, ...]] = (_MEGATRON, _AUTOMODEL, _NEMO)

    def dtype(self, size: int) -> np.dtype:
        return np.dtype(np.uint16 if size < _LEAST_WIDE else np.int32)

    def write_places(self, path: str, lengths: np.ndarray, dtype: np.dtype, plays: Sequence[Record]) -> str:
        from cptsel.pipeline import io

        index = path.removesuffix(self.suffix) + ".idx"
        with io.atomic_writer(index) as handle:
            for part in index_of(lengths, dtype):
                handle.write(part)
        return index

    def read(self, path: str) -> Iterator[Record]:
        from cptsel.pipeline import io

        data = io.read_bytes(path.removesuffix(self.suffix) + ".idx")
        code, count = struct.unpack_from("<BQ", data, len(MAGIC) + 8)
        dtype = next((dtype for dtype, known in _CODES.items() if known == code), None)
        if dtype is None or count > len(data):
            raise ValueError("has an .idx that is not one of its plays")
        lengths = np.frombuffer(data, "<i4", count, len(MAGIC) + 25).astype(np.int64)
        if b"".join(index_of(lengths, dtype)) != data:
            raise ValueError("has an .idx that is not one of its plays")
        return ({"input_ids": ids} for ids in read_ids(path, lengths, dtype))


def index_of(lengths: np.ndarray, dtype: np.dtype, starts: np.ndarray | None = None) -> Iterator[bytes]:
    """The ``.idx`` of documents, each of one sequence.

    Args:
        lengths: (n,) int64, ids of each.
        dtype: of the ids.
        starts: (n,) int64, the first byte of each; by default they follow each other.
    """
    yield MAGIC + struct.pack("<QB", VERSION, _CODES[dtype])
    yield struct.pack("<QQ", len(lengths), len(lengths) + 1)
    yield lengths.astype("<i4").tobytes()
    places = (np.cumsum(lengths) - lengths) * dtype.itemsize if starts is None else starts
    yield places.astype("<i8").tobytes()
    yield np.arange(len(lengths) + 1, dtype="<i8").tobytes()
