"""A report in a real browser: it asks for nothing, complains of nothing, and fits narrow and wide, light and dark."""

import json

import pytest
from browser import Chromium, browser
from selection_builder import choose

from cptsel.pipeline.report import report
from cptsel.pipeline.reporting.config import ReportConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    path = browser()
    if path is None:
        pytest.skip("no Chromium or Chrome; install one, or name it by CPTSEL_BROWSER")
    found = Chromium(path, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def pages(run, tmp_path_factory):
    """A report without a map, one with it, and one of two selections."""
    folder = tmp_path_factory.mktemp("pages")
    choose(run, folder / "a", method="craig")
    choose(run, folder / "b", method="uniform", realisation="repeat", replay_tokens="3K", seed=3)
    a, b = str(folder / "a"), str(folder / "b")
    kinds = {"plain": (None, ()), "map": (None, (str(run),)), "two": (b, (str(run),))}
    for name, (other, runs) in kinds.items():
        report(ReportConfig(replay=a, other=other, run=runs, out=str(folder / f"{name}.html")))
    return folder


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400], ids=["narrow", "wide"])
@pytest.mark.parametrize("name", ["plain", "map", "two"])
def test_a_page_asks_for_nothing_and_fits(chromium, pages, name, width, dark):
    path = pages / f"{name}.html"
    chromium.open(path, width, 800, dark)
    if name != "plain":
        chromium.until("document.querySelector('#map canvas, #map .bk-Figure, #map > *') !== null")
        chromium.until("Bokeh.documents.length > 0 && Bokeh.documents[0].is_idle")
    assert chromium.requests() == [path.as_uri()]
    assert chromium.complaints() == []
    assert chromium.value("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    text, ground = (
        chromium.value(f"(getComputedStyle(document.body).{kind}.match(/[0-9.]+/g) || []).map(Number)")
        for kind in ("color", "backgroundColor")
    )
    assert contrast(text, ground) >= 7
    assert (luminance(ground) < 0.2) == dark
    assert chromium.value("document.querySelectorAll('main section').length") > 4


def test_the_map_hides_groups_and_lists_what_is_encircled(chromium, pages):
    chromium.open(pages / "map.html", 1400, 900, False)
    chromium.until("Bokeh.documents.length > 0 && Bokeh.documents[0].is_idle")
    shown = "[0, 1].map((n) => Bokeh.documents[0].get_model_by_name('filter-' + n).indices.length)"
    before = chromium.value(shown)
    assert min(before) > 0
    boxes = "Array.from(document.querySelectorAll('#map-groups input[name=\"mark\"]'))"
    chromium.value(f"{boxes}[0].click()")
    assert chromium.value(shown) == [0, before[1]]
    chromium.value(f"{boxes}[0].click()")
    assert chromium.value(shown) == before
    chromium.value("Bokeh.documents[0].get_model_by_name('points').selected.indices = [0, 1, 2]; 0")
    assert chromium.value("document.getElementById('map-selection').textContent").startswith("3 samples: ")
    assert chromium.complaints() == []


def test_the_browser_would_tell(chromium, tmp_path):
    """Of a page that asks for something, throws, and is too wide."""
    page = tmp_path / "page.html"
    other = (tmp_path / "other.js").as_uri()
    page.write_text(f"<p style='width:900px'>x<script src={json.dumps(other)}></script><script>throw 1</script>")
    chromium.open(page, 360, 600, False)
    assert chromium.requests() == [page.as_uri(), other]
    assert len(chromium.complaints()) == 2
    assert chromium.value("document.documentElement.scrollWidth") > 360


def luminance(colour):
    """Relative luminance of sRGB (WCAG 2.2) of [red, green, blue] from 0 to 255."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    """Contrast ratio of two colours (WCAG 2.2)."""
    low, high = sorted([luminance(first[:3]), luminance(second[:3])])
    return (high + 0.05) / (low + 0.05)
