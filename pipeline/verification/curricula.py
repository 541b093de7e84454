"""The ranks of a curriculum, computed again from what the manifest holds: by gradient norm or by gain.

The losses that ``--curriculum loss`` goes by are in the embedding run alone, so its ranks are only held to be an order.
"""

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_ORDER = re.compile(r"(norm|gain) (ascending|descending)(?: in (\d+) buckets)?")


def score_of(table: pa.Table, order: str) -> np.ndarray | None:
    """What a curriculum orders the rows of a samples file by, (n,) float64; None where the rows don't say.

    Args:
        table: rows with n_tokens, grad_norm and score.
        order: of their phase, as ``manifest.json`` names it.
    """
    curriculum = parse_curriculum(order)
    if curriculum is None:
        return None
    if curriculum.by == "gain":
        return table["score"].to_numpy(zero_copy_only=False).astype(np.float64)
    return table["grad_norm"].to_numpy().astype(np.float64) / table["n_tokens"].to_numpy()


@dataclass(frozen=True)
class Curriculum:
    """A curriculum whose ranks can be computed again: what it goes by, ``norm`` or ``gain``, and how."""

    by: str
    descending: bool
    buckets: int | None


def parse_curriculum(order: str) -> Curriculum | None:
    """The curriculum of a phase, whose order ``manifest.json`` names so; None where its ranks can't be computed."""
    found = _ORDER.fullmatch(order)
    if found is None:
        return None
    return Curriculum(found[1], found[2] == "descending", int(found[3]) if found[3] else None)
