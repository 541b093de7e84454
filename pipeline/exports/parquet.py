"""Parquet, compressed with zstd: a play a row. ``datasets`` and most loaders read it as it is."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import pyarrow.parquet as pq

from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.media import Media
from cptsel.pipeline.exports.tables import ROWS, check_columns, schema_of, tables
from cptsel.pipeline.exports.trainers import Trainer, draws_recipe
from cptsel.pipeline.model.vocabulary import Vocabulary

_PYTORCH = Trainer(
    name="PyTorch, with replay_dataset.py",
    recipe="""
`code/replay_dataset.py` in the export is a single file that needs only pyarrow and torch:

```python
import sys

sys.path.insert(0, "EXPORT/code")  # or copy the file

from replay_dataset import Mixed, ReplayDataset, ReplayStream

replay = ReplayDataset("EXPORT", epoch=0, rank=0)      # plays by index, in order
stream = ReplayStream(replay, batch_size=8)            # in order with any number of loader workers; resumes
batches = Mixed(new_batches, replay_batches, fraction={share})  # of two DataLoaders
```

`replay` is also a source for grain (`MapDataset.source(replay)`) and torchdata (`MapStyleWrapper`). Exports whose
weights are realised by draws are refused: load the rows with Hugging Face datasets, and draw them by `weight`.
""",
    order="kept, by rank and epoch",
    weights="columns, for a loss of your own; draws are refused",
    samples="text, or text and token ids",
    proved=("torch", "grain", "torchdata"),
)
_EXAMPLE = Trainer(
    name="Hugging Face Trainer, from Parquet",
    recipe="""
Export with `--ids`, and order for no more than one rank, as the Trainer itself deals batches out to its processes.
`new` is a dataset of `{"input_ids": [...]}` by index.

```python
import sys

sys.path.insert(0, "EXPORT/code")  # or copy the file

import torch
from replay_dataset import MixedDataset, ReplayDataset
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, TrainingArguments


def collate(plays):  # BOS before each window, as when it was embedded; no loss on padding
    rows = [torch.tensor([tokenizer.bos_token_id, *play["input_ids"]]) for play in plays]
    ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.eos_token_id)
    there = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": there, "labels": ids.masked_fill(there == 0, -100)}


settings = TrainingArguments(
    output_dir="OUT",
    train_sampling_strategy="sequential",  # otherwise the Trainer shuffles
    remove_unused_columns=False,  # keeps loss_weight and the other fields of a play
    num_train_epochs=1,
)
mixed = MixedDataset(new, ReplayDataset("EXPORT"), fraction={share})
Trainer(model, settings, data_collator=collate, train_dataset=mixed).train()
```

After a kill, `resume_from_checkpoint` continues at the last checkpoint. If losses are to be multiplied, write a
`compute_loss` that calls `weighted_loss` of the same file with each play's `loss_weight`.
""",
    order="kept, through a kill and resumption",
    weights="columns, for a loss of your own",
    samples="token ids that were embedded",
    proved=("transformers",),
    needs="input_ids",
)
_LITDATA = Trainer(
    name="LitData",
    recipe="""
```python
from litdata import StreamingDataset, index_parquet_dataset
from litdata.streaming.item_loader import ParquetLoader

index_parquet_dataset("EXPORT/{folder}", "CACHE")  # then sort `chunks` in CACHE/index.json by filename
replay = StreamingDataset("EXPORT/{folder}", item_loader=ParquetLoader(), index_path="CACHE", shuffle=False)
```
""",
    order="kept, once the index is sorted",
    weights="columns, for a loss of your own",
    proved=("litdata",),
    needs="text",
)
_TORCHTITAN = Trainer(
    name="torchtitan",
    recipe="""
Put this into the module of your configuration. Sorted by name, the files of one rank follow those of another:

```python
from glob import glob

from datasets import load_dataset
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import DATASETS, HuggingFaceTextDataLoader

DATASETS["replay"] = DatasetConfig(
    path="EXPORT/{folder}",
    loader=lambda path: load_dataset(
        "parquet", data_files=sorted(glob(f"{path}/**/*.parquet", recursive=True)), split="train"
    ),
    sample_processor=lambda play: play["text"],
)
dataloader = HuggingFaceTextDataLoader.Config(dataset="replay", infinite=False)
```

Each data-parallel rank plays a slice of the plays, in order. Plays are joined, with BOS and EOS, and cut into
sequences; an incomplete last sequence is dropped. With `infinite`, plays are shuffled from the second round on. To mix
in a new corpus, by tokens: `InterleavedHuggingFaceTextDataLoader.Config` with `sources=[HFDataSource(dataset="new",
weight={rest}), HFDataSource(dataset="replay", weight={share})]`.
""",
    order="kept within each rank, which plays a slice",
    weights="do not reach it",
    proved=("torchtitan",),
    needs="text",
)
_FILES = Trainer(
    name="Hugging Face datasets, from Parquet",
    recipe="""
Load the files sorted by name:
`load_dataset("parquet", data_files=sorted(glob("EXPORT/{folder}/**/*.parquet", recursive=True)))`
""",
    order="kept",
    weights="columns, for a loss or draws of your own",
    samples="text, or text and token ids",
    proved=("datasets",),
    draws=draws_recipe(
        "import pyarrow.parquet as pq", 'pq.read_table("EXPORT/{folder}")', "rows.slice(place, 1).to_pylist()[0]"
    ),
)


class Parquet(ExportFormat):
    """One row a play."""

    name: ClassVar[str] = "parquet"
    summary: ClassVar[str] = "Parquet, repeats expanded, files in order, for replay_dataset.py and most loaders"
    suffix: ClassVar[str] = ".parquet"
    unit: ClassVar[str] = "row"
    writes_ids: ClassVar[bool] = True
    code: ClassVar[tuple[str, ...]] = ("replay_dataset.py",)
    trainers: ClassVar[tuple[Trainer, ...]] = (_PYTORCH, _EXAMPLE, _LITDATA, _TORCHTITAN, _FILES)
    media: ClassVar[Media | None] = Media(types=("application/x-parquet",))

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        from cptsel.pipeline import io

        schema = schema_of(vocabulary)
        options = {"compression": "zstd", "version": "2.6", "write_page_checksum": True}
        with io.atomic_writer(path) as handle, pq.ParquetWriter(handle, schema, **options) as writer:
            for table in tables(records, schema):
                writer.write_table(table)
        return [path]

    def read(self, path: str) -> Iterator[Record]:
        from cptsel.pipeline import io

        with io.open_read(path) as handle:
            file = pq.ParquetFile(handle, page_checksum_verification=True)
            check_columns(file.schema_arrow)
            for batch in file.iter_batches(ROWS, use_threads=False):  # as in io.read_parquet
                yield from batch.to_pylist()
