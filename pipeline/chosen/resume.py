"""What is in the output directory when a call begins: nothing, a part of the same output, all of it, or another one."""

from collections.abc import Mapping
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.writing import Output
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.hashing import fingerprint
from cptsel.schemas.validation import validate

_WRITTEN_LAST = ("files", "totals")
_NOT_SHAPING = frozenset({"model.source", "model.revision", "packages.cptsel"})


def plan_id(header: Mapping[str, Any]) -> str:
    """Names what decides the bytes: all of a header but what is written at the end, paths, and our own version."""
    return fingerprint(_shaping(header))


def begin(output: Output, config_yaml: str, name: str, header: Mapping[str, Any], overwrite: bool) -> str:
    """Start an output, resume it, or find it done; returns the status word of the summary.

    Args:
        output: the directory.
        config_yaml: the effective configuration.
        name: of the header's file, without ``.json``, which is that of its schema as well.
        header: without files and totals.
        overwrite: whether to begin anew.

    Raises:
        UsageError: the directory has another output of the command, or one that other options or packages made.
    """
    path, status = io.join(output.path, f"{name}.json"), "done"
    if overwrite:
        output.begin(config_yaml)
    elif io.exists(path):
        old = io.read_json(path)
        _refuse_difference(output.path, old, header)
        if io.exists(io.join(output.path, outputs.SUCCESS)):
            if _all_there(output.path, old):
                return "already done"
            io.delete(io.join(output.path, outputs.SUCCESS))
        status = "resumed"
    outputs.write_config(output.path, output.command, config_yaml)
    validate(header, name)
    io.write_json(path, header)
    return status


def _all_there(out: str, header: Mapping[str, Any]) -> bool:
    """Whether all files are those that were written; others are deleted, so that they are made anew."""
    wanted = {name: entry["sha256"] for name, entry in header.get("files", {}).items()}
    there = sorted(wanted.keys() & set(outputs.list_tree(out)))
    rotten = [name for name, (digest, _) in outputs.hash_files(out, there).items() if digest != wanted[name]]
    io.delete_files(out, rotten)
    return "files" in header and not rotten and len(there) == len(wanted)


def _refuse_difference(out: str, old: Any, new: Mapping[str, Any]) -> None:
    before, now = (_shaping(header) if isinstance(header, dict) else {} for header in (old, dict(new)))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise UsageError(
                f"{out}: was begun with {name} {before.get(name)}, now {now.get(name)}; use another --out, or "
                "--overwrite to replace it"
            )


def _shaping(header: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the bytes, by dotted names."""
    found: dict[str, Any] = {}
    for name, value in header.items():
        if name not in _WRITTEN_LAST:
            found |= {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    return {name: value for name, value in found.items() if name not in _NOT_SHAPING}
