"""Chosen samples by name, or by a phrase of their text."""

import re
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import source_uri
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.lookup.reading import Reader, Row, narrow, of_shards
from cptsel.pipeline.lookup.texts import windows

_HASH = re.compile("[0-9a-f]{32}")
_LIES_IN_ONE_SHARD = ("sample_id", "doc_key")


@dataclass(frozen=True)
class Found:
    """Chosen samples, by shard, place in the corpus and phase.

    Attributes:
        rows: at most as many as were asked for.
        by: what they were found by: sample_id, doc_key, doc_id or text.
        more: how many others there are; None where nobody looked.
        texts: by sample_id, of what was found by text.
    """

    rows: list[Row]
    by: str
    more: int | None = 0
    texts: dict[str, str] = field(default_factory=dict)


def by_name(reader: Reader, name: str, most: int, progress: Progress | None = None) -> Found:
    """The samples of a sample_id, or else of a doc_key, or else of a doc_id, which may be double.

    Names are looked for in the column that they stand in, and in no other.

    Args:
        reader: of the manifest.
        name: to look for.
        most: rows to return.
        progress: told how far it is.

    Raises:
        UsageError: nothing that was chosen has this name, or a samples file is missing or damaged.
        VerificationError: a file is not the one that was written.
    """
    manifest = reader.manifest
    value = pa.scalar(name.encode("utf-8", "surrogateescape"), pa.binary())  # what a shell hands on need not be text
    for column in (*_LIES_IN_ONE_SHARD, "doc_id") if _HASH.fullmatch(name) else ("doc_id",):

        def has(shard_id: int, column: str = column) -> bool:
            return bool(pc.any(_equal(narrow(manifest, shard_id, [column]), column, value)).as_py())

        rows: list[Row] = []
        count = 0
        for shard_id, there in of_shards(manifest, has, progress, f"shards searched for the {column}"):
            if not there:
                continue
            table = reader.samples(shard_id)
            mine = table.filter(_equal(table, column, value))
            count += len(mine)
            rows += in_order(mine)[: most - len(rows)]
            if column in _LIES_IN_ONE_SHARD:
                break
        if rows:
            return Found(rows, column, count - len(rows))
    raise UsageError(
        f"{name}: no sample that {manifest.directory} chose has this sample_id, doc_key or doc_id; name another, or "
        "look for a phrase by --text"
    )


def by_text(reader: Reader, phrase: str, root: str | None, most: int, progress: Progress | None = None) -> Found:
    """The samples whose text has a phrase, letter by letter; shards are read until there are enough.

    Args:
        reader: of the manifest.
        phrase: not empty.
        root: where the corpus lies now; None where it was embedded.
        most: rows to return.
        progress: told how far it is.

    Raises:
        UsageError: a shard of the corpus is missing.
        BadInputError: a shard or a row of it can't be read.
        VerificationError: a text is not the one that was embedded, or a file is not the one that was written.
    """
    manifest = reader.manifest
    if manifest.of_ids:
        raise UsageError(f"--text: the corpus of {manifest.directory} is of token ids; name a sample or a document")
    rows: list[Row] = []
    texts: dict[str, str] = {}
    files = list(manifest.sample_files())
    for done, shard_id in enumerate(files, 1):
        shard = reader.shard(shard_id)
        uri = source_uri(shard, root)
        if not io.exists(uri):
            raise UsageError(
                f"--text: {uri} is missing, and reading it is the only way to find a text; restore it, or pass --root "
                "with where the corpus lies now"
            )
        samples = Reader(manifest).samples(shard_id)  # not kept: most shards have none of them
        for row, text in windows(uri, shard, manifest.text_field, in_order(samples)):
            if isinstance(text, str) and phrase in text:
                rows.append(row)
                texts[row["sample_id"]] = text
            if len(rows) > most:
                return Found(rows[:most], "text", None, texts)
        if progress:
            progress(done, len(files), "shards searched for the text")
    return Found(rows, "text", texts=texts)


def _equal(table: pa.Table, column: str, value: pa.Scalar) -> pa.ChunkedArray:
    """Where a column of text has a value, null where the text is null."""
    return pc.equal(table[column].cast(pa.binary()), value)


def in_order(table: pa.Table) -> list[Row]:
    """Rows of SAMPLES by place in the corpus and phase."""
    keys = [(name, "ascending") for name in ("row_index", "window", "phase")]
    return list(table.sort_by(keys).to_pylist())
