"""Distributions as shares of samples in common bins, and their quantiles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BINS = 32
_LOG_ABOVE = 20.0  # a wider range of positive values, largest over least, is drawn on a logarithmic axis
_TAIL = 0.005  # of either end, which does not stretch the axis


@dataclass(frozen=True, eq=False)
class Series:
    """Values of one kind, each with what it counts.

    Attributes:
        label: whose they are.
        kind: ``corpus`` or ``chosen``, which the page draws each in its way.
        values: (n,) float64.
        counts: (n,) float64, how many samples each stands for.
    """

    label: str
    kind: str
    values: np.ndarray
    counts: np.ndarray

    def finite(self) -> "Series":
        """Without what is not a number: a sample of which the value is not known."""
        known = np.isfinite(self.values)
        return Series(self.label, self.kind, self.values[known], self.counts[known])

    def quantiles(self) -> list[float | None]:
        """Weighted quantiles; None where there is no value."""
        if not len(self.values):
            return [None] * len(QUANTILES)
        order = np.argsort(self.values, kind="stable")
        reached = np.cumsum(self.counts[order])
        places = np.searchsorted(reached, np.array(QUANTILES) * reached[-1])
        return [float(value) for value in self.values[order][places.clip(max=len(order) - 1)]]


@dataclass(frozen=True, eq=False)
class Bins:
    """Bins of an axis.

    Attributes:
        edges: (b + 1,) float64, ascending; of a logarithmic axis too, as values.
        log: whether the axis is logarithmic.
        whole: whether values are whole numbers.
    """

    edges: np.ndarray
    log: bool = False
    whole: bool = False

    def shares(self, series: Series) -> np.ndarray:
        """(b,) float64, the share of samples in every bin; what lies beyond is in the outer ones."""
        inside = series.values.clip(self.edges[0], self.edges[-1])
        counts, _ = np.histogram(inside, self.edges, weights=series.counts)
        whole = series.counts.sum()
        return counts / whole if whole > 0 else counts

    def places(self, values: np.ndarray) -> np.ndarray:
        """Where values lie along the axis, from 0 to 1."""
        scale = np.log if self.log else np.asarray
        low, high = scale(self.edges[0]), scale(self.edges[-1])
        return (scale(values) - low) / (high - low)

    def ticks(self) -> list[float]:
        """Four to eight round values within the bins; powers of ten, times 1, 2 and 5, on a logarithmic axis."""
        low, high = float(self.edges[0]), float(self.edges[-1])
        if self.log:
            powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
            for steps in ((1, 2, 5), (1, 3), (1,)):
                found = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
                if len(found) <= 7:
                    break
            return found[:: max(1, len(found) // 5)]
        rough = max((high - low) / 5, 1.0 if self.whole else 0.0)
        unit = 10.0 ** np.floor(np.log10(rough))
        step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= rough)
        first = np.ceil(low / step)
        return [float(place * step) + 0.0 for place in np.arange(first, np.floor(high / step + 1e-9) + 1)]


def bins_of(series: Sequence[Series], whole_numbers: bool = False) -> Bins | None:
    """Bins in which several series can be laid over each other; None where there is no value.

    Args:
        series: what is to fit.
        whole_numbers: whether values are counts, which have a bin each where they are few.
    """
    values = [one.values for one in series if len(one.values)]
    if not values:
        return None
    low = min(float(np.quantile(found, _TAIL)) for found in values)
    high = max(float(np.quantile(found, 1 - _TAIL)) for found in values)
    if whole_numbers:
        low, high = float(np.floor(low)), float(np.ceil(high))
        if high - low < _BINS:
            return Bins(np.arange(low - 0.5, high + 1.0), whole=True)
    if not high > low:
        pad = abs(low) * 0.05 or 0.5
        return Bins(np.linspace(low - pad, high + pad, 6))
    if low > 0 and high / low > _LOG_ABOVE and not whole_numbers:
        return Bins(np.geomspace(low, high, _BINS + 1), log=True)
    return Bins(np.linspace(low, high, _BINS + 1), whole=whole_numbers)
