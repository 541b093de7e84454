"""Bars and histograms as HTML and SVG: they need no script, print well, and take their colours from the page."""

from collections.abc import Sequence

import numpy as np

from cptsel.pipeline.reporting.distributions import QUANTILES, Bins, Series
from cptsel.pipeline.reporting.html import Html, details, figure, group_name, join, percent, table, tag

_WIDTH, _HEIGHT, _BASE, _TOP = 320, 150, 22, 6  # of a histogram: its box, room for ticks below, and above the bars
_ROOM = 62.0  # percent of a row that the longest bar takes; its label stands behind it


def bar(kind: str, share: float, label: str) -> Html:
    """A bar that is ``share`` of its room long (0 to 1), and what it says.

    Args:
        kind: ``corpus``, ``chosen`` or ``played``, which the page colours.
        share: its length.
        label: text behind it.
    """
    length = f"{_ROOM * min(1.0, max(0.0, share)):.2f}%"
    return tag(
        "div", tag("i", class_=kind, style=f"width:{length}", aria_hidden="true"), tag("span", label), class_="bar"
    )


def legend(*entries: tuple[str, str]) -> Html:
    """Colours and what they stand for: pairs of kind and label."""
    items = [tag("li", tag("i", class_=kind, aria_hidden="true"), label) for kind, label in entries]
    return tag("ul", *items, class_="legend")


def histogram(title: str, unit: str, series: Sequence[Series], bins: Bins) -> Html:
    """Distributions over each other, as shares of samples; quantiles unfold below.

    Args:
        title: what is counted.
        unit: in which, for the axis.
        series: the corpus is filled, what was chosen is a line.
        bins: common to all, and to other selections beside.
    """
    heights = [bins.shares(one) for one in series]
    most = max((float(found.max()) for found in heights), default=0.0) or 1.0
    drawn = [
        _area(found / most, bins) if one.kind == "corpus" else _line(found / most, bins)
        for one, found in zip(series, heights, strict=True)
    ]
    medians = "; ".join(f"median of {one.label} {figure(one.quantiles()[2])}" for one in series)
    picture = tag(
        "svg",
        *drawn,
        *_ticks(bins),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{title}: {medians}",
    )
    names = [f"{quantile:.0%}" for quantile in QUANTILES]
    rows = [[one.label, *one.quantiles()] for one in series]
    return tag(
        "figure",
        tag("figcaption", tag("b", title), f", {unit}"),
        picture,
        tag("p", medians, class_="note"),
        details("Quantiles", table(["share of samples below", *names], rows)),
    )


def _points(heights: np.ndarray, bins: Bins) -> str:
    """Corners of the outline of bars, left to right."""
    x = bins.places(bins.edges) * _WIDTH
    y = _TOP + (1 - heights) * (_HEIGHT - _BASE - _TOP)
    corners = [f"{left:.1f},{top:.1f} {right:.1f},{top:.1f}" for left, right, top in zip(x[:-1], x[1:], y, strict=True)]
    return " ".join(corners)


def _area(heights: np.ndarray, bins: Bins) -> Html:
    floor = _HEIGHT - _BASE
    return tag("polygon", points=f"0,{floor} {_points(heights, bins)} {_WIDTH},{floor}", class_="corpus")


def _line(heights: np.ndarray, bins: Bins) -> Html:
    floor = _HEIGHT - _BASE
    return tag("polyline", points=f"0,{floor} {_points(heights, bins)} {_WIDTH},{floor}", class_="chosen")


def _ticks(bins: Bins) -> list[Html]:
    floor, found = _HEIGHT - _BASE, []
    for value in bins.ticks():
        x = float(bins.places(np.array(value))) * _WIDTH
        anchor = "start" if x < 12 else "end" if x > _WIDTH - 12 else "middle"
        found.append(tag("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=floor, y2=floor + 4, class_="tick"))
        found.append(tag("text", _tick(value), x=f"{x:.1f}", y=_HEIGHT - 5, text_anchor=anchor))
    return [tag("line", x1=0, x2=_WIDTH, y1=floor, y2=floor, class_="tick"), *found]


def _tick(value: float) -> str:
    """A round value in few characters."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:.6g}"


def share_bars(name: str, entries: Sequence[tuple[str, str, float]], most: float) -> Html:
    """A row of a table: a name, and a bar for each (kind, label, share); ``most`` is the share of a whole bar."""
    bars = join(bar(kind, share / most if most else 0.0, f"{percent(share)} {label}") for kind, label, share in entries)
    return tag("tr", tag("th", group_name(name), scope="row"), tag("td", bars))
