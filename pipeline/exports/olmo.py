"""OLMo-core: one flat array of token ids, with a table of where each play lies, as the dolma toolkit writes them."""

import csv
import gzip
import io as text_io
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np

from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.id_files import read_ids, write_ids
from cptsel.pipeline.exports.trainers import Blend, Trainer
from cptsel.pipeline.model.vocabulary import Vocabulary

_KINDS = (np.uint8, np.uint16, np.uint32)  # the first that holds all ids, as NumpyDatasetDType is chosen

_OLMO = Trainer(
    name="OLMo-core",
    recipe="""
OLMo-core finds the ends of plays by the EOS of its tokenizer. A play an instance, in order:

```python
from olmo_core.data import NumpyDataLoaderBase, NumpyPaddedFSLDatasetConfig, TokenizerConfig

dataset = NumpyPaddedFSLDatasetConfig(
    tokenizer=TokenizerConfig(vocab_size=VOCABULARY, eos_token_id=EOS, pad_token_id=PAD),
    paths=["EXPORT/{folder}/replay.npy"], sequence_length=LENGTH, work_dir="WORK",
).build()
```

with `shuffle=False` in the data loader. `NumpyFSLDatasetConfig` joins plays and cuts them into sequences instead, and
`NumpyPackedFSLDatasetConfig` packs them.
""",
    order="kept, with `shuffle=False`",
    weights="refused: realise them as repeats",
    samples="token ids that were embedded",
    proved=("ai2-olmo-core",),
    blend=Blend(
        name="mixture.yaml",
        language="yaml",
        text="""sources:
  - {source_name: new, target_ratio: {rest}, paths: ["{new}"]}
  - {source_name: replay, target_ratio: {share}, paths: ["EXPORT/{folder}/replay.npy"]}
""",
        use="""Mixed with the new corpus, flat `.npy` files (a path or a glob), by tokens:
`SourceMixtureDatasetConfig` with `source_list=SourceMixtureList(...)` of {file}:""",
    ),
)


class Olmo(ExportFormat):
    """``replay.npy``, which has no header, and ``replay.csv.gz``: start, end, id, source file and row of every play."""

    name: ClassVar[str] = "olmo"
    summary: ClassVar[str] = "token ids as the flat .npy of OLMo-core, with .csv.gz of where each play lies"
    suffix: ClassVar[str] = ".npy"
    beside: ClassVar[tuple[str, ...]] = (".csv.gz",)
    unit: ClassVar[str] = "document"
    layout: ClassVar = "whole"
    writes_text: ClassVar[bool] = False
    writes_ids: ClassVar[bool] = True
    keeps: ClassVar[tuple[str, ...]] = ("sample_id", "shard", "row")  # which sample it is, but not what it weighs
    weighs: ClassVar[tuple[str, ...]] = ()
    trainers: ClassVar[tuple[Trainer, ...]] = (_OLMO,)

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        from cptsel.pipeline import io

        assert vocabulary is not None
        assert vocabulary.eos is not None
        dtype = next(kind for kind in _KINDS if vocabulary.size - 1 <= np.iinfo(kind).max)
        lengths, plays = write_ids(path, records, dtype, vocabulary.eos)
        table = path.removesuffix(self.suffix) + ".csv.gz"
        io.write_bytes(table, gzip.compress(_table(lengths, plays), mtime=0))
        return [path, table]

    def read(self, path: str) -> Iterator[Record]:
        from cptsel.pipeline import io

        data = gzip.decompress(io.read_bytes(path.removesuffix(self.suffix) + ".csv.gz"))
        rows = list(csv.reader(text_io.StringIO(data.decode(), newline="")))
        bounds = np.asarray([row[:2] for row in rows], dtype=np.int64).reshape(-1, 2)
        plays = [{"sample_id": row[2], "shard": row[3], "row": int(row[4])} for row in rows]
        lengths = bounds[:, 1] - bounds[:, 0]
        if _table(lengths, plays) != data:
            raise ValueError("has a .csv.gz that is not one of its plays")
        width = io.size(path) // max(1, int(lengths.sum()))  # which the size of the vocabulary decides
        kind = next((kind for kind in _KINDS if np.dtype(kind).itemsize == width), _KINDS[-1])
        ids = read_ids(path, lengths, kind)
        return ({**play, "input_ids": mine} for play, mine in zip(plays, ids, strict=True))


def _table(lengths: np.ndarray, plays: Iterable[Record]) -> bytes:
    """Lines of the ``.csv.gz``: of plays that take so many numbers (n,) int64, where each lies."""
    ends, lines = np.cumsum(lengths), text_io.StringIO()
    rows = csv.writer(lines, lineterminator="\n")
    for start, end, play in zip((ends - lengths).tolist(), ends.tolist(), plays, strict=True):
        rows.writerow([start, end, play["sample_id"], play["shard"], play["row"]])
    return lines.getvalue().encode()
