"""Exports read back without the code that wrote them, by plain numpy, json and tarfile."""

import csv
import gzip
import json
import struct
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np


def read_webdataset(folder: Path) -> list[dict]:
    """Plays in order, with their text."""
    plays = []
    for shard in json.loads((folder / "shards.json").read_text())["shardlist"]:
        with tarfile.open(folder / shard["url"]) as tar:
            members = [(member.name, tar.extractfile(member).read().decode()) for member in tar]
        texts, facts = members[0::2], members[1::2]
        assert [name.removesuffix(".txt") for name, _ in texts] == [name.removesuffix(".json") for name, _ in facts]
        found = [{"text": text, **json.loads(fact)} for (_, text), (_, fact) in zip(texts, facts, strict=True)]
        assert len(found) == shard["nsamples"]
        plays += found
    return plays


def read_mds(folder: Path) -> list[dict]:
    """Plays in order, by the layout that MosaicML documents."""
    plays = []
    for shard in json.loads((folder / "index.json").read_text())["shards"]:
        data = (folder / shard["raw_data"]["basename"]).read_bytes()
        assert len(data) == shard["raw_data"]["bytes"]
        (count,) = struct.unpack_from("<I", data)
        assert count == shard["samples"]
        offsets = struct.unpack_from(f"<{count + 1}I", data, 4)
        for begin, end in pairwise(offsets):
            plays.append(_mds_sample(data[begin:end], shard))
    return plays


def _mds_sample(data: bytes, shard: dict) -> dict:
    variable = sum(size is None for size in shard["column_sizes"])
    sizes = iter(struct.unpack_from(f"<{variable}I", data))
    place, play = 4 * variable, {}
    columns = zip(shard["column_names"], shard["column_encodings"], shard["column_sizes"], strict=True)
    for name, encoding, size in columns:
        size = next(sizes) if size is None else size
        value, place = data[place : place + size], place + size
        play[name] = value.decode() if encoding == "str" else np.frombuffer(value, encoding)[0].item()
    assert place == len(data)
    return play


def read_megatron(folder: Path) -> list[list[int]]:
    """Token ids of every document."""
    index = (folder / "replay.idx").read_bytes()
    assert index[:17] == b"MMIDIDX\x00\x00" + struct.pack("<Q", 1)
    dtype = {8: np.uint16, 4: np.int32}[index[17]]
    sequences, documents = struct.unpack_from("<QQ", index, 18)
    lengths = np.frombuffer(index, "<i4", sequences, 34)
    pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    bounds = np.frombuffer(index, "<i8", documents, 34 + 12 * sequences)
    assert bounds.tolist() == list(range(sequences + 1))
    assert len(index) == 34 + 12 * sequences + 8 * documents
    data = (folder / "replay.bin").read_bytes()
    return [np.frombuffer(data, dtype, n, p).tolist() for n, p in zip(lengths, pointers.tolist(), strict=True)]


def read_olmo(folder: Path, dtype: type = np.uint16) -> list[tuple[str, list[int]]]:
    """sample_id and token ids of every play."""
    data = np.fromfile(folder / "replay.npy", dtype)
    with gzip.open(folder / "replay.csv.gz", "rt") as lines:
        rows = list(csv.reader(lines))
    return [(name, data[int(begin) : int(end)].tolist()) for begin, end, name, *_ in rows]


def read_datatrove(folder: Path, dtype: type = np.uint16) -> list[list[int]]:
    """Token ids of every document."""
    ends = np.fromfile(folder / "replay.ds.index", "<u8").astype(np.int64)
    data = np.fromfile(folder / "replay.ds", dtype)
    assert len(data) == ends[-1]
    return [part.tolist() for part in np.split(data, ends[:-1])]
