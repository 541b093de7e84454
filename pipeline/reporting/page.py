"""The page: a whole HTML file of sections, which asks the network for nothing."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cptsel import __version__
from cptsel.pipeline.reporting.html import Html, tag
from cptsel.pipeline.reporting.script import BOOT
from cptsel.pipeline.reporting.style import CSS

MARK = "<!-- made by cptsel report -->"  # by which a later call knows a file that it may replace
_SIGNS = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


_FOOT = f"Made by cptsel {__version__}. This file holds all that it shows and asks the network for nothing."


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        id: where links lead.
        title: its heading.
        body: what is below, before the columns.
        columns: one a selection; none where the body is all.
    """

    id: str
    title: str
    body: Html
    columns: tuple[Html, ...] = ()


def json_script(id: str, value: Any) -> Html:
    """Data for a script, in which nothing can end the element or begin another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign, written in _SIGNS.items():
        text = text.replace(sign, written)
    return Html(f'<script type="application/json" id="{id}">{text}</script>')


def whole_page(title: str, lead: Html, sections: Sequence[Section], names: Sequence[str], item: Any, facts: Any) -> str:
    """The file.

    Args:
        title: heading of the page.
        lead: what stands below it.
        sections: in their order.
        names: of the selections, above their columns where there are two.
        item: what Bokeh draws, None for a page without a map.
        facts: what the page's script knows of it.
    """
    scripts = [] if item is None else [_bokeh(), BOOT]
    data = [] if item is None else [json_script("map-data", item), json_script("map-facts", facts)]
    links = [tag("li", tag("a", section.title, href=f"#{section.id}")) for section in sections]
    body = [
        tag("a", "Skip to the content", class_="skip", href="#content"),
        tag("header", tag("h1", tag("bdi", title)), lead, tag("nav", tag("ul", *links), aria_label="Sections")),
        tag("main", *[_section(section, names) for section in sections], id="content", tabindex="-1"),
        tag("footer", tag("p", _FOOT)),
        *data,
        *[Html(f"<script>{script}</script>") for script in scripts],
    ]  # fmt: skip
    head = [
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(scripts)),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        Html(f"<style>{CSS}</style>"),
    ]
    page = tag("html", tag("head", *head), tag("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{MARK}\n{page}\n"


def _section(section: Section, names: Sequence[str]) -> Html:
    two = len(section.columns) > 1
    columns = [
        tag("div", tag("h3", tag("bdi", name)) if two else None, column)
        for name, column in zip(names, section.columns, strict=False)
    ]
    inner = tag("div", *columns, class_="pair two" if two else "pair") if columns else None
    heading = tag("h2", section.title, id=f"{section.id}-title")
    return tag("section", heading, section.body, inner, id=section.id, aria_labelledby=f"{section.id}-title")


def _policy(scripts: Sequence[str]) -> str:
    """What a browser lets the page do: run the scripts that were written here, and nothing from elsewhere."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{found}'" for found in hashes) or "'none'"
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {allowed}"


def _bokeh() -> str:
    """Bokeh's own script, without its widgets."""
    from bokeh.resources import Resources

    script = "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
