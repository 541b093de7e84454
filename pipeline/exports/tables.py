"""Plays as Arrow tables."""

from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa

from cptsel.pipeline.exports.base import Record
from cptsel.pipeline.model.vocabulary import Vocabulary
from cptsel.schemas.arrow import PLAYS, PLAYS_WITH_IDS

ROWS = 1_000  # of a row group or record batch, which is what a loader holds at a time


def schema_of(vocabulary: Vocabulary | None) -> pa.Schema:
    """Columns of plays, with token ids or without."""
    return PLAYS if vocabulary is None else PLAYS_WITH_IDS


def tables(records: Iterable[Record], schema: pa.Schema) -> Iterator[pa.Table]:
    """Plays in their order, so many a table."""
    rest = iter(records)
    while rows := list(islice(rest, ROWS)):
        yield pa.Table.from_pylist(rows, schema=schema)
