"""WebDataset: tar files of plays, and the index by which ``wids`` reads them by number."""

import hashlib
import io as bytes_io
import json
import posixpath
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.model.vocabulary import Vocabulary
from cptsel.schemas.headers import ExportFile

_RECIPE = """
```python
import json, webdataset

index = json.load(open("EXPORT/{folder}/shards.json"))
urls = ["EXPORT/{folder}/" + shard["url"] for shard in index["shardlist"]]
replay = webdataset.WebDataset(urls, shardshuffle=False).decode().to_tuple("txt", "json")  # in order, on one node

mixed = webdataset.RandomMix([new, replay], probs=[0.95, 0.05])
```

By number, for samplers: `wids.ShardListDataset("EXPORT/{folder}/shards.json")`.
"""


class WebDataset(ExportFormat):
    """A play is two members of a tar file: ``.txt``, its text, and ``.json``, all else."""

    name: ClassVar[str] = "webdataset"
    summary: ClassVar[str] = "tar files of WebDataset, with the index of wids"
    suffix: ClassVar[str] = ".tar"
    beside: ClassVar[tuple[str, ...]] = ("/shards.json",)
    unit: ClassVar[str] = "sample"
    layout: ClassVar = "parts"

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
                    member = tarfile.TarInfo(f"{number:09d}.{end}")
                    member.size = len(data)
                    tar.addfile(member, bytes_io.BytesIO(data))
        return [path]

    def finish(self, folder: str, files: Mapping[str, ExportFile]) -> Sequence[str]:
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
        path = io.join(folder, "shards.json")
        io.write_json(path, {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards})
        return [path]

    def recipe(self, folders: Sequence[str]) -> str:
        return _RECIPE.replace("{folder}", folders[0])
