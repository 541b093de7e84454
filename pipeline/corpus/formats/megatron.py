"""``.bin`` and ``.idx`` of Megatron-core: ids alone, and an index of sequences and of the documents that they make.

Version 1 of the index: ``MMIDIDX\\0\\0``, u64 version, u8 code of the dtype, u64 number of sequences n, u64 number of
document bounds d; then i32 lengths (n), i64 places in bytes (n), i64 bounds (d), the first sequence of each document
and the end of the last; and perhaps i8 modes (n), which say nothing of ids.
"""

import os
import struct
from typing import BinaryIO, ClassVar

import numpy as np

from cptsel.pipeline.corpus.formats.spans import SoughtSpans
from cptsel.pipeline.corpus.formats.tokens import IndexedTokens, Places, TokenIndex
from cptsel.pipeline.corpus.types import Damage

MAGIC, VERSION = b"MMIDIDX\0\0", 1
HEAD = struct.Struct("<9sQBQQ")
#: Of megatron.core.datasets.indexed_dataset.DType, as far as ids have them.
DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}


class Megatron(IndexedTokens):
    """``.bin`` files with an ``.idx`` beside each."""

    name: ClassVar[str] = "megatron"
    suffixes: ClassVar[tuple[str, ...]] = (".bin",)

    def companion(self, uri: str) -> str:
        return os.path.splitext(uri)[0] + ".idx"

    def index(self, companion: BinaryIO, size: int) -> TokenIndex:
        return MegatronIndex(companion)


class MegatronIndex(TokenIndex):
    """An open ``.idx``.

    Args:
        handle: seekable; must stay open.

    Raises:
        Damage: unreadable_index.
    """

    def __init__(self, handle: BinaryIO) -> None:
        self._spans = SoughtSpans(handle)
        size, head = self._spans.end(0), self._spans.at(0, HEAD.size)
        if len(head) < HEAD.size or head[: len(MAGIC)] != MAGIC:
            raise Damage("unreadable_index", "the .idx does not begin with that of Megatron", head)
        _, version, code, self._sequences, self._bounds = HEAD.unpack(head)
        if version != VERSION:
            raise Damage("unreadable_index", f"the .idx is of version {version}, not {VERSION}", head)
        if code not in DTYPES:
            raise Damage("unreadable_index", f"the .idx says that ids have the dtype of code {code}, which holds none")
        whole = HEAD.size + 12 * self._sequences + 8 * self._bounds
        if size not in (whole, whole + self._sequences):
            what = f"the .idx has {size:,} bytes, and {self._sequences:,} sequences and {self._bounds:,} bounds of "
            raise Damage("unreadable_index", what + f"documents take {whole:,}", head)
        self.dtype = np.dtype(DTYPES[code])
        self.documents = max(0, self._bounds - 1)
        first, end = self._bound(0), self._bound(self.documents)
        if (first, end) != (0, self._sequences):
            what = f"the .idx has {self._sequences:,} sequences, and its documents those from {first:,} to {end:,}"
            raise Damage("unreadable_index", what, head)

    def places(self, first: int, count: int) -> Places:
        """A document of several sequences lies where they do, if each follows the one before."""
        if not count:
            return Places(np.zeros(0, np.int64), np.zeros(0, np.int64))
        bounds = self._numbers("<i8", self._place_of_bounds + 8 * first, count + 1)
        low, high = int(bounds[0]), int(bounds[-1])
        if (np.diff(bounds) < 0).any() or not 0 <= low <= high <= self._sequences:
            raise Damage("unreadable_index", f"the bounds of documents from {first:,} on do not ascend")
        lengths = self._numbers("<i4", HEAD.size + 4 * low, high - low)
        starts = self._numbers("<i8", HEAD.size + 4 * self._sequences + 8 * low, high - low)
        ends = starts + lengths * self.dtype.itemsize
        bounds -= low
        going_on = np.setdiff1d(np.arange(1, high - low), bounds)  # sequences that begin no document
        if (starts[going_on] != ends[going_on - 1]).any():
            raise Damage("unreadable_index", "sequences of one document do not follow each other in the .bin")
        return Places(np.append(starts, 0)[bounds[:-1]], np.diff(np.append(0, np.cumsum(lengths))[bounds]))

    @property
    def _place_of_bounds(self) -> int:
        return HEAD.size + 12 * self._sequences

    def _bound(self, number: int) -> int:
        """A bound of documents; 0 where there are none."""
        return int(self._numbers("<i8", self._place_of_bounds + 8 * number, 1 if self._bounds else 0).sum())

    def _numbers(self, dtype: str, place: int, count: int) -> np.ndarray:
        return np.frombuffer(self._spans.at(place, count * np.dtype(dtype).itemsize), dtype).astype(np.int64)
