"""An export as a directory: its header, and the datasets that its files are."""

import posixpath
from collections.abc import Iterable, Mapping
from typing import TypeVar

from cptsel.pipeline.exports.base import ExportFormat

FORMAT = "cptsel.export"
EXPORT = "export.json"

Entry = TypeVar("Entry")


def datasets(format: ExportFormat, files: Mapping[str, Entry]) -> dict[str, dict[str, Entry]]:
    """By folder, the files of plays in it by name, in the order of play.

    Args:
        format: of the export.
        files: all files below ``data/`` by name.
    """
    found: dict[str, dict[str, Entry]] = {}
    for name in sorted(name for name in files if name.endswith(format.suffix)):
        found.setdefault(posixpath.dirname(name), {})[name] = files[name]
    return found


def recipe_folders(format: ExportFormat, files: Iterable[str]) -> list[str]:
    """The folders that a trainer is told of: those of the datasets, or all of ``data`` where visits are files."""
    return ["data"] if format.layout == "visits" else list(datasets(format, dict.fromkeys(files)))
