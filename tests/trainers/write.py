"""Write a corpus by the library whose format it is; a row is a line of JSON on stdin.

    ENVIRONMENT/bin/python tests/trainers/write.py KIND FOLDER

Run by tests/test_trainers.py, in an environment that environments.py made. It prints the version of the library.
"""

import json
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from read import PACKAGES, import_streaming


def streaming(folder: str, rows: Iterable[dict[str, Any]]) -> None:
    """Shards of some kilobytes; those of the folder named so are compressed."""
    columns = {"id": "str", "text": "str", "meta": "json", "number": "int32"}
    compression = "zstd:7" if folder.endswith("zstd") else None
    with import_streaming().MDSWriter(
        out=folder, columns=columns, compression=compression, hashes=["sha1"], size_limit=4096
    ) as writer:
        for row in rows:
            writer.write(row)


def webdataset(folder: str, rows: Iterable[dict[str, Any]]) -> None:
    """Archives of 40 samples; those of the folder named so are compressed."""
    from webdataset import ShardWriter

    end = ".tar.gz" if folder.endswith("gzip") else ".tar"
    Path(folder).mkdir()
    with ShardWriter(f"{folder}/%04d{end}", maxcount=40, verbose=0) as writer:
        for row in rows:
            facts = {name: value for name, value in row.items() if name != "text"}
            writer.write({"__key__": f"part/{row['id']}", "txt": row["text"], "json": facts})


def megatron(folder: str, rows: Iterable[dict[str, Any]]) -> None:
    """Documents of ids, in files of 40."""
    import torch
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    Path(folder).mkdir()
    every = list(rows)
    for number in range(0, len(every), 40):
        builder = IndexedDatasetBuilder(f"{folder}/{number:04d}.bin", dtype=DType.optimal_dtype(4096))
        for row in every[number : number + 40]:
            builder.add_document(torch.tensor(row["ids"]), [len(row["ids"])])
        builder.finalize(f"{folder}/{number:04d}.idx")


if __name__ == "__main__":
    kind, where = sys.argv[1:]
    globals()[kind](where, map(json.loads, sys.stdin))
    print(version(PACKAGES.get(kind, kind)))
