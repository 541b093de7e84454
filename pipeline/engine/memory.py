"""Memory that this process and those below it took."""

import resource
import sys

_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def peak_memory_bytes() -> int:
    """Of the largest of this process and the children that it waited for; workers elsewhere are not seen."""
    return _UNIT * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
