"""Physical lines out of chunks of bytes: split at newlines and at nothing else, in linear time and bounded memory."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cptsel.pipeline.corpus.types import FIRST_BYTES, Damage


class Line(NamedTuple):
    """One line.

    Attributes:
        offset: of its first byte in the uncompressed stream.
        length: in bytes, without the newline.
        data: the line; only its first bytes where there is damage.
        damage: why the line was not held, or None.
    """

    offset: int
    length: int
    data: bytes
    damage: Damage | None = None


class _Carry:
    """The unfinished line: pieces that are joined once, or only counted when they are over the cap."""

    def __init__(self, offset: int, cap: int) -> None:
        self.offset, self.length = offset, 0
        self._cap = cap
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        if not piece:
            return
        if self.length <= self._cap < self.length + len(piece):
            self._pieces = [(b"".join(self._pieces) + piece[:FIRST_BYTES])[:FIRST_BYTES]]
        elif self.length <= self._cap:
            self._pieces.append(piece)
        self.length += len(piece)

    def take(self, damage: Damage | None = None) -> Line:
        data, length, offset = b"".join(self._pieces), self.length, self.offset
        self.offset, self.length, self._pieces = offset + length + 1, 0, []
        if damage is None and length > self._cap:
            damage = Damage("line_too_long", f"{length} bytes; the cap is {self._cap}")
        return Line(offset, length, data if damage is None else data[:FIRST_BYTES] or damage.first_bytes, damage)


def split_lines(chunks: Iterable[bytes], cap: int, offset: int = 0) -> Iterator[Line]:
    """Split a stream at ``\\n``.

    A last line without a newline counts; a stream that ends in a newline has no line after it. Where ``chunks`` raises
    Damage, the unfinished line carries it, or else an empty one after the last: one row stands for what was lost.
    Garbage after a whole stream is the exception: the unfinished line is whole then, and another carries the damage.

    Args:
        chunks: uncompressed bytes.
        cap: longest line, in bytes, that is held.
        offset: of the first byte of ``chunks`` in the stream.
    """
    carry = _Carry(offset, cap)
    damage = None
    try:
        for chunk in chunks:
            start = 0
            while (end := chunk.find(b"\n", start)) >= 0:  # one by one: a chunk may be nothing but line ends
                carry.add(chunk[start:end])
                yield carry.take()
                start = end + 1
            carry.add(chunk[start:])
    except Damage as error:
        damage = error
    if carry.length and (damage is None or damage.reason == "trailing_garbage"):
        yield carry.take()
    if damage is not None:
        yield carry.take(damage)
