"""HTML in which every text is escaped, unless it was made here."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from cptsel.pipeline.summary import named

# Control characters (C0 but for white space, DEL, C1), overrides and isolates of direction, lone surrogates.
_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_VOID = frozenset({"br", "hr", "input", "meta"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def plain(value: object) -> str:
    """A value as text, without characters that hide themselves or turn the text around."""
    return _HIDDEN.sub("\ufffd", str(value))


def escaped(value: object) -> Html:
    """A value as HTML: itself where it is that already, nothing for None."""
    if value is None:
        return Html("")
    return value if isinstance(value, Html) else Html(html.escape(plain(value), quote=True))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Several values as one piece of HTML."""
    return Html(html.escape(between).join(escaped(part) for part in parts))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. Children that are not ``Html`` are escaped, and so are all attributes.

    Args:
        name: of the element.
        children: what is in it; None is nothing.
        attributes: ``class_`` is ``class``, other underscores are dashes; True is an attribute without a value, None
            and False are none.
    """
    written = ""
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        written += f" {key.rstrip('_').replace('_', '-')}"
        if value is not True:
            written += f'="{html.escape(plain(value), quote=True)}"'
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def figure(value: Any) -> str:
    """A value as the summaries of the commands write it: thousands apart, four significant digits."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)


def percent(share: float | None) -> str:
    """A share as percent: with one digit behind the point, two below a percent; None is a dash."""
    if share is None:
        return "–"
    if share in (0, 1):
        return f"{share:.0%}"
    return f"{share:.2%}" if share < 0.00995 else f"{share:.1%}"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], caption: str | None = None) -> Html:
    """A table that scrolls by itself where it is too wide; numbers stand to the right."""
    numbers = [
        bool(rows) and all(isinstance(row[place], int | float) or row[place] is None for row in rows)
        for place in range(len(columns))
    ]
    head = [
        tag("th", name, scope="col", class_="n" if right else None)
        for name, right in zip(columns, numbers, strict=True)
    ]
    body = [
        tag(
            "tr",
            *[
                _cell(value, right, first=not place)
                for place, (value, right) in enumerate(zip(row, numbers, strict=True))
            ],
        )
        for row in rows
    ]
    inner = tag(
        "table",
        tag("caption", caption) if caption else None,
        tag("thead", tag("tr", *head)),
        tag("tbody", *body),
    )
    return tag("div", inner, class_="scroll")


def _cell(value: Any, right: bool, first: bool) -> Html:
    shown = value if isinstance(value, Html) else figure(value)
    if first:
        shown = shown if isinstance(shown, Html) else named(shown)
        return tag("th", shown, scope="row", class_="n" if right else None)
    return tag("td", shown, class_="n" if right else None)


def group_name(name: str) -> Html:
    """The name of a group, whose direction is its own."""
    return tag("bdi", named(name))


def details(summary: object, *children: object, open_: bool = False) -> Html:
    """What unfolds below a line."""
    return tag("details", tag("summary", summary), *children, open=open_)


def paragraphs(sentences: Iterable[object]) -> Html:
    """A paragraph for each."""
    return join(tag("p", sentence) for sentence in sentences)
