"""The CSV file of small trainings that ``cptsel plan`` reads."""

import csv
import io as text_io
import math

import numpy as np

from cptsel.pipeline import io
from cptsel.pipeline.errors import BadInputError, UsageError
from cptsel.pipeline.kernels.replay_law import LEAST_BUDGETS, budgets_of
from cptsel.schemas.arrow import TRAININGS

_MOST_BYTES = 4 << 20
_MOST_TOKENS, _MOST_RISE = 1e18, 1e9  # of a line; the fit overflows far above these


def read_trainings(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Columns of a CSV file: replayed tokens and rises of the old loss, (n,) float64 each, a training a row.

    Raises:
        UsageError: it can't be read, has other columns, or too few different amounts of replay.
        BadInputError: a row is not of two numbers.
    """
    try:
        with io.open_read(path) as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise UsageError(f"{path}: has more than {_MOST_BYTES >> 20} MiB; name a CSV file of trainings")
        lines = list(csv.reader(text_io.StringIO(data.decode("utf-8-sig")), strict=True))
    except OSError as error:
        raise UsageError(f"{path}: can't be read ({error.strerror or error}); check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: is no CSV file of trainings ({error}); save it as UTF-8 with commas") from None
    head = [name.strip() for name in lines[0]] if lines else []
    if not head:
        raise UsageError(f"{path}: is empty; it must have the columns {', '.join(TRAININGS.names)}")
    if missing := [name for name in TRAININGS.names if head.count(name) != 1]:
        count = "stands there more than once" if missing[0] in head else "is not there"
        raise UsageError(
            f"{path}: the first line ({','.join(head)[:60]!r}) must name the columns {', '.join(TRAININGS.names)}, "
            f"separated by commas, once each; {missing[0]} {count}"
        )
    places = [head.index(name) for name in TRAININGS.names]
    rows = [_numbers(path, number, row, places) for number, row in enumerate(lines[1:], 2) if any(map(str.strip, row))]
    tokens, rise = np.array(rows, np.float64).reshape(-1, 2).T
    if (different := len(np.unique(budgets_of(tokens)))) < LEAST_BUDGETS:
        raise UsageError(
            f"{path}: trainings with {different} different amounts of replay_tokens; the law needs {LEAST_BUDGETS}, of "
            "which one is best 0"
        )
    return tokens, rise


def _numbers(path: str, number: int, row: list[str], places: list[int]) -> list[float]:
    """Tokens and rise of a line."""
    try:
        values = [float(row[place]) for place in places]
    except (IndexError, ValueError):
        values = [math.nan]
    if not (values[0] == 0 or 1 <= values[0] <= _MOST_TOKENS) or not abs(values[-1]) <= _MOST_RISE:
        raise BadInputError(
            f"{path}: line {number} ({','.join(row)[:60]!r}): replay_tokens must be a count of tokens in digits, such "
            "as 20000, and rise a number, such as 0.12; mend or delete the line"
        )
    return values
