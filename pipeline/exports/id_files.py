"""Files of token ids alone, play after play, each ended by EOS: what packers of documents read."""

from collections.abc import Iterable
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
