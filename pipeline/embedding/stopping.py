"""What a runner raises, as the one sentence of a run that can be resumed."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from cptsel.pipeline.engine.cause import cause_of
from cptsel.pipeline.errors import PartialError


@contextmanager
def stopping() -> Iterator[None]:
    """Around a pipeline: what its runner raises becomes a PartialError; the blocks that were written stay."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError, grpc.RpcError) as error:  # anything else is a mistake of ours
        raise _stopped(error) from error


def _stopped(error: Exception) -> PartialError:
    if "out of memory" in str(error).lower():
        return PartialError("a worker ran out of memory; run the same command again with fewer --workers to resume")
    return PartialError(f"embed stopped: {cause_of(error)}; run the same command again to resume")
