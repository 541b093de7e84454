"""OLMo-core: one flat array of token ids, with a table of where each play lies, as the dolma toolkit writes them."""

import csv
import gzip
import io as text_io
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np

from cptsel.pipeline.exports.base import Record
from cptsel.pipeline.exports.id_files import IdFiles, dtype_of, holding, read_ids
from cptsel.pipeline.exports.trainers import Blend, Trainer

_KINDS = (np.uint8, np.uint16, np.uint32)  # the first that holds all ids, as NumpyDatasetDType is chosen

_OLMO = Trainer(
    name="OLMo-core",
    recipe="""
OLMo-core finds the ends of plays by the EOS of its tokenizer. For one play per instance, in order:

```python
from olmo_core.data import NumpyPaddedFSLDatasetConfig, TokenizerConfig

dataset = NumpyPaddedFSLDatasetConfig(
    tokenizer=TokenizerConfig(vocab_size=VOCABULARY, eos_token_id=EOS, pad_token_id=PAD),
    paths=["EXPORT/{folder}/replay.npy"], sequence_length=LENGTH, work_dir="WORK",
).build()
```

Set `shuffle=False` in the data loader. Of the other datasets, `NumpyFSLDatasetConfig` joins plays and cuts them into
sequences, and `NumpyPackedFSLDatasetConfig` packs them.
""",
    order="kept, with `shuffle=False`",
    weights="refused; select with `--realisation repeat`",
    samples="token ids that were embedded",
    proved=("ai2-olmo-core",),
    blend=Blend(
        name="mixture.yaml",
        language="yaml",
        text="""sources:
  - {source_name: new, target_ratio: {rest}, paths: ["{new}"]}
  - {source_name: replay, target_ratio: {share}, paths: ["EXPORT/{folder}/replay.npy"]}
""",
        use="""To mix by tokens with the new corpus, also flat `.npy` files (a path or a glob), use
`SourceMixtureDatasetConfig` with `source_list=SourceMixtureList(...)` of {file}:""",
    ),
)


class Olmo(IdFiles):
    """``replay.npy``, which has no header, and ``replay.csv.gz``: start, end, id, source file and row of every play."""

    name: ClassVar[str] = "olmo"
    summary: ClassVar[str] = "token ids as the flat .npy of OLMo-core, with a .csv.gz of where each play is"
    suffix: ClassVar[str] = ".npy"
    beside: ClassVar[tuple[str, ...]] = (".csv.gz",)
    keeps: ClassVar[tuple[str, ...]] = ("sample_id", "shard", "row")  # which sample it is, but not what it weighs
    trainers: ClassVar[tuple[Trainer, ...]] = (_OLMO,)

    def dtype(self, size: int) -> np.dtype:
        return holding(size, _KINDS)

    def write_places(self, path: str, lengths: np.ndarray, dtype: np.dtype, plays: Sequence[Record]) -> str:
        from cptsel.pipeline import io

        table = path.removesuffix(self.suffix) + ".csv.gz"
        io.write_bytes(table, gzip.compress(_table(lengths, plays), mtime=0))
        return table

    def read(self, path: str) -> Iterator[Record]:
        from cptsel.pipeline import io

        data = gzip.decompress(io.read_bytes(path.removesuffix(self.suffix) + ".csv.gz"))
        rows = list(csv.reader(text_io.StringIO(data.decode(), newline="")))
        bounds = np.asarray([row[:2] for row in rows], dtype=np.int64).reshape(-1, 2)
        plays = [{"sample_id": row[2], "shard": row[3], "row": int(row[4])} for row in rows]
        lengths = bounds[:, 1] - bounds[:, 0]
        if _table(lengths, plays) != data:
            raise ValueError("has a .csv.gz that is not one of its plays")
        ids = read_ids(path, lengths, dtype_of(path, lengths, _KINDS))
        return ({**play, "input_ids": mine} for play, mine in zip(plays, ids, strict=True))


def _table(lengths: np.ndarray, plays: Iterable[Record]) -> bytes:
    """Lines of the ``.csv.gz``: of plays that take so many numbers (n,) int64, where each lies."""
    ends, lines = np.cumsum(lengths), text_io.StringIO()
    rows = csv.writer(lines, lineterminator="\n")
    for start, end, play in zip((ends - lengths).tolist(), ends.tolist(), plays, strict=True):
        rows.writerow([start, end, play["sample_id"], play["shard"], play["row"]])
    return lines.getvalue().encode()
