"""Spans of a file by their place, whether it can be sought in or is a compressed stream that goes forward alone."""

import os
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from cptsel.pipeline.corpus.streams import decompress
from cptsel.pipeline.corpus.types import Damage


class Spans(Protocol):
    """Uncompressed bytes of a file by their place.

    Attributes:
        damage: what broke the compressed stream, once that was met: its bytes end there.
    """

    damage: Damage | None

    def at(self, position: int, size: int) -> bytes:
        """``size`` bytes from ``position`` on; fewer where the file ends."""

    def end(self, position: int) -> int:
        """Where the file ends, nothing before ``position`` being of interest. A stream is read up to there."""

    def left(self, position: int) -> int:
        """Bytes of the file, as stored, from ``position`` on; of a stream, those that were not read yet."""


class SoughtSpans:
    """Spans of a file that is not compressed.

    Args:
        handle: seekable; must stay open.
    """

    damage: Damage | None = None

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._size = handle.seek(0, os.SEEK_END)

    def at(self, position: int, size: int) -> bytes:
        wanted = max(0, min(size, self._size - position))
        if not wanted:
            return b""
        self._handle.seek(position)
        pieces = []
        while wanted and (piece := self._handle.read(wanted)):
            pieces.append(piece)
            wanted -= len(piece)
        if wanted:
            raise OSError("the file became shorter while it was being read")
        return b"".join(pieces)

    def end(self, position: int) -> int:
        return self._size

    def left(self, position: int) -> int:
        return max(0, self._size - position)


class ForwardSpans:
    """Spans of a compressed stream, in the order in which they lie; what is skipped is not kept.

    Args:
        handle: at its start; must stay open.
        compression: ``gzip`` or ``zstd``.
    """

    def __init__(self, handle: BinaryIO, compression: str) -> None:
        self.damage: Damage | None = None
        self._handle = handle
        self._chunks = self._whole(decompress(handle, compression))
        self._chunk, self._start = b"", 0

    def at(self, position: int, size: int) -> bytes:
        """Raises ValueError where a span lies before one that was asked for."""
        if position < self._start:
            raise ValueError(f"byte {position} has gone by")
        pieces: list[bytes] = []
        while size > 0:
            first = position - self._start
            inside = self._chunk[first : first + size]
            pieces.append(inside)
            position, size = position + len(inside), size - len(inside)
            if size and not self._next():
                break
        return b"".join(pieces)

    def end(self, position: int) -> int:
        while self._next():
            pass
        return self._start + len(self._chunk)

    def left(self, position: int) -> int:
        read = self._handle.tell()
        return self._handle.seek(0, os.SEEK_END) - read

    def _next(self) -> bool:
        chunk = next(self._chunks, None)
        if chunk is not None:
            self._chunk, self._start = chunk, self._start + len(self._chunk)
        return chunk is not None

    def _whole(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from chunks
        except Damage as damage:
            self.damage = damage


def open_spans(handle: BinaryIO, compression: str) -> SoughtSpans | ForwardSpans:
    """Spans of a file that is at its start."""
    return SoughtSpans(handle) if compression == "none" else ForwardSpans(handle, compression)
