"""Files of token ids alone, play after play, each ended by EOS: what packers of documents read."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cptsel.pipeline.exports.base import Record


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
