"""A map of samples: their sketches on a plane, drawn by Bokeh from data that the page carries itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.kernels.pca import principal_components
from cptsel.pipeline.reporting.html import percent

SOURCE, FILTER = "points", "filter"  # names by which the page's script finds the models
PALETTE = (
    "#4e79a7", "#e17c05", "#59a14f", "#d1495b", "#8d6cab", "#2a9d9d", "#b8860b", "#c25b9e", "#7a8b3f", "#5b8ff9",
)  # fmt: skip
OTHERS = "#8a8f98"  # of groups beyond these
MARKS = ("circle", "diamond", "square", "star")  # of samples left out, of those of each selection, and of both
_SIZES = (4, 12, 9, 13)
_NEIGHBOURS_FROM = 50  # components that t-SNE starts from


@dataclass(frozen=True, eq=False)
class Layout:
    """Places of samples on the plane.

    Attributes:
        xy: (n, 2) float64.
        words: how they were found, a sentence.
    """

    xy: np.ndarray
    words: str


@dataclass(frozen=True, eq=False)
class Points:
    """What is drawn, a row a sample.

    Attributes:
        xy: (n, 2) places.
        group: names of groups.
        code: (n,) colour of each, an index into PALETTE, or ``len(PALETTE)``.
        mark: (n,) 0 for what was left out, 1 and 2 for picks of one of the selections, 3 of both.
        text: shortened; empty where it is not at hand.
        figures: (n,) arrays by what they are called, for the note of a sample.
    """

    xy: np.ndarray
    group: Sequence[str]
    code: np.ndarray
    mark: np.ndarray
    text: Sequence[str]
    figures: dict[str, np.ndarray]


def need_bokeh() -> None:
    """Raise UsageError where Bokeh is not installed."""
    try:
        import_module("bokeh")
    except ImportError as error:
        raise UsageError("the map of --run needs Bokeh: pip install 'cptsel[report]', or leave out --run") from error


def lay_out(x: np.ndarray, seed: int) -> Layout:
    """Place sketches on the plane: by t-SNE where openTSNE is installed, else by their principal components.

    Args:
        x: (n, k) directions.
        seed: of t-SNE.
    """
    found = principal_components(x, 2)
    try:
        tsne = import_module("openTSNE")
    except ImportError:
        first, second = (percent(float(share)) for share in found.shares)
        return Layout(
            found.scores,
            f"The two directions in which the gradients differ most (principal components); they hold {first} and "
            f"{second} of the differences, so samples near each other here may still differ.",
        )
    narrow = principal_components(x, min(_NEIGHBOURS_FROM, x.shape[1])).scores
    start = found.scores / max(float(found.scores[:, 0].std()), 1e-12) * 1e-4
    made = tsne.TSNE(
        initialization=start, perplexity=min(30.0, max(1.0, (len(x) - 1) / 3)), metric="cosine", n_jobs=1,
        random_state=seed,
    ).fit(narrow)  # fmt: skip
    return Layout(
        np.asarray(made, np.float64),
        "Neighbours have similar gradients (t-SNE): near means alike, but distances between islands mean little.",
    )


def map_item(points: Points, height: int = 560) -> dict[str, Any]:
    """What ``Bokeh.embed.embed_item`` draws. Equal points give equal items, whatever the process has drawn before."""
    from bokeh.embed import json_item
    from bokeh.models import (
        CDSView,
        ColumnDataSource,
        HoverTool,
        IndexFilter,
        LassoSelectTool,
        LinearColorMapper,
        Range1d,
        WheelZoomTool,
    )  # fmt: skip
    from bokeh.plotting import figure

    plot = figure(
        height=height, sizing_mode="stretch_width", tools="pan,box_zoom,reset,save", toolbar_location="above",
        x_range=Range1d(*_extent(points.xy[:, 0])), y_range=Range1d(*_extent(points.xy[:, 1])),
        background_fill_alpha=0.0, border_fill_alpha=0.0, outline_line_alpha=0.0, min_border=0,
    )  # fmt: skip
    plot.axis.visible = False
    plot.grid.grid_line_color, plot.grid.grid_line_alpha = "#888888", 0.2
    columns = {
        "x": points.xy[:, 0].astype(np.float32), "y": points.xy[:, 1].astype(np.float32),
        "code": points.code.astype(np.uint8), "mark": points.mark.astype(np.uint8),
        "group": list(points.group), "text": list(points.text),
        **{name: _narrow(values) for name, values in points.figures.items()},
    }  # fmt: skip
    source = ColumnDataSource(columns, name=SOURCE)
    colours = LinearColorMapper(palette=[*PALETTE, OTHERS], low=-0.5, high=len(PALETTE) + 0.5)
    colour = {"field": "code", "transform": colours}
    for mark in np.unique(points.mark).tolist():  # the picks on top
        picked = mark > 0
        plot.scatter(
            "x", "y", source=source, marker=MARKS[mark], size=_SIZES[mark], fill_color=colour,
            fill_alpha=0.95 if picked else 0.45, line_color="#444444" if picked else None, line_width=1.2,
            nonselection_fill_alpha=0.35 if picked else 0.08, nonselection_line_alpha=0.3,
            view=CDSView(filter=IndexFilter([], name=f"{FILTER}-{mark}")), name=f"mark-{mark}",
        )  # fmt: skip
    hover = HoverTool(
        tooltips=None
    )  # the page writes the note itself: not every Bokeh escapes what it puts into its own
    plot.add_tools(hover, WheelZoomTool(), LassoSelectTool())
    plot.toolbar.active_scroll, plot.toolbar.logo = None, None  # the wheel goes on scrolling the page
    item: dict[str, Any] = _renamed(json_item(plot, "map"), {})
    return item


def _narrow(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int32 if values.dtype.kind in "iu" else np.float32)


def _extent(values: np.ndarray) -> tuple[float, float]:
    """From the least to the largest value, with a margin."""
    low, high = float(values.min()), float(values.max())
    pad = 0.04 * (high - low) or 1.0
    return low - pad, high + pad


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """Bokeh's item with ids by order of appearance: those that it gives depend on what was drawn before.

    Data are numbers and lists of texts, so every ``id`` in it is one of Bokeh's.
    """
    if isinstance(value, dict):
        return {
            key: names.setdefault(found, f"m{len(names)}")
            if key in ("id", "root_id") and isinstance(found, str)
            else _renamed(found, names)
            for key, found in value.items()
        }
    return [_renamed(found, names) for found in value] if isinstance(value, list) else value
