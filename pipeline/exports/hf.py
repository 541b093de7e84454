"""Hugging Face ``datasets``: a folder that ``load_from_disk`` opens without copying it."""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.tables import schema_of, tables
from cptsel.pipeline.model.vocabulary import Vocabulary
from cptsel.schemas.headers import ExportFile

_RECIPE = """
```python
from datasets import load_from_disk

replay = load_from_disk("EXPORT/{folder}")  # a row a play, in order
```

The Hugging Face `Trainer` shuffles unless it is told not to: `TrainingArguments(train_sampling_strategy="sequential")`
(transformers 5.2 or newer). TRL's trainers inherit that. axolotl: `path: EXPORT/{folder}` under `datasets` with
`shuffle_merged_datasets: false` and `curriculum_sampling: true`.
"""


class HuggingFace(ExportFormat):
    """Arrow streams with ``dataset_info.json`` and ``state.json``, as ``Dataset.save_to_disk`` writes them."""

    name: ClassVar[str] = "hf"
    summary: ClassVar[str] = "a folder for load_from_disk of Hugging Face datasets"
    suffix: ClassVar[str] = ".arrow"
    beside: ClassVar[tuple[str, ...]] = ("/dataset_info.json", "/state.json")
    unit: ClassVar[str] = "row"
    layout: ClassVar = "parts"
    writes_ids: ClassVar[bool] = True

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        from cptsel.pipeline import io

        schema = schema_of(vocabulary)
        with io.atomic_writer(path) as handle, pa.ipc.new_stream(handle, schema) as writer:
            for table in tables(records, schema):
                writer.write_table(table)
        return [path]

    def finish(self, folder: str, files: Mapping[str, ExportFile]) -> Sequence[str]:
        from cptsel.pipeline import io
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
        paths = [io.join(folder, "dataset_info.json"), io.join(folder, "state.json")]
        for path, value in zip(paths, (info, state), strict=True):
            io.write_json(path, value)
        return paths

    def recipe(self, folders: Sequence[str]) -> str:
        return _RECIPE.replace("{folder}", folders[0])
