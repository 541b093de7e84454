"""Texts of a few samples, read from the corpus where it is at hand, and held against their hashes."""

from collections.abc import Iterator, Sequence
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import Manifest, source_uri
from cptsel.pipeline.artifacts.texts import checked_window, rows_by_document
from cptsel.pipeline.corpus.contents import Content, shown
from cptsel.pipeline.corpus.documents import read_texts
from cptsel.pipeline.errors import CptselError, UsageError
from cptsel.pipeline.lookup.reading import Row

EXCERPT = 300  # characters of a text that are shown
GLANCE = 160  # of one among many
_CUT = "[...]"


def windows(uri: str, shard: dict[str, Any], text_field: str, rows: Sequence[Row]) -> Iterator[tuple[Row, Content]]:
    """Samples of one shard with their texts, or their ids, by row of the corpus.

    Args:
        uri: where the shard lies now.
        shard: its row of ``shards.parquet``.
        text_field: column of the text.
        rows: samples of it: row_index, byte_offset, byte_length, what locates a window, and content_hash.

    Raises:
        BadInputError: the shard or a row of it can't be read.
        VerificationError: a text is not the one that was embedded.
    """
    by_document = rows_by_document(rows)
    first = [of_document[0] for of_document in by_document.values()]
    wanted = [(row["row_index"], row["byte_offset"], row["byte_length"]) for row in first]
    for row_index, content in read_texts(uri, shard["format"], shard["compression"], text_field, wanted):
        for row in by_document[row_index]:
            yield row, checked_window(content, row, uri)


def texts_at_hand(
    manifest: Manifest, shard: dict[str, Any], rows: Sequence[Row], root: str | None
) -> tuple[dict[str, str], str | None]:
    """Texts of samples of one shard, by sample_id, as far as the corpus is there and is what was embedded.

    Of a corpus of token ids they are the ids as numbers.

    Args:
        manifest: that chose some of them.
        shard: their row of ``shards.parquet``.
        rows: as in ``windows``, with their sample_id.
        root: where the corpus lies now; None where it was embedded.

    Returns:
        The texts, and why there are not all of them: a sentence, or None.

    Raises:
        UsageError: ``root`` was given, and the shard is not there.
    """
    uri = source_uri(shard, root)
    if root is not None and not io.exists(uri):
        raise UsageError(f"--root {root}: {uri} is missing; name the directory in which {shard['path']} lies")
    found: dict[str, str] = {}
    try:
        if not io.exists(uri):
            return {}, f"{uri} is missing, so its texts are left out; pass --root with where the corpus lies now"
        for row, window in windows(uri, shard, manifest.text_field, rows):
            found[row["sample_id"]] = shown(window)
    except CptselError as error:  # also of a filesystem that this machine can't read
        return found, str(error)
    return found, None


def glance(text: str) -> str:
    """At most ``GLANCE`` characters of a text that is one among many, with single spaces for all white space."""
    flat = " ".join(text.split())
    return flat if len(flat) <= GLANCE else flat[:GLANCE] + _CUT


def excerpt(text: str, phrase: str | None = None) -> str:
    """At most ``EXCERPT`` characters of a text, around a phrase of it; ``[...]`` stands for what is left out."""
    if len(text) <= EXCERPT:
        return text
    begin = 0
    if phrase:
        begin = max(0, min(text.index(phrase) + len(phrase) // 2 - EXCERPT // 2, len(text) - EXCERPT))
    end = begin + EXCERPT
    return f"{_CUT if begin else ''}{text[begin:end]}{_CUT if end < len(text) else ''}"
