"""How large a pool is asked for: a share, tokens, documents or a time."""

import re
from dataclasses import dataclass

from cptsel.pipeline.kernels.budget import parse_amount

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd])", re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class PoolSize:
    """``kind`` is share (in (0, 1]), tokens, documents or seconds."""

    kind: str
    value: float


def parse_pool(text: str) -> PoolSize:
    """Read ``2%``, ``50B tokens`` or ``200000 documents``.

    Raises:
        ValueError: anything else.
    """
    try:
        value, unit = parse_amount(text, ("token", "document"))
    except LookupError:
        unit = None
    if unit is None:
        raise ValueError(f"{text!r} is not the size of a pool: write 2%, '50B tokens' or '200000 documents'")
    return PoolSize("share", float(value)) if unit == "%" else PoolSize(unit + "s", float(value))


def parse_duration(text: str) -> PoolSize:
    """Read ``90m``, ``6h`` or ``2d``.

    Raises:
        ValueError: anything else, or nothing.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{text!r} is no time: write 90m, 6h or 2d")
    return PoolSize("seconds", float(match[1]) * _SECONDS[match[2].lower()])
