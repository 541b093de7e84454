"""OLMo-core: one flat array of token ids, with a table of where each play lies, as the dolma toolkit writes them."""

import csv
import gzip
import io as text_io
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.id_files import write_ids
from cptsel.pipeline.model.vocabulary import Vocabulary

_RECIPE = """
OLMo-core finds the ends of plays by the EOS of its tokenizer. A play an instance, in order:

```python
from olmo_core.data import NumpyDataLoaderBase, NumpyPaddedFSLDatasetConfig, TokenizerConfig

dataset = NumpyPaddedFSLDatasetConfig(
    tokenizer=TokenizerConfig(vocab_size=VOCABULARY, eos_token_id=EOS, pad_token_id=PAD),
    paths=["EXPORT/{folder}/replay.npy"], sequence_length=LENGTH, work_dir="WORK",
).build()
```

with `shuffle=False` in the data loader. `NumpyFSLDatasetConfig` joins plays and cuts them into sequences instead, and
`NumpyPackedFSLDatasetConfig` packs them. To mix: `SourceMixtureDatasetConfig` with a `target_ratio` for each source.
"""


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
    weighs: ClassVar[bool] = False

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        from cptsel.pipeline import io

        assert vocabulary is not None
        assert vocabulary.eos is not None
        kinds = (np.uint8, np.uint16, np.uint32)  # the first that holds all ids, as NumpyDatasetDType is chosen
        dtype = next(kind for kind in kinds if vocabulary.size - 1 <= np.iinfo(kind).max)
        lengths, plays = write_ids(path, records, dtype, vocabulary.eos)
        ends = np.cumsum(lengths)
        lines = text_io.StringIO()
        rows = csv.writer(lines, lineterminator="\n")
        for start, end, play in zip((ends - lengths).tolist(), ends.tolist(), plays, strict=True):
            rows.writerow([start, end, play["sample_id"], play["shard"], play["row"]])
        table = path.removesuffix(self.suffix) + ".csv.gz"
        io.write_bytes(table, gzip.compress(lines.getvalue().encode(), mtime=0))
        return [path, table]

    def recipe(self, folders: Sequence[str]) -> str:
        return _RECIPE.replace("{folder}", folders[0])
