"""MosaicML streaming, for llm-foundry and Composer: MDS shards with their ``index.json``."""

import json
import posixpath
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.media import Media
from cptsel.pipeline.exports.trainers import Blend, Trainer
from cptsel.pipeline.model.vocabulary import Vocabulary
from cptsel.pipeline.summary import counted
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
_LIMIT = 1 << 32  # bytes: places in a shard are uint32
_NUMBERS = {"float64": "<d", "int32": "<i", "int64": "<q"}

_STREAMING = Trainer(
    name="MosaicML streaming",
    recipe="""
```python
from streaming import StreamingDataset

replay = StreamingDataset(local="EXPORT/{folder}", shuffle=False, num_canonical_nodes=1, batch_size=BATCH)
```
""",
    order="kept, with the recipe's options",
    weights="columns, for a loss of your own",
    proved=("mosaicml-streaming",),
)
_FOUNDRY = Trainer(
    name="llm-foundry",
    recipe="""
llm-foundry tokenises `text`. A `proportion` draws samples from a stream, again if necessary; `repeat: 1` plays it once.
""",
    order="kept, with the recipe's options, if only one stream is read",
    weights="do not reach it",
    proved=("llm-foundry",),
    blend=Blend(
        name="streams.yaml",
        language="yaml",
        text="""streams:
  new: {local: "{new}", proportion: {rest}}
  replay: {local: "EXPORT/{folder}", proportion: {share}}
shuffle: false
num_canonical_nodes: 1
""",
        use="To mix with the new corpus, also an MDS folder, put this under `train_loader.dataset` ({file}):",
    ),
)


class Mds(ExportFormat):
    """Version 2 of the format, not compressed; a sample a play."""

    name: ClassVar[str] = "mds"
    summary: ClassVar[str] = "MDS shards for MosaicML streaming and llm-foundry"
    suffix: ClassVar[str] = ".mds"
    beside: ClassVar[tuple[str, ...]] = ("/index.json",)
    unit: ClassVar[str] = "sample"
    layout: ClassVar = "parts"
    trainers: ClassVar[tuple[Trainer, ...]] = (_STREAMING, _FOUNDRY)
    media: ClassVar[Media | None] = Media(types=("application/octet-stream",), loads=False)

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        from cptsel.pipeline import io

        samples = [_sample(record) for record in records]
        head = _head()
        sizes = np.asarray([len(sample) for sample in samples], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(sizes)]) + 4 + 4 * (len(samples) + 1) + len(head)
        if offsets[-1] >= _LIMIT:
            raise UsageError(
                f"{path}: would have {offsets[-1]:,} bytes, and an MDS shard holds less than 4 GiB; use --to parquet "
                "or webdataset"
            )
        with io.atomic_writer(path) as handle:
            handle.write(struct.pack("<I", len(samples)) + offsets.astype("<u4").tobytes() + head)
            for sample in samples:
                handle.write(sample)
        return [path]

    def read(self, path: str) -> Iterator[Record]:
        from cptsel.pipeline import io

        data, head = io.read_bytes(path), _head()
        (count,) = struct.unpack_from("<I", data)
        if 4 * (count + 2) + len(head) > len(data):
            raise ValueError(f"says that it holds {counted(count, 'play')}, and is too short for them")
        offsets = np.frombuffer(data, "<u4", count + 1, 4).tolist()
        first = 4 * (count + 2)
        if data[first : first + len(head)] != head or offsets[0] != first + len(head) or offsets[-1] != len(data):
            raise ValueError("has a header that is not one of its plays")
        return (_record(data[begin:end]) for begin, end in pairwise(offsets))

    def kept(self, record: Record) -> Record:
        """``id`` is empty where there is none, as a string can't be missing there."""
        return {**super().kept(record), "id": record["id"] or ""}

    def index(self, folder: str, files: Mapping[str, ExportFile]) -> Mapping[str, Any]:
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
        return {"index.json": {"version": 2, "shards": shards}}


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


def _head() -> bytes:
    """``_facts`` as they stand in a shard."""
    return json.dumps(_facts(), sort_keys=True).encode()


def _record(data: bytes) -> Record:
    """The record that ``_sample`` made into bytes."""
    sizes = [struct.calcsize(_NUMBERS[kind]) if kind in _NUMBERS else None for kind in _COLUMNS.values()]
    count = sizes.count(None)
    strings, place, record = iter(struct.unpack_from(f"<{count}I", data)), 4 * count, {}
    for (name, kind), fixed in zip(_COLUMNS.items(), sizes, strict=True):
        size = next(strings) if fixed is None else fixed
        value, place = data[place : place + size], place + size
        record[name] = struct.unpack(_NUMBERS[kind], value)[0] if kind in _NUMBERS else value.decode()
    if place != len(data):
        raise ValueError("holds a play whose values are longer or shorter than it is")
    return record


def _sample(record: Record) -> bytes:
    """Sizes of the values that have none of their own, then all values by column."""
    values = []
    for name, kind in _COLUMNS.items():
        value = record[name]
        values.append(struct.pack(_NUMBERS[kind], value) if kind in _NUMBERS else (value or "").encode())
    sizes = [len(value) for value, kind in zip(values, _COLUMNS.values(), strict=True) if kind not in _NUMBERS]
    return struct.pack(f"<{len(sizes)}I", *sizes) + b"".join(values)
