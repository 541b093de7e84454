"""The values that pass between the readers of a corpus and the passes, and the names of every reason for a reject."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from cptsel.pipeline.corpus.contents import Content
from cptsel.pipeline.corpus.pool import Pool

FIRST_BYTES = 64
BLOCK_BYTES = 8 << 20
"""Bytes of a block where nothing else is asked for."""

BLOCK_ROWS = 1 << 14
"""A block has no more rows, however short they are: a row costs memory whether or not anything is in it.

Where only some rows are drawn, ``block_rows`` may be more.
"""

BLOCK_DECODED = 256 << 20
"""Bytes of text that a block may decode to, or ``block_bytes``: a dictionary makes a small file into any amount."""

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "bad_id": "the id is a list or an object",
        "bad_json": "the line, or the json member of a WebDataset, is not valid JSON",
        "bad_utf8": "the bytes are not valid UTF-8",
        "blank_line": "the line holds nothing but white space",
        "byte_order_mark": "the file begins with a byte order mark",
        "corrupt_stream": "the compressed stream is damaged from here on",
        "decoded_too_large": "the rows of the block before it decode to more than is held in memory",
        "document_too_long": "the text is longer than the cap on documents",
        "duplicate_member": "two members of a WebDataset's sample have one name",
        "empty_document": "the document of a token corpus has no ids but that of its end",
        "empty_text": "the text is empty or nothing but white space",
        "id_out_of_range": "an id of a token corpus is none of the model's vocabulary",
        "line_too_long": "the line is longer than the cap on lines",
        "lone_surrogate": "a string holds half of a surrogate pair, which has no UTF-8 form",
        "missing_text": "the text field is not there",
        "nested_group": "the value of a group column is a list or an object",
        "nested_text": "the text is a list or an object",
        "non_string_text": "the text is a number or a boolean",
        "not_an_object": "the line is valid JSON, but not an object",
        "nul_character": "the line or the text holds a NUL character",
        "null_text": "the text is null",
        "trailing_garbage": "bytes that belong to nothing follow the end of the stream",
        "truncated_stream": "the stream breaks off before its end",
        "unreadable_arrow": "the Arrow file does not begin with a schema that can be read",
        "unreadable_index": "the index of a token corpus, or its dtype, is damaged or is not of that file",
        "unreadable_mds": "the header of the MDS shard is missing or damaged",
        "unreadable_ids": "the ids of the document would lie outside the file",
        "unreadable_parquet": "the Parquet footer is missing or damaged",
        "unreadable_row_group": "the Parquet row group, or the Arrow record batch, is damaged",
        "unreadable_sample": "the sample of an MDS shard lies outside the file, or is not as long as its values",
        "unreadable_tar": "the tar archive is damaged from here on",
        "unreadable_value": "a value of a Parquet, Arrow or MDS column has no text form",
        "wrong_format": "the file is not what its suffix says",
    }
)
"""Every reason for the reject of a row, with a line of explanation."""

BENIGN = frozenset({"blank_line"})
"""Reasons that are no damage."""


@dataclass(frozen=True, slots=True)
class Block:
    """A bounded part of a shard that is read by itself.

    Attributes:
        block: number of the block in its shard, from 0.
        start, end: half-open range of bytes (plain JSONL, tar) or of row groups (Parquet; batches, runs of samples,
            documents of ids).
        first_row: row number of its first row in the shard.
        rows: number of its rows.
    """

    block: int
    start: int
    end: int
    first_row: int
    rows: int


@dataclass(frozen=True, slots=True)
class Companion:
    """A file beside a shard that says where its documents lie, such as the ``.idx`` of a ``.bin``; as for a Shard."""

    uri: str
    bytes: int
    sha256: str
    digests: str = ""


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
        companion: the file beside it that says where its documents lie, or None.
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
    companion: Companion | None = None

    @property
    def identity(self) -> list[str]:
        """What names it in the fingerprint of a corpus: its path, and the hashes of its files."""
        return [self.path, self.sha256, *([self.companion.sha256] if self.companion else [])]


@dataclass(frozen=True, slots=True)
class TokenRule:
    """How files of token ids are read.

    Attributes:
        eod: id that ends a document in the files, and is no part of it; None where there is none.
        vocabulary: ids of the model, 0, 1, ..., vocabulary - 1; others are rejects.
    """

    eod: int | None = None
    vocabulary: int = 1 << 31


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How rows are read.

    Attributes:
        text_field: column of the text: the one of that very name, else dots lead into nested columns (``meta.body``).
        id_field: column of the corpus' own id, or None.
        group_by: names of the groups.
        shard_groups: values of those that the shard's path gives; the others are columns of the rows.
        max_line_bytes: longer lines, and longer texts of Parquet, are rejects and are never held in memory.
        block_bytes: a block of a stream ends at the first line end at or past so many uncompressed bytes.
        block_rows: rows of a block at most, drawn or not.
        limit: only rows with a number below it are read, or None.
        pool: which documents are read.
        tokens: how files of token ids are read.
    """

    text_field: str = "text"
    id_field: str | None = "id"
    group_by: tuple[str, ...] = ()
    shard_groups: Mapping[str, str | None] = field(default_factory=lambda: MappingProxyType({}))
    max_line_bytes: int = 8 << 20
    block_bytes: int = BLOCK_BYTES
    block_rows: int = BLOCK_ROWS
    limit: int | None = None
    pool: Pool = field(default_factory=Pool)
    tokens: TokenRule = field(default_factory=TokenRule)


@dataclass(frozen=True, slots=True)
class Document:
    """A row with usable text, or with usable ids.

    Attributes:
        row_index: physical row or line of the shard, bad and blank ones counted.
        doc_id: the corpus' own id, as text; None where it has none.
        content: a text, not empty, without NUL, and with a UTF-8 form; or, in a token corpus, its ids, at least one.
        groups: values of ``ReadOptions.group_by``, in that order; None where missing or null.
        byte_offset, byte_length: the line in the uncompressed stream, without its newline, the members of a
            WebDataset's sample, or the ids in the file; None for other formats.
        pool_prob: probability with which it came into the pool.
        pool_place: its place there, in (0, 1]: pools that grow take what is next by it.
    """

    row_index: int
    doc_id: str | None
    content: Content
    groups: tuple[str | None, ...]
    byte_offset: int | None
    byte_length: int | None
    pool_prob: float = 1.0
    pool_place: float = 1.0


@dataclass(frozen=True, slots=True)
class Reject:
    """A row (``window`` None), or a window of a kept row, that can't be embedded.

    Attributes:
        row_index: physical row or line of the shard.
        window: number of the window in the document, or None for the whole row.
        byte_offset: where the line or sample begins in the uncompressed stream; None where rows have no such place.
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
    """What a block of a shard holds: ``rows_read == len(documents) + len(rejects) + rows_not_drawn``, in row order.

    ``last`` is True on the last block of the shard.
    """

    shard_id: int
    block: int
    rows_read: int
    documents: list[Document]
    rejects: list[Reject]
    last: bool
    rows_not_drawn: int = 0


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
    """Collects the rows of one block, in their order: each is skipped, or decoded and added.

    Args:
        shard: of the block.
        block: its number.
        options: whose pool says which rows are wanted.
    """

    def __init__(self, shard: Shard, block: int, options: ReadOptions) -> None:
        self._shard, self._block, self._pool = shard, block, options.pool
        by = options.pool.by
        self._by = None if by is None else options.group_by.index(by)
        if by is not None and by in options.shard_groups:  # all rows are of one group
            self._pool = Pool(options.pool.seed, options.pool.range_of(options.shard_groups[by]))
            self._by = None
        self._all = self._pool.is_all
        self._documents: list[Document] = []
        self._rejects: list[Reject] = []
        self._not_drawn = 0

    def wants(self, row_index: int) -> bool:
        """Whether a row is to be decoded; the others are skipped."""
        return self._all or self._pool.may_hold(self._pool.variate(self._shard.path, row_index))

    def skip(self, rows: int = 1) -> None:
        """Take rows that are not wanted."""
        self._not_drawn += rows

    def add(self, row: Document | Reject) -> None:
        """Take the next row. A document may still fall away by its group, which shows once it is decoded."""
        if isinstance(row, Reject):
            self._rejects.append(row)
            return
        group = None if self._by is None else row.groups[self._by]
        place = self._pool.place(self._shard.path, row.row_index, group)
        if place is None:
            self._not_drawn += 1
        else:
            self._documents.append(replace(row, pool_prob=self._pool.range_of(group).rate, pool_place=place))

    @property
    def rows(self) -> int:
        """Rows taken so far."""
        return len(self._documents) + len(self._rejects) + self._not_drawn

    def build(self, last: bool) -> DocumentBlock:
        """The block."""
        shard_id, not_drawn = self._shard.shard_id, self._not_drawn
        return DocumentBlock(shard_id, self._block, self.rows, self._documents, self._rejects, last, not_drawn)
