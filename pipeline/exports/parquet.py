"""Parquet, compressed with zstd: a play a row. ``datasets`` and most loaders read it as it is."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.schemas.arrow import PLAYS

ROWS = 1_000  # of a row group, which is what a loader holds at a time


class Parquet(ExportFormat):
    """One row a play."""

    name: ClassVar[str] = "parquet"
    summary: ClassVar[str] = "the same in Parquet, as Hugging Face datasets reads it"
    suffix: ClassVar[str] = ".parquet"
    unit: ClassVar[str] = "row"

    def write(self, path: str, records: Iterable[Record]) -> tuple[str, int]:
        from cptsel.pipeline import io
        from cptsel.pipeline.artifacts import outputs

        options = {"compression": "zstd", "version": "2.6", "write_page_checksum": True}
        with io.atomic_writer(path) as handle, pq.ParquetWriter(handle, PLAYS, **options) as writer:
            for rows in _parts(records):
                writer.write_table(pa.Table.from_pylist(rows, schema=PLAYS), row_group_size=ROWS)
        return outputs.hash_file(path)


def _parts(records: Iterable[Record]) -> Iterator[list[Record]]:
    rest = iter(records)
    while part := list(islice(rest, ROWS)):
        yield part
