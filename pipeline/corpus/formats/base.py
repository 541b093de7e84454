"""What a corpus format must be able to do. One file a format; ``registry.py`` lists them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import BinaryIO, ClassVar, Protocol

from cptsel.pipeline.corpus.contents import Content
from cptsel.pipeline.corpus.types import Block, Companion, Damage, DocumentBlock, ReadOptions, Shard
from cptsel.pipeline.errors import BadInputError

RowLocator = tuple[int, int | None, int | None]
"""(row_index, byte_offset or None, byte_length or None)"""


class BlockFinder(Protocol):
    """Finds the blocks of a file while its bytes are hashed."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file."""

    def finish(self, handle: BinaryIO) -> tuple[Block, ...] | None:
        """All blocks, at least one; None for a stream, which is read front to back. The file is open, at its end."""


class Unseen:
    """The blocks of a compressed stream, which show when it is read."""

    def feed(self, chunk: bytes) -> None:
        pass

    def finish(self, handle: BinaryIO) -> None:
        return None


class CorpusFormat(ABC):
    """How files of one format are found, cut into blocks, and read. It has no state.

    Attributes:
        name: in ``--format`` and in ``shards.parquet``.
        suffixes: of its files, the first one in examples.
        compressions: those that may stand around it: ``gzip``, ``zstd``.
        holds_ids: whether its documents are token ids, and not texts.
        needs_offsets: whether rows are found again by their byte offsets alone.
        needs_companion: whether a file can't be read without its companion, where the format has any.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    compressions: ClassVar[tuple[str, ...]] = ()
    holds_ids: ClassVar[bool] = False
    needs_offsets: ClassVar[bool] = False
    needs_companion: ClassVar[bool] = True

    def companion(self, uri: str) -> str | None:
        """The file beside one of the format that says where its documents lie; None where it stands alone."""
        return None

    def beside(self, uri: str) -> set[str]:
        """What may lie beside a file of the format and is no file of a corpus by itself."""
        companion = self.companion(uri)
        return set() if companion is None else {companion}

    @abstractmethod
    def finder(self, options: ReadOptions, compression: str, companion: Companion | None) -> BlockFinder:
        """Find blocks of about ``options.block_bytes`` bytes; ``companion`` is what the inventory found beside it."""

    @abstractmethod
    def read_block(self, handle: BinaryIO, shard: Shard, block: Block, options: ReadOptions) -> DocumentBlock:
        """Read one block.

        Raises:
            OSError: the file is not the one of which the inventory was made.
        """

    def read_stream(self, handle: BinaryIO, shard: Shard, options: ReadOptions) -> Iterator[DocumentBlock]:
        """Read a shard without known blocks once, front to back; at least one block."""
        raise NotImplementedError(f"{self.name} has no streams")

    def reads_forward(self, compression: str) -> bool:
        """Whether ``read_stream`` reads a file of this compression."""
        return compression != "none"

    @abstractmethod
    def read_texts(
        self, handle: BinaryIO, uri: str, compression: str, options: ReadOptions, rows: Sequence[RowLocator]
    ) -> Iterator[tuple[int, Content]]:
        """Texts, or ids, of some rows, as ``(row_index, content)``, one a locator and in their order.

        Raises:
            BadInputError: a row is not there or can't be read.
        """

    def has_offsets(self, compression: str) -> bool:
        """Whether rows carry a byte offset by which they can be read alone."""
        return False


def phrase(damage: Damage) -> str:
    """What is wrong with a row."""
    return damage.reason + (f": {damage.detail}" if damage.detail else "")


def lost(uri: str, row_index: int, why: str) -> BadInputError:
    """The error for a row that was there when the corpus was embedded."""
    return BadInputError(f"{uri}: row {row_index} can't be read ({why}); restore the file that was embedded")
