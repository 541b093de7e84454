"""Bytes out of gzip and zstd files, checked to reach the end of their stream, and files whose suffix lies.

Concatenated gzip members and zstd frames (skippable ones too) are one stream. Memory is bounded: input goes to the
decompressor in pieces of 4 KiB, which even a stream of zeros can't make into more than 128 MiB at once.
"""

import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import zstandard

from cptsel.pipeline.corpus.types import FIRST_BYTES, Damage

_PIECE = 4096
_CHUNK = 1 << 20
_GZIP = (b"\x1f\x8b",)
_ZSTD = (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + i, 0x2A, 0x4D, 0x18]) for i in range(16)))  # the latter are skippable
_LARGEST_WINDOW = 1 << 31  # zstd --long=31; the default of the library refuses more than 128 MiB
_DAMAGE = (zlib.error, zstandard.ZstdError)


def disguise(head: bytes) -> str | None:
    """What a file that should be plain text really is, by its first four bytes; None if it may be text."""
    for magics, name in ((_GZIP, "gzip"), (_ZSTD, "zstd"), ((b"PAR1",), "Parquet")):
        if head.startswith(magics):
            return name
    return None


def chunks(handle: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """The next ``size`` bytes of a file (all that follow, if None; fewer where it ends) in chunks of 1 MiB."""
    while size is None or size > 0:
        chunk = handle.read(_CHUNK if size is None else min(_CHUNK, size))
        if not chunk:
            return
        yield chunk
        size = None if size is None else size - len(chunk)


def decompress(handle: BinaryIO, compression: str) -> Iterator[bytes]:
    """Uncompressed bytes of a gzip or zstd file, front to back.

    What is yielded does not depend on how the filesystem cuts its reads. Where the stream is damaged, all that could be
    decompressed before that point has been yielded when the exception comes.

    Args:
        handle: seekable, at its start.
        compression: ``gzip`` or ``zstd``.

    Raises:
        Damage: wrong_format, truncated_stream, corrupt_stream or trailing_garbage.
    """
    magics, new_decoder = _CODECS[compression]
    pieces = _Pieces(handle)
    while True:
        head = pieces.peek()
        if not head.startswith(magics):
            break
        yield from _member(pieces, handle, new_decoder)
    end = pieces.position
    if not head and end:
        return
    if any(magic.startswith(head) for magic in magics):
        what = f"the file ends at byte {end + len(head)}, inside a header"
        raise Damage("truncated_stream", what, bytes_lost=len(head))
    if end == 0:
        raise Damage("wrong_format", f"not {compression}", head, _size(handle))
    if not (compression == "gzip" and pieces.only_zeros()):  # tapes and block devices pad gzip files with zeros
        raise Damage("trailing_garbage", f"from byte {end} of the file on", head, _size(handle) - end)


class _Pieces:
    """A file in pieces of 4 KiB at most, some of which may be put back. ``position`` is that of the next byte."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._left = b""
        self.position = 0

    def next(self) -> bytes:
        piece = self._left or self._handle.read(_PIECE)
        self._left = b""
        self.position += len(piece)
        return piece

    def unread(self, data: bytes) -> None:
        self._left = data
        self.position -= len(data)

    def peek(self) -> bytes:
        """The next bytes, enough to know a header by; fewer where the file ends."""
        if len(self._left) < FIRST_BYTES:
            self._left += self._handle.read(_PIECE)
        return self._left[:FIRST_BYTES]

    def only_zeros(self) -> bool:
        """Whether nothing but zeros is left; reads on until it knows."""
        while piece := self.next():
            if any(piece):
                return False
        return True


def _member(pieces: _Pieces, handle: BinaryIO, new_decoder: Callable[[], Any]) -> Iterator[bytes]:
    """One gzip member or zstd frame; what follows it is put back."""
    start, decoder = pieces.position, new_decoder()
    while not decoder.eof:
        position = pieces.position
        piece = pieces.next()
        if not piece:
            what = f"the file ends at byte {position}, inside a compressed member"  # of which nothing tells the length
            raise Damage("truncated_stream", what, bytes_lost=position - start)
        try:
            data = decoder.decompress(piece)
        except _DAMAGE as error:
            yield from _last_words(handle, new_decoder(), start, position, piece)
            raise Damage("corrupt_stream", str(error), bytes_lost=_size(handle) - position) from error
        if data:
            yield data
    pieces.unread(decoder.unused_data)


def _last_words(handle: BinaryIO, decoder: Any, start: int, position: int, piece: bytes) -> Iterator[bytes]:
    """What a damaged piece still gives before the damage, which the decompressors throw away with their error.

    A wrong checksum behind a small file would otherwise cost the whole file. The member is decompressed again up to
    the piece, which then goes in byte by byte.
    """
    handle.seek(start)
    while start < position:
        known = handle.read(min(_PIECE, position - start))
        if not known:
            raise OSError("the file became shorter while it was being read")
        decoder.decompress(known)
        start += len(known)
    for index in range(len(piece)):
        try:
            data = decoder.decompress(piece[index : index + 1])
        except _DAMAGE:
            return
        if data:
            yield data


def _size(handle: BinaryIO) -> int:
    return handle.seek(0, os.SEEK_END)


def _gzip_decoder() -> Any:
    return zlib.decompressobj(wbits=31)  # 31: gzip header and trailer; length and CRC are checked


def _zstd_decoder() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()


_CODECS: dict[str, tuple[tuple[bytes, ...], Callable[[], Any]]] = {
    "gzip": (_GZIP, _gzip_decoder),
    "zstd": (_ZSTD, _zstd_decoder),
}
