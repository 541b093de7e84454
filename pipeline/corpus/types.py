"""The values that pass between the readers of a corpus and the passes, and the names of every reason for a reject."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

FIRST_BYTES = 64
BLOCK_ROWS = 1 << 14
"""A block has no more rows, however short they are: a row costs memory whether or not anything is in it."""

BLOCK_DECODED = 256 << 20
"""Bytes of text that a block may decode to, or ``block_bytes``: a dictionary makes a small file into any amount."""

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "bad_id": "the id is a list or an object",
        "bad_json": "the line is not valid JSON",
        "bad_utf8": "the bytes are not valid UTF-8",
        "blank_line": "the line holds nothing but white space",
        "byte_order_mark": "the file begins with a byte order mark",
        "corrupt_stream": "the compressed stream is damaged from here on",
        "decoded_too_large": "the rows of the block before it decode to more than is held in memory",
        "document_too_long": "the text is longer than the cap on documents",
        "empty_text": "the text is empty or nothing but white space",
        "line_too_long": "the line is longer than the cap on lines",
        "lone_surrogate": "a string holds half of a surrogate pair, which has no UTF-8 form",
        "missing_text": "the text field is not there",
        "nested_group": "the value of a group column is a list or an object",
        "nested_text": "the text is a list or an object",
        "non_string_text": "the text is a number or a boolean",
        "not_an_object": "the line is valid JSON, but not an object",
        "nul_character": "the line or the text holds a NUL character",
        "null_text": "the text is null",
        "trailing_garbage": "bytes that belong to no member follow the end of the compressed stream",
        "truncated_stream": "the compressed stream breaks off before its end",
        "unreadable_parquet": "the Parquet footer is missing or damaged",
        "unreadable_row_group": "the Parquet row group is damaged",
        "unreadable_value": "a Parquet value has no text form",
        "wrong_format": "the file is not what its suffix says",
    }
)
"""Every reason for the reject of a row, with a line of explanation."""


@dataclass(frozen=True, slots=True)
class Block:
    """A bounded part of a shard that is read by itself.

    Attributes:
        block: number of the block in its shard, from 0.
        start, end: half-open range of bytes (plain JSONL) or of row groups (Parquet).
        first_row: row number of its first row in the shard.
        rows: number of its rows.
    """

    block: int
    start: int
    end: int
    first_row: int
    rows: int


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a corpus as the inventory found it.

    Attributes:
        shard_id: its place in the sorted list of the corpus' files.
        uri: where it is read.
        path: the same relative to the corpus root; it names the documents.
        format: a name of ``formats/registry.py``.
        compression: ``none``, ``gzip`` or ``zstd``.
        bytes: its size as stored.
        sha256: hash, in hex, of its bytes as stored.
        blocks: at least one; None for a stream, which is read once, front to back.
        digests: file with the digests of its chunks, by which a change is noticed; empty where there is none.
    """

    shard_id: int
    uri: str
    path: str
    format: str
    compression: str
    bytes: int
    sha256: str
    blocks: tuple[Block, ...] | None
    digests: str = ""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How rows are read.

    Attributes:
        text_field: column of the text: the one of that very name, else dots lead into nested columns (``meta.body``).
        id_field: column of the corpus' own id, or None.
        group_by: columns whose values are read as groups.
        max_line_bytes: longer lines, and longer texts of Parquet, are rejects and are never held in memory.
        block_bytes: a block of a stream ends at the first line end at or past so many uncompressed bytes, or after
            BLOCK_ROWS rows.
        limit: only rows with a number below it are read, or None.
    """

    text_field: str = "text"
    id_field: str | None = "id"
    group_by: tuple[str, ...] = ()
    max_line_bytes: int = 8 << 20
    block_bytes: int = 8 << 20
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A row with usable text.

    Attributes:
        row_index: physical row or line of the shard, bad and blank ones counted.
        doc_id: the corpus' own id, as text; None where it has none.
        text: not empty, without NUL, and with a UTF-8 form.
        groups: values of ``ReadOptions.group_by``, in that order; None where missing or null.
        byte_offset, byte_length: the line in the uncompressed stream, without its newline; None for Parquet.
    """

    row_index: int
    doc_id: str | None
    text: str
    groups: tuple[str | None, ...]
    byte_offset: int | None
    byte_length: int | None


@dataclass(frozen=True, slots=True)
class Reject:
    """A row (``window`` None), or a window of a kept row, that can't be embedded.

    Attributes:
        row_index: physical row or line of the shard.
        window: number of the window in the document, or None for the whole row.
        byte_offset: where the line begins in the uncompressed stream; None for Parquet.
        reason: a key of ``REASONS`` (or of the pass' own reasons).
        detail: what exactly, or None.
        first_bytes: up to 64 bytes of the row.
        bytes_lost: bytes of the file, as stored, that were lost with it; 0 where only the row is.
    """

    row_index: int
    window: int | None
    byte_offset: int | None
    reason: str
    detail: str | None
    first_bytes: bytes
    bytes_lost: int = 0


@dataclass(frozen=True, slots=True)
class DocumentBlock:
    """What a block of a shard holds: ``rows_read == len(documents) + len(rejects)``, both in row order.

    ``last`` is True on the last block of the shard.
    """

    shard_id: int
    block: int
    rows_read: int
    documents: list[Document]
    rejects: list[Reject]
    last: bool


class Damage(Exception):
    """Input that becomes a reject; it never leaves the package.

    Attributes:
        reason: a key of ``REASONS``.
        detail: what exactly is wrong, or None.
        first_bytes: the bytes at fault, where no line has them.
        bytes_lost: bytes of the file, as stored, that were never read, or whose checksum was never reached.
    """

    def __init__(self, reason: str, detail: str | None = None, first_bytes: bytes = b"", bytes_lost: int = 0) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.first_bytes = first_bytes[:FIRST_BYTES]
        self.bytes_lost = bytes_lost


class BlockBuilder:
    """Collects the rows of one block."""

    def __init__(self, shard_id: int, block: int) -> None:
        self._shard_id, self._block = shard_id, block
        self._documents: list[Document] = []
        self._rejects: list[Reject] = []

    def add(self, row: Document | Reject) -> None:
        """Take the next row."""
        if isinstance(row, Document):
            self._documents.append(row)
        else:
            self._rejects.append(row)

    @property
    def rows(self) -> int:
        """Rows taken so far."""
        return len(self._documents) + len(self._rejects)

    def build(self, last: bool) -> DocumentBlock:
        """The block."""
        return DocumentBlock(self._shard_id, self._block, self.rows, self._documents, self._rejects, last)
