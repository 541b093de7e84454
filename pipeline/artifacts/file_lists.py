"""``manifest.json`` as bytes and as its canonical form, in the time and memory that a list of a million files asks for.

The list is most of the header then. Its entries are plain: three fields, whole numbers and letters that JSON writes one
way only. So the encoder of the standard library, which is written in C, gives what RFC 8785 asks for. Both forms come
in pieces, as copies of a long one are what takes memory.
"""

import json
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

import rfc8785

_FIELDS = ("bytes", "rows", "sha256")
_LARGEST = 2**53 - 1  # of whole numbers that RFC 8785 allows


def canonical(header: Mapping[str, Any]) -> Iterator[bytes]:
    """RFC 8785 form of a header, in pieces."""
    files = header.get("files")
    if not _is_plain(files):
        yield rfc8785.dumps(dict(header))
        return
    keys = sorted(header, key=lambda key: key.encode("utf-16-be"))
    for number, key in enumerate(keys):
        yield (b"," if number else b"{") + rfc8785.dumps(key) + b":"
        if key == "files":
            yield json.dumps(files, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        else:
            yield rfc8785.dumps(header[key])
    yield b"}"


def pretty(header: Mapping[str, Any]) -> Iterator[bytes]:
    """The bytes that ``io.write_json`` would write of a header, in pieces."""
    files = header.get("files")
    plain = bool(files) and _is_plain(files)
    whole = {**header, "files": {}} if plain else header
    text = json.dumps(whole, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    if plain:
        # Line breaks and quotes inside of strings are escaped, so what is replaced stands between entries only.
        listed = json.dumps(files, sort_keys=True, ensure_ascii=False, separators=(",\n      ", ": "))
        listed = listed.replace('": {"', '": {\n      "')
        listed = listed.replace('},\n      "', '\n    },\n    "')
        before, text = text.split('\n  "files": {}', 1)  # no other field is as far left
        yield f'{before}\n  "files": {{\n    '.encode()
        yield listed[1:-2].encode()
        yield b"\n    }\n  }"
    yield text.encode() + b"\n"


def _is_plain(files: Any) -> bool:
    """Whether each entry has the three fields, and names and values are such as JSON writes in one way."""
    if not isinstance(files, dict) or not "".join(files).isascii():
        return False
    if set(map(type, files.values())) - {dict} or set(map(len, files.values())) - {len(_FIELDS)}:
        return False
    try:
        for field, kind in zip(_FIELDS, (int, int, str), strict=True):
            if set(map(type, map(itemgetter(field), files.values()))) - {kind}:
                return False
    except KeyError:
        return False
    numbers = [list(map(itemgetter(field), files.values())) for field in ("bytes", "rows")]
    return all(max(map(abs, found), default=0) <= _LARGEST for found in numbers)
