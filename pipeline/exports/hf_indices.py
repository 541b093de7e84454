"""Rows of a corpus that is a Hugging Face data set, for ``select(indices)``: which to play, and no texts."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.exports.base import FIELDS, ExportFormat, Record
from cptsel.pipeline.exports.trainers import Trainer
from cptsel.pipeline.model.vocabulary import Vocabulary
from cptsel.pipeline.summary import counted
from cptsel.schemas.arrow import PLACES, check_schema

if TYPE_CHECKING:
    from cptsel.pipeline.artifacts.manifest import Manifest

_ROWS = 100_000  # of a row group
_READ = ("arrow", "parquet")  # formats whose every row is one of the data set

_SELECT = Trainer(
    name="Hugging Face datasets, by select",
    recipe="""
CORPUS is the data set that was embedded, with all its files sorted by path. Load a corpus of Parquet files with
`load_dataset("parquet", data_files=sorted(glob("CORPUS/**/*.parquet", recursive=True)), split="train")`.

```python
import pyarrow.parquet as pq
from datasets import load_from_disk

corpus = load_from_disk("CORPUS")
plays = pq.read_table("EXPORT/{folder}/replay.parquet")
replay = corpus.select(plays["index"].to_numpy())  # one row per play, in order, with repeats
```

`plays` has the weights, row by row. Don't use `add_column`: it first writes all plays beside the files of CORPUS, as a
cache. `index` counts the rows of all files that were embedded, sorted by path; if the data set has other files too, use
`shard` and `row`. To mix in a new corpus: `interleave_datasets([new, replay], probabilities=[{rest}, {share}],
seed=SEED)`.
""",
    order="kept",
    weights="columns, for a loss or draws of your own",
    samples="whole documents, by row",
    repeats="in the indices",
    proved=("datasets",),
)


class HfIndices(ExportFormat):
    """``replay.parquet``: a row a play, which says the row of the corpus that it is."""

    name: ClassVar[str] = "hf-indices"
    summary: ClassVar[str] = "row numbers for select of Hugging Face datasets, if every sample is a whole document"
    suffix: ClassVar[str] = ".parquet"
    unit: ClassVar[str] = "row"
    layout: ClassVar = "whole"
    keeps: ClassVar[tuple[str, ...]] = ("index", *(name for name in FIELDS if name != "text"))
    refers: ClassVar = "index"
    trainers: ClassVar[tuple[Trainer, ...]] = (_SELECT,)

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        from cptsel.pipeline import io

        options = {"compression": "zstd", "version": "2.6", "write_page_checksum": True}
        rest = iter(records)
        with io.atomic_writer(path) as handle, pq.ParquetWriter(handle, PLACES, **options) as writer:
            while rows := list(islice(rest, _ROWS)):
                writer.write_table(pa.Table.from_pylist(rows, schema=PLACES))
        return [path]

    def read(self, path: str) -> Iterator[Record]:
        from cptsel.pipeline import io

        with io.open_read(path) as handle:
            file = pq.ParquetFile(handle, page_checksum_verification=True)
            problem = check_schema(file.schema_arrow, PLACES)
            if problem or file.schema_arrow.names != PLACES.names:
                raise ValueError(problem or f"has other columns than {', '.join(PLACES.names)}")
            for batch in file.iter_batches(_ROWS, use_threads=False):  # as in io.read_parquet
                yield from batch.to_pylist()

    def check_corpus(self, manifest: "Manifest", root: str | None) -> None:
        """Every row of the corpus must be a row of the data set, and all of them must be known to the manifest."""
        from cptsel.pipeline.artifacts.manifest import source_uri
        from cptsel.pipeline.corpus.texts import count_rows

        shards = manifest.shards().to_pylist()
        for shard in shards:
            if shard["format"] not in _READ or shard["compression"] != "none":
                raise UsageError(
                    f"--to {self.name} takes a corpus of Arrow or Parquet files, and {shard['path']} is none; "
                    "use --to hf, which writes the texts"
                )
        uris = [source_uri(shard, root) for shard in shards]
        with ThreadPoolExecutor(max_workers=8) as pool:
            counts = pool.map(lambda uri, shard: count_rows(uri, shard["format"]), uris, shards)
        for uri, shard, count in zip(uris, shards, counts, strict=True):
            if count != shard["rows"]:
                raise UsageError(
                    f"{uri} has {counted(count, 'row')}, and {shard['rows']:,} were read when it was embedded, so rows "
                    f"can't be counted; embed without --limit, or use --to hf"
                )

    def loses(self, manifest: "Manifest") -> list[str]:
        return [*super().loses(manifest), "The export has no texts: the trainer reads the corpus, as it is then."]
