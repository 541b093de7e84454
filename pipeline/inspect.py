"""``cptsel inspect``: say what a directory is, if cptsel wrote it."""

from collections.abc import Callable
from typing import Any

from cptsel.pipeline import io, outputs
from cptsel.pipeline.errors import CptselError, UsageError
from cptsel.schemas.validation import validate

Described = tuple[str, dict[str, Any], list[dict[str, Any]]]
"""kind of directory, totals, tables"""

_ROWS_SHOWN = 20


def inspect(directory: str) -> dict[str, Any]:
    """What is in a directory: an embedding run, a replay manifest, an ordered one or an export, finished or not.

    Only what is recorded is read; ``verify`` is what checks it.

    Returns:
        The summary; ``status`` is the kind of directory and whether it is finished.

    Raises:
        UsageError: there is no such directory, or cptsel did not write it.
    """
    directory = io.absolute(directory)
    names = outputs.list_tree(directory)
    if not names:
        raise UsageError(f"{directory}: there is no such directory, or it is empty")
    for file, form, schema, describe in _KINDS:
        if file in names:
            header = io.read_json(io.join(directory, file))
            if isinstance(header, dict) and header.get("format") == form:
                return _inspect(directory, names, file, schema, header, describe)
    maker = outputs.made_by(directory)
    if maker is None:
        raise UsageError(
            f"{directory} was not written by cptsel ({len(names):,} files, the first {names[0]}); name the output of "
            "embed, select, order or export"
        )
    return {
        "command": "inspect",
        "out": directory,
        "status": f"begun by cptsel {maker}, nothing finished",
        "totals": {"files": len(names)},
        "tables": [],
        "warnings": [f"{directory} is unfinished; run cptsel {maker} again"],
    }


def _inspect(
    directory: str,
    names: list[str],
    file: str,
    schema: str,
    header: dict[str, Any],
    describe: Callable[[str, list[str], dict[str, Any]], Described],
) -> dict[str, Any]:
    """The summary of a directory whose header is ``file``."""
    warnings: list[str] = []
    described: Described = (schema, {}, [])
    try:
        validate(header, schema)
        described = describe(directory, names, header)
    except (ValueError, CptselError) as error:
        warnings.append(f"{io.join(directory, file)} is damaged: {error}")
    kind, totals, tables = described
    finished = outputs.SUCCESS in names
    if not finished:
        again = outputs.made_by(directory) or "the same command"
        warnings.append(f"{directory} is unfinished (no {outputs.SUCCESS}); run cptsel {again} again")
    return {
        "command": "inspect",
        "out": directory,
        "status": f"{kind}, {'finished' if finished else 'unfinished'}",
        "totals": totals,
        "tables": tables,
        "warnings": warnings,
    }


def _run(directory: str, names: list[str], header: dict[str, Any]) -> Described:
    model, projection = header["model"], header["projection"]
    totals = {
        "model": f"{model['source']} ({model['class']}, {model['dtype']})",
        "weights": header["fingerprints"]["weights"][:16],
        "corpus": f"{header['corpus']['root']}, {header['corpus']['shards']:,} shards",
        "corpus bytes": header["corpus"]["bytes"],
        "sketch": f"{projection['k']} numbers, seed {projection['seed']}; validation {projection['validation']['k']}",
        "norms": header["norm_kind"],
        "blocks written": sum(name.startswith("embeddings/") and name.endswith(".parquet") for name in names),
    }
    tables = []
    if "units.parquet" in names:
        units = io.read_parquet(io.join(directory, "units.parquet"))
        for column in units.schema.names[2:]:
            totals[column.replace("_", " ")] = sum(units[column].to_pylist())
    if "shards.parquet" in names:
        columns = ["path", "format", "compression", "bytes", "rows", "tokens"]
        tables.append(_shards_table(directory, columns))
    return "embedding run", totals, tables


def _manifest(directory: str, names: list[str], header: dict[str, Any]) -> Described:
    order, totals = header["order"], header["totals"]
    ordered = order["kind"] == "priority"
    shown = {
        "manifest_id": header["manifest_id"],
        "parent": header["parent"],
        "method": header["selection"]["method"],
        "weights realised by": header["weighting"]["realisation"],
        "order": _order(order) if ordered else _unscheduled(header),
        "corpus": header["corpus"]["root"],
        **{key.replace("_", " "): value for key, value in totals.items()},
    }
    columns = ["group", "population_mass", "target_mass", "selected_samples", "selected_tokens", "replay_tokens"]
    rows = [[group[column] for column in columns] for group in header["groups"]]
    groups = _table("Groups", [column.replace("_", " ") for column in columns], rows)
    tables = [groups]
    if outputs.SUCCESS in names:
        tables.append(_shards_table(directory, ["path", "population_samples", "selected_samples", "replay_tokens"]))
    return "ordered replay manifest" if ordered else "replay manifest", shown, tables


def _unscheduled(header: dict[str, Any]) -> str:
    kinds = list(dict.fromkeys(phase["order"] for phase in header["phases"]))
    return "as in the corpus" if kinds == ["corpus"] else f"no schedule; phases go by {', '.join(kinds)}"


def _order(order: dict[str, Any]) -> str:
    return f"by importance: {order['epochs']} epochs, {order['world_size']} ranks, seed {order['seed']}"


def _export(directory: str, names: list[str], header: dict[str, Any]) -> Described:
    totals = {"parent": header["parent"], "format": header["to"], "fidelity": header["fidelity"]}
    totals |= {"instructions": header["instructions"], **header["totals"]}
    totals |= {f"excluded {key}": header["excluded"][key] for key in ("samples", "lines", "tokens")}
    columns = ["lines", "tokens", "bytes"]
    rows = [[name, *(entry[column] for column in columns)] for name, entry in sorted(header["files"].items())]
    return "export", totals, [_table("Files", ["file", *columns], rows)]


def _shards_table(directory: str, columns: list[str]) -> dict[str, Any]:
    table = io.read_parquet(io.join(directory, "shards.parquet"), columns)
    rows = [[row[column] for column in columns] for row in table.to_pylist()]
    return _table("Shards", [column.replace("_", " ") for column in columns], rows)


def _table(title: str, columns: list[str], rows: list[list[Any]]) -> dict[str, Any]:
    """A table of at most _ROWS_SHOWN rows; the title says if there are more."""
    if len(rows) > _ROWS_SHOWN:
        title = f"{title} (first {_ROWS_SHOWN} of {len(rows):,})"
    return {"title": title, "columns": columns, "rows": rows[:_ROWS_SHOWN]}


_KINDS = [
    ("run.json", "cptsel.run", "run", _run),
    ("manifest.json", "cptsel.replay", "manifest", _manifest),
    ("export.json", "cptsel.export", "export", _export),
]
