"""WebDataset: tar files of plays, and the index by which ``wids`` reads them by number."""

import hashlib
import io as bytes_io
import json
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from cptsel.pipeline.exports.base import FIELDS, ExportFormat, Record
from cptsel.pipeline.exports.media import Media, Members
from cptsel.pipeline.exports.trainers import Trainer
from cptsel.pipeline.model.vocabulary import Vocabulary
from cptsel.schemas.headers import ExportFile

_WEBDATASET = Trainer(
    name="WebDataset",
    recipe="""
```python
import json, webdataset

index = json.load(open("EXPORT/{folder}/shards.json"))
urls = ["EXPORT/{folder}/" + shard["url"] for shard in index["shardlist"]]
replay = webdataset.WebDataset(urls, shardshuffle=False).decode().to_tuple("txt", "json")  # in order, on one node

mixed = webdataset.RandomMix([new, replay], probs=[{rest}, {share}])
```

To read plays by number, for samplers: `wids.ShardListDataset("EXPORT/{folder}/shards.json")`.
""",
    order="kept, on one node",
    weights="in `json`, for a loss of your own",
    proved=("webdataset", "wids"),
)
_ENERGON = Trainer(
    name="Megatron Energon",
    recipe="""
Energon first indexes the folder; the files that it writes, in `.nv-meta`, don't belong to the export:

```sh
energon prepare EXPORT/{folder} --non-interactive --split-ratio 1,0,0 --sample-type CrudeWebdataset
```

A sample has the raw members `txt` and `json`, which a cooker reads. Without these options, Energon shuffles; they keep
the order on one worker and rank:

```python
from megatron.energon import Cooker, DefaultTaskEncoder, get_train_dataset
from megatron.energon.task_encoder import stateless

@stateless
def play(sample):
    return {"text": sample["txt"], **sample["json"]}

class Plays(DefaultTaskEncoder):
    cookers = [Cooker(play)]

replay = get_train_dataset(
    "EXPORT/{folder}", worker_config=WORKERS, batch_size=None, shuffle_buffer_size=None, max_samples_per_sequence=None,
    shuffle_over_epochs_multiplier=None, parallel_shard_iters=1, task_encoder=Plays(),
)
```

To mix in a new corpus: a metadataset that blends both with the weights {rest} and {share}.
""",
    order="kept without shuffling, on one worker and rank",
    weights="in `json`, for a loss of your own",
    proved=("megatron-energon",),
)


class WebDataset(ExportFormat):
    """A play is two members of a tar file: ``.txt``, its text, and ``.json``, all else."""

    name: ClassVar[str] = "webdataset"
    summary: ClassVar[str] = "WebDataset tar files, with the index of wids"
    suffix: ClassVar[str] = ".tar"
    beside: ClassVar[tuple[str, ...]] = ("/shards.json",)
    unit: ClassVar[str] = "sample"
    layout: ClassVar = "parts"
    trainers: ClassVar[tuple[Trainer, ...]] = (_WEBDATASET, _ENERGON)
    media: ClassVar[Media | None] = Media(
        types=("application/x-tar",),
        members=(
            Members("texts", ".txt", "text/plain", {"text": {"extract": {"fileProperty": "content"}}}),
            Members(
                "facts",
                ".json",
                "application/json",
                {name: {"extract": {"jsonPath": f"$.{name}"}} for name in FIELDS if name != "text"},
            ),
        ),
    )

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        from cptsel.pipeline import io

        with (
            io.atomic_writer(path) as handle,
            tarfile.open(fileobj=handle, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for number, record in enumerate(records):
                facts = {key: value for key, value in record.items() if key != "text"}
                members = {"txt": record["text"], "json": json.dumps(facts, ensure_ascii=False)}
                for end, value in members.items():
                    data = value.encode()
                    tar.addfile(_member(_key(path, number), end, len(data)), bytes_io.BytesIO(data))
        return [path]

    def read(self, path: str) -> Iterator[Record]:
        from cptsel.pipeline import io

        with io.open_read(path) as handle:
            number = 0
            while (text := _value(handle, path, number, "txt")) is not None:
                facts = _value(handle, path, number, "json")
                record = {} if facts is None else json.loads(facts)
                written = isinstance(record, dict) and "text" not in record
                if not written or json.dumps(record, ensure_ascii=False).encode() != facts:
                    raise ValueError(f"holds no .json of play {number} as export writes it")
                yield {"text": text.decode(), **record}
                number += 1
            place = handle.tell()  # behind the first of two blocks of zeros, which are padded to a record
            end = -(-(place + tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
            if handle.read(end - place + 1) != bytes(end - place):
                raise ValueError("does not end behind its last play")

    def index(self, folder: str, files: Mapping[str, ExportFile]) -> Mapping[str, Any]:
        from cptsel.pipeline import io

        shards = []
        for name, entry in files.items():
            url = posixpath.basename(name)
            md5 = hashlib.md5(usedforsecurity=False)
            with io.open_read(io.join(folder, url)) as handle:
                while chunk := handle.read(1 << 20):
                    md5.update(chunk)
            sizes = {"nsamples": entry["lines"], "filesize": entry["bytes"]}
            shards.append({"url": url, "md5sum": md5.hexdigest(), **sizes})
        return {"shards.json": {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards}}


def _key(path: str, number: int) -> str:
    """What a play is called, in no two files alike, as some readers join all of a folder."""
    return f"{posixpath.basename(path).partition('.')[0]}-{number:09d}"


def _member(key: str, end: str, size: int) -> tarfile.TarInfo:
    """A value of a play: no time, owner or mode of its own."""
    member = tarfile.TarInfo(f"{key}.{end}")
    member.size = size
    return member


def _value(handle: BinaryIO, path: str, number: int, end: str) -> bytes | None:
    """The next value of a tar file, which is to be that of a play; None behind the last."""
    head = handle.read(tarfile.BLOCKSIZE)
    if head == bytes(tarfile.BLOCKSIZE):
        return None
    size = int(head[124:135] or b"0", 8)  # where a header has it, in octal digits
    padding = -size % tarfile.BLOCKSIZE
    if head != _member(_key(path, number), end, size).tobuf(tarfile.USTAR_FORMAT):
        raise ValueError(f"holds another member where the .{end} of play {number} is to be")
    data = handle.read(size)
    if len(data) != size or handle.read(padding) != bytes(padding):
        raise ValueError(f"ends inside play {number}")
    return data
