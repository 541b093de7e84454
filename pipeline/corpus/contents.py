"""What a document holds: a text, or, in a token corpus, ids. How a window of either is cut, hashed and shown."""

from collections.abc import Mapping
from typing import Any

import numpy as np

Content = str | np.ndarray
"""A text, or token ids: (n,) int32."""


def content_bytes(content: Content) -> bytes:
    """What ``content_hash`` is of: UTF-8, or the ids as little-endian int32."""
    return content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content.astype("<i4").tobytes()


def window_of(content: Content, row: Mapping[str, Any]) -> Content:
    """The window of a document that a row locates: by code points, or by tokens where the document holds ids.

    Fewer, or none, where the document is shorter than the row says.

    Args:
        content: of the whole document.
        row: char_start and char_end, which are None for ids; token_start and token_count.
    """
    if isinstance(content, str):
        return content[row["char_start"] : row["char_end"]]
    return content[row["token_start"] : row["token_start"] + row["token_count"]]


def shown(content: Content) -> str:
    """A window as a person reads it: its text, or its ids as numbers."""
    return content if isinstance(content, str) else " ".join(map(str, content.tolist()))
