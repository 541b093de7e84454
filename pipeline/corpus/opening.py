"""Opening a file of a corpus, held against what the inventory found of it.

The help page reads the registry of formats, so what needs Beam is imported where it is used.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from cptsel.pipeline.corpus.types import Companion, Shard
from cptsel.pipeline.corpus.unchanged import checked


@contextmanager
def opened(file: Shard | Companion) -> Iterator[BinaryIO]:
    """The file, at its start. Raises OSError where it can't be read, or is not the one that was listed."""
    from cptsel.pipeline import io

    with io.open_read(file.uri) as handle:
        size = handle.seek(0, os.SEEK_END)
        if size != file.bytes:
            raise OSError(f"{file.uri}: has changed since it was listed ({size} bytes now, {file.bytes} then)")
        handle.seek(0)
        yield checked(handle, io.read_bytes(file.digests), file.uri) if file.digests else handle
