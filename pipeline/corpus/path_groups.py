"""Groups that stand in a shard's path: Hive partitions by their key, and components by their number."""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from cptsel.pipeline.corpus.formats.registry import stem_of

_COMPONENT = re.compile(r"path\[(\d{1,3})\]")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def path_groups(path: str, names: Sequence[str]) -> Mapping[str, str | None]:
    """Values of the group columns that the path gives; the others are in the rows.

    ``lang`` is ``de`` for ``lang=de/part-0.parquet``, whatever the rows say, as with Spark. ``path[0]`` is the first
    component below the root, and the last one is the file's name without its suffixes; None where there are fewer.

    Args:
        path: of the shard, relative to the corpus root.
        names: of the group columns.
    """
    *folders, file = path.split("/")
    components = [*folders, stem_of(file)]
    partitions = dict(folder.split("=", 1) for folder in folders if "=" in folder)
    found: dict[str, str | None] = {}
    for name in names:
        if match := _COMPONENT.fullmatch(name):
            number = int(match[1])
            found[name] = components[number] if number < len(components) else None
        elif name in partitions:
            value = unquote(partitions[name])
            found[name] = None if value == _HIVE_NULL else value
    return found
