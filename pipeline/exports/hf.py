"""Hugging Face ``datasets``: a folder that ``load_from_disk`` opens without copying it."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.media import Media
from cptsel.pipeline.exports.tables import check_columns, schema_of, tables
from cptsel.pipeline.exports.trainers import Trainer, draws_recipe
from cptsel.pipeline.model.vocabulary import Vocabulary
from cptsel.schemas.headers import ExportFile

_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # of an Arrow stream

_DATASETS = Trainer(
    name="Hugging Face datasets",
    recipe="""
```python
from datasets import load_from_disk

replay = load_from_disk("EXPORT/{folder}")  # one row per play, in order
```

To mix in a new corpus, with the plays in their order: `interleave_datasets([new, replay], probabilities=[{rest},
{share}], seed=SEED)`.
""",
    order="kept",
    weights="a column, for a loss or draws of your own",
    samples="text, or text and token ids",
    proved=("datasets",),
    draws=draws_recipe("from datasets import load_from_disk", 'load_from_disk("EXPORT/{folder}")', "rows[place]"),
)
_TRAINER = Trainer(
    name="Hugging Face Trainer",
    recipe="""
```python
from datasets import load_from_disk
from transformers import AutoTokenizer, DataCollatorForLanguageModeling, Trainer, TrainingArguments

tokenizer = AutoTokenizer.from_pretrained("MODEL")  # with a pad_token
replay = load_from_disk("EXPORT/{folder}").with_transform(lambda plays: tokenizer(plays["text"]))
settings = TrainingArguments(
    "OUT", train_sampling_strategy="sequential", remove_unused_columns=False, num_train_epochs=1
)
collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
Trainer(model, settings, train_dataset=replay, data_collator=collate).train()
```

Without `sequential`, which needs transformers 5.2 or newer, it shuffles. Don't use `map` in place of `with_transform`:
it would write all plays a second time, into the export.
""",
    order="kept, with `sequential`",
    weights="a column, for a loss of your own",
    proved=("transformers",),
    needs="text",
)
_TRL = Trainer(
    name="TRL",
    recipe="""
```python
from datasets import load_from_disk
from trl import SFTConfig, SFTTrainer

settings = SFTConfig(
    output_dir="OUT", dataset_text_field="text", packing=False, max_length=LENGTH,
    train_sampling_strategy="sequential", num_train_epochs=1,
)
SFTTrainer("MODEL", settings, train_dataset=load_from_disk("EXPORT/{folder}")).train()
```

LENGTH must fit a window with BOS and EOS; what is longer is cut off. With packing, TRL combines sequences by length,
in its own order. To mix in a new corpus: `train_dataset=interleave_datasets([new, replay], probabilities=[{rest},
{share}], seed=SEED)`.
""",
    order="kept, with `sequential` and without packing",
    weights="do not reach it",
    proved=("trl",),
    needs="text",
)
_AXOLOTL = Trainer(
    name="axolotl",
    recipe="""
```yaml
datasets:
  - {path: "EXPORT/{folder}", type: completion, field: text}
shuffle_merged_datasets: false
curriculum_sampling: true
sample_packing: false
sequence_len: LENGTH
num_epochs: 1
```

LENGTH must fit a window with BOS and EOS; what is longer is cut into several sequences. A new corpus as another entry
of `datasets` would be played before or after the replay. To mix the two, save `interleave_datasets([new, replay],
probabilities=[{rest}, {share}], seed=SEED)` of Hugging Face datasets, and give that as `path`.
""",
    order="kept, with the recipe's options and without packing",
    weights="do not reach it",
    proved=("axolotl",),
    needs="text",
)


class HuggingFace(ExportFormat):
    """Arrow streams with ``dataset_info.json`` and ``state.json``, as ``Dataset.save_to_disk`` writes them."""

    name: ClassVar[str] = "hf"
    summary: ClassVar[str] = "a folder for load_from_disk of Hugging Face datasets"
    suffix: ClassVar[str] = ".arrow"
    beside: ClassVar[tuple[str, ...]] = ("/dataset_info.json", "/state.json")
    unit: ClassVar[str] = "row"
    layout: ClassVar = "parts"
    writes_ids: ClassVar[bool] = True
    trainers: ClassVar[tuple[Trainer, ...]] = (_DATASETS, _TRAINER, _TRL, _AXOLOTL)
    media: ClassVar[Media | None] = Media(types=("application/vnd.apache.arrow.stream",))

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        from cptsel.pipeline import io

        schema = schema_of(vocabulary)
        with io.atomic_writer(path) as handle, pa.ipc.new_stream(handle, schema) as writer:
            for table in tables(records, schema):
                writer.write_table(table)
        return [path]

    def read(self, path: str) -> Iterator[Record]:
        from cptsel.pipeline import io

        with io.open_read(path) as handle:
            with pa.ipc.open_stream(handle) as reader:
                check_columns(reader.schema)
                for batch in reader:
                    yield from batch.to_pylist()
            place = handle.tell()
            handle.seek(max(0, place - len(_END)))
            if handle.read() != _END:
                raise ValueError("does not end where its Arrow stream does")

    def index(self, folder: str, files: Mapping[str, ExportFile]) -> Mapping[str, Any]:
        from cptsel.pipeline.hashing import fingerprint

        state: dict[str, Any] = {
            "_data_files": [{"filename": posixpath.basename(name)} for name in files],
            "_fingerprint": fingerprint([entry["sha256"] for entry in files.values()])[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        info = {"citation": "", "description": "", "homepage": "", "license": ""}
        return {"dataset_info.json": info, "state.json": state}
