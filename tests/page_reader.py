"""Reading a report as a browser does: its elements, its text, and the data of its scripts."""

import json
from html.parser import HTMLParser

_VOID = {"meta", "input", "br", "hr"}


class Page(HTMLParser):
    """An HTML file taken apart.

    ``elements`` are (name, attributes) in their order, ``text`` is what is shown, ``scripts`` are the contents of
    scripts by their id, ``""`` for those that run.
    """

    def __init__(self, data: bytes):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self._script: str | None = None
        self.feed(data.decode())
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in _VOID:
            return
        self.open.append(tag)
        if tag == "script":
            self._script = dict(attrs).get("id") or ""
            self.scripts.setdefault(self._script, []).append("")

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> ends nothing"
        assert self.open.pop() == tag
        self._script = None

    def handle_data(self, data):
        if self._script is not None:
            self.scripts[self._script][-1] += data
        elif not self.open or self.open[-1] != "style":
            self.text += data

    def count(self, name):
        return sum(element == name for element, _ in self.elements)

    def ids(self):
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    def data(self, id):
        """What a script of data holds."""
        (text,) = self.scripts[id]
        return json.loads(text)


def columns_of(item):
    """Columns of the map's points, arrays as numpy arrays."""
    import base64
    import gzip

    import numpy as np

    found = {}

    def walk(value):
        if isinstance(value, dict):
            if value.get("name") == "ColumnDataSource":
                for name, values in value["attributes"]["data"]["entries"]:
                    found[name] = values
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(item)

    def decoded(values):
        if isinstance(values, list):
            return values
        data = base64.b64decode(values["array"]["data"])
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        return np.frombuffer(data, values["dtype"]).reshape(values["shape"])

    return {name: decoded(values) for name, values in found.items()}
