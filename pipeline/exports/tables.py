"""Plays as Arrow tables."""

from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa

from cptsel.pipeline.exports.base import Record
from cptsel.pipeline.model.vocabulary import Vocabulary
from cptsel.schemas.arrow import PLAYS, PLAYS_OF_IDS, PLAYS_WITH_IDS, check_schema

ROWS = 1_000  # of a row group or record batch, which is what a loader holds at a time


def schema_of(vocabulary: Vocabulary | None) -> pa.Schema:
    """Columns of plays: texts, token ids or both."""
    if vocabulary is None:
        return PLAYS
    return PLAYS_WITH_IDS if vocabulary.has_texts else PLAYS_OF_IDS


def tables(records: Iterable[Record], schema: pa.Schema) -> Iterator[pa.Table]:
    """Plays in their order, so many a table."""
    rest = iter(records)
    while rows := list(islice(rest, ROWS)):
        yield pa.Table.from_pylist(rows, schema=schema)


def check_columns(found: pa.Schema) -> None:
    """Raise ValueError where a file's columns are not those of plays: texts, token ids or both."""
    expected = PLAYS
    if "input_ids" in found.names:
        expected = PLAYS_WITH_IDS if "text" in found.names else PLAYS_OF_IDS
    if found.names != expected.names:
        raise ValueError(f"has the columns {', '.join(found.names)}, not {', '.join(expected.names)}")
    if problem := check_schema(found, expected):
        raise ValueError(problem)
