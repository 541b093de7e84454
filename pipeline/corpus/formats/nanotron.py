"""``.ds`` and ``.ds.index`` of datatrove, which nanotron trains on: ids alone, and where each document ends.

The index is the ends of all documents in ids, u64. Ids are u16 or u32; the size of the file tells which, and so does
the first line of ``.ds.metadata``, ``TOKENIZER|BYTES``, where it is there. A file of u32 that was cut in half is as
long as one of u16.
"""

from typing import BinaryIO, ClassVar

import numpy as np

from cptsel.pipeline.corpus.formats.spans import SoughtSpans
from cptsel.pipeline.corpus.formats.tokens import IndexedTokens, Places, TokenIndex
from cptsel.pipeline.corpus.types import Damage

_KINDS = (np.dtype("<u2"), np.dtype("<u4"))


class Nanotron(IndexedTokens):
    """``.ds`` files with a ``.ds.index`` beside each; ``.ds.metadata`` need not be there, ``.ds.loss`` is not read."""

    name: ClassVar[str] = "nanotron"
    suffixes: ClassVar[tuple[str, ...]] = (".ds",)

    def companion(self, uri: str) -> str:
        return uri + ".index"

    def beside(self, uri: str) -> set[str]:
        return {f"{uri}.{name}" for name in ("index", "metadata", "loss")}

    def index(self, companion: BinaryIO, size: int) -> TokenIndex:
        return NanotronIndex(companion, size)

    def check(self, companion: str, index: TokenIndex) -> None:
        from cptsel.pipeline import io

        beside = companion.removesuffix(".index") + ".metadata"
        if not io.exists(beside):
            return
        first = io.read_bytes(beside).partition(b"\n")[0].decode(errors="replace")
        _, bar, width = first.rpartition("|")
        if not bar or not width.strip().isdecimal() or int(width) == index.dtype.itemsize:
            return
        last = index.places(max(0, index.documents - 1), min(1, index.documents))
        if (last.starts + last.counts).any():  # a file without ids is as long in either
            what = f"{beside} says that an id takes {int(width)} bytes, and by its size and the .ds.index the file has "
            what += f"{index.dtype.itemsize} for each: it was cut off, or these files are not of each other"
            raise Damage("unreadable_index", f"{what}; restore them, or move the .ds.metadata away if it is wrong")


class NanotronIndex(TokenIndex):
    """An open ``.ds.index``.

    Args:
        handle: seekable; must stay open.
        size: of the ``.ds``, in bytes.

    Raises:
        Damage: unreadable_index.
    """

    def __init__(self, handle: BinaryIO, size: int) -> None:
        self._spans = SoughtSpans(handle)
        whole = self._spans.end(0)
        if whole % 8:
            raise Damage("unreadable_index", f"the .ds.index has {whole:,} bytes, which are no whole numbers")
        self.documents = whole // 8
        (ids,) = self._ends(self.documents - 1, 1)
        dtype = next((kind for kind in _KINDS if kind.itemsize * int(ids) == size), None)
        if dtype is None:
            what = f"the .ds.index says that there are {ids:,} ids, which are neither 2 nor 4 bytes each of {size:,}"
            raise Damage("unreadable_index", what)
        self.dtype = dtype

    def places(self, first: int, count: int) -> Places:
        ends = self._ends(first - 1, count + 1)
        counts = np.diff(ends)
        if (counts < 0).any():
            raise Damage("unreadable_index", f"the ends of documents from {first:,} on do not ascend")
        return Places(ends[:-1] * self.dtype.itemsize, counts)

    def _ends(self, first: int, count: int) -> np.ndarray:
        """Ends of documents, 0 of the one before the first."""
        data = self._spans.at(8 * max(0, first), 8 * (count + min(0, first)))
        return np.concatenate([np.zeros(-min(0, first), np.int64), np.frombuffer(data, "<u8").astype(np.int64)])
