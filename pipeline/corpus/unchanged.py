"""Whether a file is still the one that was listed, told while it is read.

The inventory reads every file once and keeps a digest of each chunk. Whoever reads the file afterwards gets it through
``checked``, which holds every chunk that is touched against its digest. So a corpus that is edited while it is embedded
is an error, also where sizes stay as they were.
"""

import hashlib
import io
from typing import BinaryIO

CHUNK = 1 << 20
DIGEST = 16  # bytes a chunk


class ChunkDigests:
    """Digests of the chunks of a file, whose bytes come in pieces of any size."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []
        self._open, self._size = hashlib.blake2b(digest_size=DIGEST), 0  # of the chunk at hand

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the file."""
        view = memoryview(piece)
        while view:
            part = view[: CHUNK - self._size]
            self._open.update(part)
            self._size += len(part)
            view = view[len(part) :]
            if self._size == CHUNK:
                self._close()

    def finish(self) -> bytes:
        """All digests, one after the other."""
        if self._size:
            self._close()
        return b"".join(self._digests)

    def _close(self) -> None:
        self._digests.append(self._open.digest())
        self._open, self._size = hashlib.blake2b(digest_size=DIGEST), 0


def checked(handle: BinaryIO, digests: bytes, uri: str) -> BinaryIO:
    """The file, whose reads raise OSError where it is not the one of which the digests are.

    Args:
        handle: seekable.
        digests: of ``ChunkDigests``.
        uri: for the sentence.
    """
    return io.BufferedReader(_Checked(handle, digests, uri), CHUNK)


class _Checked(io.RawIOBase):
    def __init__(self, handle: BinaryIO, digests: bytes, uri: str) -> None:
        super().__init__()
        self._handle, self._digests, self._uri = handle, digests, uri
        self._size = handle.seek(0, io.SEEK_END)
        self._at, self._number, self._chunk = 0, -1, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # of the buffered reader, always that
        number, start = divmod(self._at, CHUNK)
        if self._at >= self._size:
            return 0
        if number != self._number:
            self._chunk, self._number = self._read(number), number
        part = self._chunk[start : start + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _read(self, number: int) -> bytes:
        self._handle.seek(number * CHUNK)
        pieces: list[bytes] = []
        wanted = min(CHUNK, self._size - number * CHUNK)
        while wanted > 0 and (piece := self._handle.read(wanted)):
            pieces.append(piece)
            wanted -= len(piece)
        chunk = b"".join(pieces)
        if (
            hashlib.blake2b(chunk, digest_size=DIGEST).digest()
            != self._digests[number * DIGEST : (number + 1) * DIGEST]
        ):
            place = f"within {CHUNK:,} of byte {number * CHUNK:,}"
            raise OSError(f"{self._uri}: has changed since it was listed (other bytes {place})")
        return chunk
