"""MosaicML streaming, for llm-foundry and Composer: MDS shards with their ``index.json``."""

import json
import posixpath
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.model.vocabulary import Vocabulary
from cptsel.schemas.headers import ExportFile

_COLUMNS = {  # by name, as MDSWriter sorts them: encoding, bytes where all values have as many, and how to write one
    "group": "str",
    "id": "str",
    "loss_weight": "float64",
    "repeat": "int32",
    "row": "int64",
    "sample_id": "str",
    "shard": "str",
    "text": "str",
    "weight": "float64",
}
_NUMBERS = {"float64": "<d", "int32": "<i", "int64": "<q"}

_RECIPE = """
```python
from streaming import StreamingDataset

replay = StreamingDataset(local="EXPORT/{folder}", shuffle=False, num_canonical_nodes=1, batch_size=BATCH)
```

llm-foundry, beside the new corpus, under `train_loader.dataset`:

```yaml
streams:
  new: {local: /data/new, proportion: 0.95}
  replay: {local: EXPORT/{folder}, proportion: 0.05}
shuffle: false
num_canonical_nodes: 1
```

A `proportion` draws from a stream as often as it takes; `repeat: 1` plays it once. `text` is tokenised there.
"""


class Mds(ExportFormat):
    """Version 2 of the format, not compressed; a sample a play."""

    name: ClassVar[str] = "mds"
    summary: ClassVar[str] = "MDS shards of MosaicML streaming and llm-foundry"
    suffix: ClassVar[str] = ".mds"
    beside: ClassVar[tuple[str, ...]] = ("/index.json",)
    unit: ClassVar[str] = "sample"
    layout: ClassVar = "parts"

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        from cptsel.pipeline import io

        samples = [_sample(record) for record in records]
        head = json.dumps(_facts(), sort_keys=True).encode()
        sizes = np.asarray([len(sample) for sample in samples], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(sizes)]) + 4 + 4 * (len(samples) + 1) + len(head)
        if offsets[-1] >= 1 << 32:
            raise ValueError(f"{path}: {offsets[-1]:,} bytes, and an MDS shard holds less than 4 GiB")
        with io.atomic_writer(path) as handle:
            handle.write(struct.pack("<I", len(samples)) + offsets.astype("<u4").tobytes() + head)
            for sample in samples:
                handle.write(sample)
        return [path]

    def finish(self, folder: str, files: Mapping[str, ExportFile]) -> Sequence[str]:
        from cptsel.pipeline import io

        shards = [
            {
                **_facts(),
                "raw_data": {"basename": posixpath.basename(name), "bytes": entry["bytes"], "hashes": {}},
                "samples": entry["lines"],
                "version": 2,
                "zip_data": None,
            }
            for name, entry in files.items()
        ]
        path = io.join(folder, "index.json")
        io.write_json(path, {"version": 2, "shards": shards})
        return [path]

    def recipe(self, folders: Sequence[str]) -> str:
        return _RECIPE.replace("{folder}", folders[0])


def _facts() -> dict[str, Any]:
    """What every shard says of itself."""
    sizes = [struct.calcsize(_NUMBERS[kind]) if kind in _NUMBERS else None for kind in _COLUMNS.values()]
    return {
        "column_encodings": list(_COLUMNS.values()),
        "column_names": list(_COLUMNS),
        "column_sizes": sizes,
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": None,
    }


def _sample(record: Record) -> bytes:
    """Sizes of the values that have none of their own, then all values by column."""
    values = []
    for name, kind in _COLUMNS.items():
        value = record[name]
        values.append(struct.pack(_NUMBERS[kind], value) if kind in _NUMBERS else (value or "").encode())
    sizes = [len(value) for value, kind in zip(values, _COLUMNS.values(), strict=True) if kind not in _NUMBERS]
    return struct.pack(f"<{len(sizes)}I", *sizes) + b"".join(values)
