"""How much text each group of a corpus has, counted while its files are listed."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from cptsel.pipeline.corpus.contents import content_bytes
from cptsel.pipeline.corpus.formats.registry import FORMATS
from cptsel.pipeline.corpus.path_groups import path_groups
from cptsel.pipeline.corpus.types import DocumentBlock, ReadOptions, Shard


@dataclass
class TextBytes:
    """Bytes of text by the only group column of ``options``, whose pool is the whole corpus."""

    options: ReadOptions
    found: Counter[str | None] = field(default_factory=Counter)

    def count(self, handle: BinaryIO, shard: Shard) -> None:
        """Take all rows of a shard: front to back where it has no blocks, else block by block.

        Raises:
            OSError: the file can't be read.
        """
        format, options = FORMATS[shard.format], self._of(shard)
        if shard.blocks is None:
            blocks = format.read_stream(handle, shard, options)
        else:
            blocks = (format.read_block(handle, shard, block, options) for block in shard.blocks)
        for block in blocks:
            self._add(block)

    def listed(self) -> list[tuple[str | None, int]]:
        """Groups and bytes, those without a group first."""
        return sorted(self.found.items(), key=lambda item: (item[0] is not None, item[0]))

    def _of(self, shard: Shard) -> ReadOptions:
        return replace(self.options, shard_groups=path_groups(shard.path, self.options.group_by))

    def _add(self, block: DocumentBlock) -> None:
        for document in block.documents:
            self.found[document.groups[0]] += len(content_bytes(document.content))
