"""Windows of chosen samples, texts or ids, read again from the corpus and held against their hashes."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.corpus.contents import Content, content_bytes, window_of
from cptsel.pipeline.corpus.documents import read_texts
from cptsel.pipeline.errors import BadInputError, VerificationError
from cptsel.pipeline.hashing import content_hash

Row = dict[str, Any]
"""A row of a manifest's samples."""

WINDOW_COLUMNS = [
    "row_index", "byte_offset", "byte_length", "char_start", "char_end", "token_start", "token_count", "content_hash",
]  # fmt: skip
"""By which a window is found in its shard, and its text or ids are held against what was embedded."""


def check_shards(uris: Iterable[str]) -> None:
    """``check_shard`` of all that will be read."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(check_shard, uris))


def check_shard(uri: str) -> None:
    """Raise BadInputError where a shard of the corpus is not there."""
    if not io.exists(uri):
        raise BadInputError(f"{uri} is missing; restore it, or pass --root with where the corpus lies now")


def rows_by_document(rows: Iterable[Row]) -> dict[int, list[Row]]:
    """Rows of one shard by their row_index, ascending; those of a document stay in their order."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row["row_index"], []).append(row)
    return {key: found[key] for key in sorted(found)}


def checked_texts(
    uri: str, shard: dict[str, Any], text_field: str, by_document: Mapping[int, list[Row]]
) -> Iterator[tuple[int, Content]]:
    """Row and content of each document, once ``content`` of its samples is set and is what was embedded.

    Args:
        uri: where the shard lies now.
        shard: its row of ``shards.parquet``.
        text_field: column of the text.
        by_document: as of ``rows_by_document``: byte_offset, byte_length, what locates a window, and content_hash.

    Raises:
        BadInputError: the shard or a row of it can't be read.
        VerificationError: a text is not the one that was embedded.
    """
    wanted = [(key, rows[0]["byte_offset"], rows[0]["byte_length"]) for key, rows in by_document.items()]
    for row_index, content in read_texts(uri, shard["format"], shard["compression"], text_field, wanted):
        for row in by_document[row_index]:
            row["content"] = checked_window(content, row, uri)
        yield row_index, content


def checked_window(content: Content, row: Row, uri: str) -> Content:
    """The window of a document that a row locates. Raises VerificationError where it is not what was embedded."""
    window = window_of(content, row)
    if content_hash(content_bytes(window)) != row["content_hash"]:
        what = "text" if isinstance(content, str) else "run of ids"
        raise VerificationError(
            f"{uri}: row {row['row_index']} is not the {what} that was embedded (content_hash differs); "
            "restore the file, and run cptsel verify --sources to see all that changed"
        )
    return window
