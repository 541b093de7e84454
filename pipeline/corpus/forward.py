"""A file that is read once, front to back, by several at a time: who parses it, and who hashes it on the way."""

import io
from collections.abc import Callable, Sequence
from typing import BinaryIO

from cptsel.pipeline.corpus.streams import chunks


class Followed(io.RawIOBase):
    """A file of which every byte is handed to followers once, in order, when it is first read.

    Args:
        handle: seekable, at its start; must stay open.
        followers: called with the next bytes of the file.
    """

    def __init__(self, handle: BinaryIO, followers: Sequence[Callable[[bytes], object]]) -> None:
        super().__init__()
        self._handle, self._followers = handle, followers
        self._at = 0
        self.seen = 0  # bytes that were handed on

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = self._handle.seek(offset, whence) if whence == io.SEEK_END else offset + whence * self._at
        return self._at

    def read(self, size: int = -1) -> bytes:
        if self._at > self.seen:  # what is passed over is read all the same
            self._follow(self._at - self.seen)
        self._handle.seek(self._at)
        data = self._handle.read(size)
        new = data[max(0, self.seen - self._at) :]
        self._at += len(data)
        if new:
            self._hand_on(new)
        return data

    def finish(self) -> None:
        """Hand on what nobody has read."""
        self._follow(None)

    def _follow(self, size: int | None) -> None:
        self._handle.seek(self.seen)
        for chunk in chunks(self._handle, size):
            self._hand_on(chunk)

    def _hand_on(self, data: bytes) -> None:
        self.seen += len(data)
        for follower in self._followers:
            follower(data)
