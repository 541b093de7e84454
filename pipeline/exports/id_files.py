"""Files of token ids alone, play after play, each ended by EOS: what packers of documents read."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.model.vocabulary import Vocabulary


class IdFiles(ExportFormat):
    """One file of ids, and beside it one that says where each play lies."""

    unit: ClassVar[str] = "document"
    layout: ClassVar = "whole"
    writes_text: ClassVar[bool] = False
    writes_ids: ClassVar[bool] = True
    keeps: ClassVar[tuple[str, ...]] = ()  # the ids alone: neither which sample it is nor what it weighs
    weighs: ClassVar[tuple[str, ...]] = ()

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        assert vocabulary is not None
        assert vocabulary.eos is not None
        dtype = self.dtype(vocabulary.size)
        lengths, plays = write_ids(path, records, dtype, vocabulary.eos)
        return [path, self.write_places(path, lengths, dtype, plays)]

    @abstractmethod
    def dtype(self, size: int) -> np.dtype:
        """Of the numbers, where the vocabulary has ``size`` ids."""

    @abstractmethod
    def write_places(self, path: str, lengths: np.ndarray, dtype: np.dtype, plays: Sequence[Record]) -> str:
        """Write where each play lies.

        Args:
            path: of the ids.
            lengths: (n,) int64, numbers that each play takes.
            dtype: of the numbers.
            plays: without texts and ids.

        Returns:
            The path of the file.
        """


def holding(size: int, kinds: Sequence[type[np.integer[Any]]]) -> np.dtype:
    """The first type of number that holds all ids of a vocabulary."""
    return np.dtype(next(kind for kind in kinds if size - 1 <= np.iinfo(kind).max))


def dtype_of(path: str, lengths: np.ndarray, kinds: Sequence[type[np.integer[Any]]]) -> np.dtype:
    """The type of number of a file with plays of (n,) ``lengths``, by its bytes."""
    from cptsel.pipeline import io

    width = io.size(path) // max(1, int(lengths.sum()))
    return next((np.dtype(kind) for kind in kinds if np.dtype(kind).itemsize == width), np.dtype(kinds[-1]))


def write_ids(path: str, records: Iterable[Record], dtype: Any, eos: int) -> tuple[np.ndarray, list[Record]]:
    """Write the ids of plays as little-endian numbers.

    Args:
        path: of the file.
        records: with input_ids.
        dtype: of the numbers.
        eos: the id that ends a play.

    Returns:
        Numbers that each play takes (n,) int64, and the plays without texts and ids.
    """
    from cptsel.pipeline import io

    lengths, kept = [], []
    little = np.dtype(dtype).newbyteorder("<")
    with io.atomic_writer(path) as handle:
        for record in records:
            ids = np.asarray([*record["input_ids"], eos], dtype=little)
            handle.write(ids.tobytes())
            lengths.append(len(ids))
            kept.append({key: value for key, value in record.items() if key not in ("text", "input_ids")})
    return np.asarray(lengths, dtype=np.int64), kept


def read_ids(path: str, lengths: np.ndarray, dtype: Any) -> Iterator[list[int]]:
    """The ids of plays that ``write_ids`` wrote, without EOS.

    Args:
        path: of the file.
        lengths: (n,) numbers that each play takes, EOS among them.
        dtype: of the numbers.

    Raises:
        ValueError: the file is shorter or longer, or plays do not all end with one id.
    """
    from cptsel.pipeline import io

    little, eos = np.dtype(dtype).newbyteorder("<"), None
    with io.open_read(path) as handle:
        for number, length in enumerate(lengths.tolist()):
            data = handle.read(length * little.itemsize)
            if length < 1 or len(data) != length * little.itemsize:
                raise ValueError(f"ends inside play {number}")
            *ids, last = np.frombuffer(data, little).tolist()
            eos = last if eos is None else eos
            if last != eos:
                raise ValueError(f"play {number} ends with the id {last}, and those before it with {eos}")
            yield ids
        if handle.read(1):
            raise ValueError("goes on behind the last play")
