"""Corpus files written without the code that reads them, by their documented layouts."""

import gzip
import io
import json
import random
import struct
import tarfile
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from cptsel.pipeline.corpus.documents import REASONS, ReadOptions, read_block, read_stream
from cptsel.pipeline.corpus.shards import inventory

PACK = {  # by the suffix around a file
    **dict.fromkeys(["", ".mds", ".tar"], lambda data: data),
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    ".zstd": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
}


def read_corpus(path: Path, named: str | None = None, **options):
    """All blocks of a file: documents, rejects, rows that were not drawn."""
    settings = ReadOptions(**options)
    shard = inventory(0, str(path), path.name, path.stat().st_size, settings.block_bytes, named, tokens=settings.tokens)
    if shard.blocks is None:
        blocks = list(read_stream(shard, settings))
    else:
        blocks = [read_block(shard, block, settings) for block in shard.blocks]
        bare = replace(shard, blocks=())  # as the units of a pipeline have it
        alone = [replace(read_block(bare, block, settings), last=block is shard.blocks[-1]) for block in shard.blocks]
        assert list(map(_plain, alone)) == list(map(_plain, blocks))
    for block in blocks:
        assert block.rows_read == len(block.documents) + len(block.rejects) + block.rows_not_drawn
        assert all(reject.reason in REASONS for reject in block.rejects)
    assert [block.last for block in blocks] == [False] * (len(blocks) - 1) + [True]
    return (
        [document for block in blocks for document in block.documents],
        [reject for block in blocks for reject in block.rejects],
        sum(block.rows_not_drawn for block in blocks),
    )


def _plain(block):
    """A block whose ids are lists, which can be compared."""
    documents = [
        d if isinstance(d.content, str) else replace(d, content=[str(d.content.dtype), *d.content.tolist()])
        for d in block.documents
    ]
    return replace(block, documents=documents)


def write_megatron(
    path: Path, documents: list[list[list[int]]], dtype: str = "<u2", code: int = 8, modes: bool = False
) -> None:
    """A ``.bin`` with its ``.idx``, of documents that are sequences of ids each; no sequence is added."""
    sequences = [sequence for document in documents for sequence in document]
    lengths, size = [len(sequence) for sequence in sequences], np.dtype(dtype).itemsize
    places = [size * place for place in accumulate(lengths, initial=0)][:-1]
    bounds = list(accumulate(map(len, documents), initial=0))
    path.write_bytes(b"".join(np.array(sequence, dtype).tobytes() for sequence in sequences))
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(lengths), len(bounds))
    numbers = [np.array(lengths, "<i4"), np.array(places, "<i8"), np.array(bounds, "<i8")]
    numbers += [np.zeros(len(lengths), "i1")] if modes else []
    path.with_suffix(".idx").write_bytes(head + b"".join(part.tobytes() for part in numbers))


def write_nanotron(path: Path, documents: list[list[int]], dtype: str = "<u2") -> None:
    """A ``.ds`` with its ``.ds.index`` and ``.ds.metadata``, of documents with what ends them."""
    path.write_bytes(b"".join(np.array(ids, dtype).tobytes() for ids in documents))
    ends = list(accumulate(map(len, documents)))
    Path(f"{path}.index").write_bytes(np.array(ends, "<u8").tobytes())
    Path(f"{path}.metadata").write_text(f"tiny-lm|{np.dtype(dtype).itemsize}\n{sum(map(len, documents))}\n0 T\n")


def mds_bytes(samples: list[list[bytes]], columns: list[tuple[str, str, int | None]]) -> bytes:
    """An MDS shard of values that are bytes already; columns are (name, encoding, size)."""
    names, encodings, sizes = (list(part) for part in zip(*columns, strict=True))
    facts = {"format": "mds", "version": 2, "column_names": names}
    head = json.dumps(facts | {"column_encodings": encodings, "column_sizes": sizes}, sort_keys=True).encode()
    bodies = []
    for values in samples:
        given = [len(value) for value, size in zip(values, sizes, strict=True) if size is None]
        bodies.append(struct.pack(f"<{len(given)}I", *given) + b"".join(values))
    first = 4 + 4 * (len(samples) + 1) + len(head)
    offsets = list(accumulate(map(len, bodies), initial=first))
    return struct.pack(f"<{len(samples) + 2}I", len(samples), *offsets) + head + b"".join(bodies)


def tar_bytes(members: list[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar archive of regular files."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def every_format(rows: list[dict[str, str]], group_rows: int = 7) -> dict[str, bytes]:
    """A file of each format and compression, by name, with the same rows of ``id``, ``text`` and ``lang``."""
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = pa.Table.from_pylist(rows)
    columns = [(name, "str", None) for name in ("id", "text", "lang")]
    mds = mds_bytes([[row[name].encode() for name, _, _ in columns] for row in rows], columns)
    tar = tar_bytes([(f"{number:04}.json", json.dumps(row).encode()) for number, row in enumerate(rows)])
    parquet, stream = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet, row_group_size=group_rows)
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=group_rows)
    file = io.BytesIO()
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=group_rows)
    found = {"g.parquet": parquet.getvalue(), "h.arrow": stream.getvalue(), "i.arrow": file.getvalue()}
    for name, data in {"a.jsonl": lines, "m.mds": mds, "t.tar": tar}.items():
        found |= {name + suffix: PACK[suffix](data) for suffix in ("", ".gz", ".zst")}
    return found


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, put in, repeated, overwritten or spliced with those of another file; never as before."""
    while True:
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            at, size = rng.randrange(len(changed) + 1), rng.randrange(1, 200)
            kind = rng.randrange(7)
            if kind == 0 and changed:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del changed[at:]
            elif kind == 2:
                del changed[at : at + size]
            elif kind == 3:
                changed[at:at] = rng.randbytes(rng.randrange(1, 20))
            elif kind == 4:
                changed[at:at] = changed[:size]
            elif kind == 5:
                changed[at : at + 20] = rng.randbytes(20)
            elif other:
                place = rng.randrange(len(other))
                changed[at : at + size] = other[place : place + size]
        if bytes(changed) != data:
            return bytes(changed)
