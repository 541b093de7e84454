"""What files of plays are to a reader that knows no trainer: media types, and where in a record each field stands."""

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cptsel.pipeline.exports.base import ExportFormat

_DATASET = re.compile(r"data((/phase-\d+)?(/epoch-\d+)?)")

#: How Croissant finds a value: ``extract``, and ``transform`` of what that gives.
Extraction = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Members:
    """Members of an archive of plays, one of each kind a play.

    Attributes:
        name: of the kind, in the plural.
        suffix: of their names.
        type: media type.
        places: of the fields that they hold.
    """

    name: str
    suffix: str
    type: str
    places: Mapping[str, Extraction]


@dataclass(frozen=True)
class Media:
    """What a file of plays is.

    Attributes:
        types: media types, that of the content before that of a compression around it.
        loads: whether ``load_dataset`` of Hugging Face datasets knows the files by their suffix.
        places: of fields that are no column of their own name.
        members: what the files hold, where they are archives.
    """

    types: tuple[str, ...]
    loads: bool = True
    places: Mapping[str, Extraction] = field(default_factory=dict)
    members: tuple[Members, ...] = ()


def column(name: str, json_path: str | None = None) -> Extraction:
    """A column of a table or a key of a JSON object; with ``json_path``, what stands there in each item of its list."""
    found = {"extract": {"column": name}}
    return found if json_path is None else {**found, "transform": {"jsonPath": json_path}}


def parts(format: "ExportFormat", files: Iterable[str]) -> dict[str, list[str]]:
    """By phase and epoch, such as ``phase-000-epoch-001``, patterns of the names of the files of plays.

    Where there is one of each the name is ``plays``. A ``*`` in a pattern stands for a folder or file of any name.
    """
    found: dict[str, set[str]] = {}
    for name in files:
        if name.endswith(format.suffix) and (match := _DATASET.match(name)):
            depth = name[match.end() :].count("/")
            found.setdefault(match[1].strip("/").replace("/", "-"), set()).add(
                posixpath.join(match[0], *"*" * depth) + format.suffix
            )
    names = sorted(found)
    return {name if len(names) > 1 else "plays": sorted(found[name]) for name in names}
