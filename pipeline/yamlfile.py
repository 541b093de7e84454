"""Mappings in YAML files of the user's, within bounds: a small file can be written to take all memory, or for ever."""

from collections.abc import Callable
from typing import Any, BinaryIO

import yaml

from cptsel.pipeline.errors import UsageError, first_line

_MOST_BYTES = 4 << 20
_MOST_DEPTH = 20


def _open_local(path: str) -> BinaryIO:
    return open(path, "rb")


def read_mapping(
    path: str, option: str, what: str, open_read: Callable[[str], BinaryIO] = _open_local
) -> list[tuple[Any, Any]]:
    """Keys and values in the order of the file, doubled keys too; an empty file has none.

    What a merge key (<<) brings comes last, but for what the file has itself.

    Args:
        path: of the file.
        option: that named it, for sentences.
        what: the file must be.
        open_read: opens it; local files alone by default, which needs no Beam.

    Raises:
        UsageError: it can't be read, is no mapping, or goes beyond the bounds.
    """
    try:
        with open_read(path) as handle:
            data = handle.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise UsageError(f"{option} {path}: has more than {_MOST_BYTES >> 20} MiB; name a YAML file")
        text = data.decode("utf-8")
        _check_bounds(text)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None and not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{option} {path}: must be {what}")
        return [] if node is None else _pairs(loader, node)
    except OSError as error:
        reason = (error.strerror or first_line(error)).lower()
        raise UsageError(f"{option} {path}: can't be read ({reason}); name a YAML file") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{option} {path}: can't be read as YAML ({' '.join(str(error).split())[:200]})") from error


def _check_bounds(text: str) -> None:
    """Raise ValueError where nodes lie too deep, or an alias stands inside what has an anchor: these may multiply."""
    anchored: list[bool] = []
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            anchored.append(event.anchor is not None)
            if len(anchored) > _MOST_DEPTH:
                raise ValueError(f"nested more than {_MOST_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchored.pop()
        elif isinstance(event, yaml.AliasEvent) and any(anchored):
            raise ValueError(f"the alias *{event.anchor} stands inside an anchor")


def _pairs(loader: yaml.SafeLoader, node: yaml.MappingNode) -> list[tuple[Any, Any]]:
    own = sum(key.tag != "tag:yaml.org,2002:merge" for key, _ in node.value)
    loader.flatten_mapping(node)  # puts what is merged first
    pairs = loader.construct_pairs(node, deep=True)
    merged = len(pairs) - own
    names = {str(key) for key, _ in pairs[merged:]}
    return [*pairs[merged:], *(pair for pair in pairs[:merged] if str(pair[0]) not in names)]
