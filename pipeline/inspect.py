"""``cptsel inspect``: say what a directory is, if cptsel wrote it."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.damage import manifest_warnings, run_warnings
from cptsel.pipeline.artifacts.manifest import MANIFEST, SHARDS, manifest_id
from cptsel.pipeline.artifacts.outputs import Listing
from cptsel.pipeline.artifacts.problems import RESTORE, Problems
from cptsel.pipeline.artifacts.ranges import Ledger
from cptsel.pipeline.artifacts.rejects import first_rejects
from cptsel.pipeline.artifacts.run import pool_totals
from cptsel.pipeline.artifacts.seal import broken_small_files
from cptsel.pipeline.artifacts.shard_range import listed
from cptsel.pipeline.corpus.types import BENIGN
from cptsel.pipeline.errors import CptselError, UsageError, VerificationError
from cptsel.pipeline.summary import Summary, Table, counted, first_rows
from cptsel.pipeline.verification.counts import check_counts
from cptsel.schemas.arrow import COUNT_COLUMNS
from cptsel.schemas.headers import (
    ExportHeader,
    FisherHeader,
    LookaheadHeader,
    ManifestHeader,
    Order,
    RunHeader,
    TargetsHeader,
)
from cptsel.schemas.validation import validate

Described = tuple[str, dict[str, Any], list[Table]]
"""kind of directory, totals, tables"""

_ROWS_SHOWN = 20
_MAKERS = "embed, lookahead, select, order, export, distill or fisher"


def inspect(directory: str) -> Summary:
    """What is in a directory: an embedding run, a replay manifest, an ordered one, or what was made of one.

    Finished or not, only what is recorded is read, and of a finished run or manifest the names of its files, and their
    sizes where there are no more than 100,000; ``verify`` is what checks the whole.

    Returns:
        The summary; ``status`` is the kind of directory and whether it is finished.

    Raises:
        UsageError: there is no such directory, or cptsel did not write it.
        VerificationError: it is damaged; the error's ``summary`` has what could be read.
    """
    if not directory:
        raise UsageError("DIR is empty; give it a value")
    directory = io.absolute(directory)
    names = outputs.Listing(directory)
    if not names and io.exists(directory) and not os.path.isdir(directory):
        raise UsageError(f"{directory} is a file, not a directory; name the output of {_MAKERS}")
    if not names:
        raise UsageError(f"{directory}: there is no such directory, or it is empty")
    maker = outputs.made_by(directory)
    for file, form, schema, describe in _KINDS:
        if file in names:
            try:
                header = io.read_json(io.join(directory, file))
            except UsageError as error:
                if maker is None:
                    raise
                raise VerificationError(f"{directory} is damaged: {error}") from error
            if isinstance(header, dict) and header.get("format") == form:
                return _inspect(directory, names, file, schema, header, describe)
    if maker is None:
        raise UsageError(
            f"{directory} was not written by cptsel ({counted(len(names), 'file')}, the first {min(names.paths())}); "
            f"name the output of {_MAKERS}"
        )
    if outputs.SUCCESS in names:
        raise VerificationError(
            f"{directory} is damaged: cptsel {maker} has finished it, and none of "
            f"{', '.join(file for file, *_ in _KINDS)} says what it is; {RESTORE}"
        )
    return Summary(
        command="inspect",
        out=directory,
        status=f"begun by cptsel {maker}, nothing finished",
        totals={"files": len(names), **_ranges(directory)},
        tables=[],
        warnings=[f"{directory} is unfinished; run cptsel {maker} again{_again(directory)}"],
    )


def _inspect(
    directory: str,
    names: Listing,
    file: str,
    schema: str,
    header: Any,
    describe: Callable[[str, Listing, Any], Described],
) -> Summary:
    """The summary of a directory whose header is ``file``."""
    warnings: list[str] = []
    problems = Problems()
    described: Described = (schema, {}, [])
    maker = outputs.made_by(directory)
    # A checkpoint that embed keeps in its run has no mark of its own: its header comes last.
    finished = outputs.SUCCESS in names or (schema == "lookahead" and maker is None)
    try:
        validate(header, schema)
        if finished and file == MANIFEST:
            _check_manifest(names, header, problems)
        elif finished and file == "run.json":
            _check_run(names, header, problems)
        described = describe(directory, names, header)
        if file == "run.json":
            warnings += run_warnings(header)
        elif file == MANIFEST:
            warnings += manifest_warnings(header)
    except (ValueError, CptselError) as error:
        if not problems.total:  # otherwise it follows from what is listed already
            problems.add(file, None, str(error).removeprefix(f"{file}: "))
    kind, totals, tables = described
    if finished and file in (MANIFEST, "run.json"):
        seen = "names and sizes" if names.may_ask_sizes else "names"
        totals |= {"files": f"{len(names):,}, looked at by {seen}"}
    if not finished:
        again = "the same command" if maker is None else f"cptsel {maker}"
        warnings.append(f"{directory} is unfinished (no {outputs.SUCCESS}); run {again} again{_again(directory)}")
        totals |= _ranges(directory)
    state = "damaged" if problems.total else "finished" if finished else "unfinished"
    summary = Summary(
        command="inspect",
        out=directory,
        status=f"{kind}, {state}",
        totals=totals,
        tables=[*tables, *problems.tables()],
        warnings=warnings,
    )
    if problems.total:
        raise problems.error(f"{directory} is damaged", summary)
    return summary


def _ranges(directory: str) -> dict[str, Any]:
    """How far a run is that commands embed in ranges; nothing of any other directory."""
    ledger = Ledger(directory)
    count = ledger.count()
    if count is None:
        return {}
    left = ledger.missing(count)
    done = sorted(set(range(count)) - set(left))
    numbers = {"ranges done": done, "ranges not done": left}
    return {"ranges": count} | {name: listed(which) for name, which in numbers.items() if which}


def _again(directory: str) -> str:
    """Which commands such a run is waiting for, as the end of a sentence."""
    ledger = Ledger(directory)
    count = ledger.count()
    if count is None:
        return ""
    left = ledger.missing(count)
    if not left:
        return f" with --shard-range 0/{count} or any other of its ranges: all are done, one is to finish it"
    return f" with --shard-range I/{count} for I = {listed(left)}, where no command is at it"


def _check_manifest(names: Listing, header: ManifestHeader, problems: Problems) -> None:
    """Whether ``manifest.json`` is as it was written, and its files are there in their sizes."""
    if manifest_id(header) != header["manifest_id"]:
        problems.add(MANIFEST, None, "was changed after it was written: manifest_id does not match")
    for name in sorted(header["files"].keys() - set(names.paths())):
        problems.add(name, None, "is missing")
    if names.may_ask_sizes:
        sizes = names.sizes()
        for name, entry in sorted(header["files"].items()):
            if name in sizes and sizes[name] != entry["bytes"]:
                what = f"has {counted(sizes[name], 'byte')}, but {entry['bytes']:,} were written"
                problems.add_damaged(names.directory, name, what)


def _check_run(names: Listing, header: RunHeader, problems: Problems) -> None:
    """Whether ``run.json`` and the small files are as they were written, and all others are there in their sizes."""
    for broken in broken_small_files(names.directory, header):
        file, _, what = broken.partition(" ")
        problems.add(file, None, what)
    if not problems.total:
        if names.may_ask_sizes:
            names.sizes()
        check_counts(names.directory, header, problems, names)


def _run(directory: str, names: Listing, header: RunHeader) -> Described:
    model, projection = header["model"], header["projection"]
    totals = {
        **({"run_id": header["run_id"]} if "run_id" in header else {}),
        "model": f"{model['source']} ({model['class']}, {model['dtype']})",
        "weights": header["fingerprints"]["weights"][:16],
        "corpus": f"{header['corpus']['root']}, {counted(header['corpus']['shards'], 'shard')}",
        "corpus bytes": header["corpus"]["bytes"],
        "sketch": f"{projection['k']} numbers, seed {projection['seed']}; validation {projection['validation']['k']}",
        "norms": header["norm_kind"],
        **pool_totals(header),
        "blocks written": sum(name.endswith(".parquet") for name in names.folders.get("embeddings", ())),
    }
    tables = []
    if "units.parquet" in names:
        units = io.read_parquet(io.join(directory, "units.parquet"), ["shard_id", "block", *COUNT_COLUMNS])
        for column in COUNT_COLUMNS:
            if column in units.schema.names:
                name = "tokens predicted" if column == "n_tokens" else column.replace("_", " ")
                totals[name] = pc.sum(units[column]).as_py() or 0
        tables += _rejects(directory, header, units)
    if "shards.parquet" in names:
        columns = ["path", "format", "compression", "bytes"]
        if "units.parquet" in names:  # they are 0 until then
            columns += ["rows", "tokens", "bytes_lost"]
        tables.append(_shards_table(directory, columns))
        if "bytes lost" in totals:  # with those of files without a row that could be used, which no block knows
            lost = io.read_parquet(io.join(directory, "shards.parquet"), ["bytes_lost"])
            totals["bytes lost"] = pc.sum(lost["bytes_lost"]).as_py() or 0
    return "embedding run", totals, tables


def _rejects(directory: str, header: RunHeader, units: pa.Table) -> list[Table]:
    """How much was rejected, by reason where the run is finished, and the first rejects but for blank lines."""
    reasons = dict(header.get("totals", {}).get("rejects", {}))
    tables = [Table("Rejected", ["reason", "rejects"], list(map(list, reasons.items())))] if reasons else []
    count = pc.sum(pc.add(units["rows_rejected"], units["windows_rejected"])).as_py() or 0
    damage = count - sum(reasons.get(reason, 0) for reason in BENIGN)
    found = first_rejects(directory, units, _ROWS_SHOWN)
    if not found.num_rows:
        return tables
    shards = io.read_parquet(io.join(directory, "shards.parquet"), ["shard_id", "path"])
    paths = dict(zip(shards["shard_id"].to_pylist(), shards["path"].to_pylist(), strict=True))
    rows = [[paths.get(shard_id), *row] for shard_id, *row in (row.values() for row in found.to_pylist())]
    named = Table("Rejects", ["file", "row", "window", "reason", "detail"], rows)
    if damage > len(rows):
        title = f"Rejects (first {len(rows)} of {damage:,}; all are in {io.join(directory, 'rejects')})"
        named = replace(named, title=title)
    return [*tables, named]


def _manifest(directory: str, names: Listing, header: ManifestHeader) -> Described:
    order, totals = header["order"], header["totals"]
    ordered = order["kind"] == "priority"
    shown = {
        "manifest_id": header["manifest_id"],
        "parent": header["parent"],
        **_chosen(header),
        "weights realised by": header["weighting"]["realisation"],
        "order": _order(order) if ordered else _unscheduled(header),
        "corpus": header["corpus"]["root"],
        **{key.replace("_", " "): value for key, value in totals.items()},
    }
    columns = ["group", "population_mass", "target_mass", "selected_samples", "selected_tokens", "replay_tokens"]
    if len(header["phases"]) > 1:
        columns = ["phase", *columns]
    rows = [[{"phase": 0, **group}[column] for column in columns] for group in header["groups"]]
    groups = _table("Groups", [column.replace("_", " ") for column in columns], rows)
    tables = [groups]
    if outputs.SUCCESS in names and SHARDS in names:
        tables.append(_shards_table(directory, ["path", "population_samples", "selected_samples", "replay_tokens"]))
    return "ordered replay manifest" if ordered else "replay manifest", shown, tables


def _chosen(header: ManifestHeader) -> dict[str, Any]:
    """How the samples were chosen, as far as the manifest says."""
    selection, provenance = header["selection"], header["provenance"]
    budget, options, history = selection.get("budget"), selection["options"], provenance.get("history")
    alpha = ["group_alpha"] if options.get("group_by") and not options.get("group_mass") else []
    names = ["group_by", *alpha, "mass", "seed", *(["history_mode"] if history else [])]
    return {
        "method": selection["method"],
        **({"budget": f"{budget['requested']} ({budget['amount']:,} {budget['unit']})"} if budget else {}),
        **({"scope": selection["scope"]} if "scope" in selection else {}),
        **{name.replace("_", " "): options[name] for name in names if name in options},
        **({"history": ", ".join(name[:16] for name in history)} if history else {}),
        "phases": len(header["phases"]),
        "runs": len(provenance["runs"]),
    }


def _unscheduled(header: ManifestHeader) -> str:
    kinds = list(dict.fromkeys(phase["order"] for phase in header["phases"]))
    return "as in the corpus" if kinds == ["corpus"] else f"no schedule; phases go by {', '.join(kinds)}"


def _order(order: Order) -> str:
    epochs, ranks = counted(order["epochs"], "epoch"), counted(order["world_size"], "rank")
    return f"by importance: {epochs}, {ranks}, seed {order['seed']}"


def _export(directory: str, names: Listing, header: ExportHeader) -> Described:
    totals: dict[str, Any] = {"parent": header["parent"], "format": header["to"], "fidelity": header["fidelity"]}
    totals |= {"instructions": header["instructions"], **header["totals"]}
    totals |= {f"excluded {key}": value for key, value in header["excluded"].items() if key != "entries_sha256"}
    columns = ["lines", "tokens", "bytes"]
    rows = [[name, *(dict(entry)[column] for column in columns)] for name, entry in sorted(header["files"].items())]
    return "export", totals, [_table("Files", ["file", *columns], rows)]


def _targets(directory: str, names: Listing, header: TargetsHeader) -> Described:
    totals = {"parent": header["parent"], **_model_at(header), **header["targets"], **header.get("totals", {})}
    return "teacher targets", totals, []


def _fisher(directory: str, names: Listing, header: FisherHeader) -> Described:
    totals = {"parent": header["parent"], **_model_at(header), **header["fisher"], **header.get("totals", {})}
    return "Fisher information", totals, []


def _model_at(header: TargetsHeader | FisherHeader) -> dict[str, Any]:
    model = header["model"]
    return {
        "model": f"{model['source']} ({model['class']}, {model['dtype']})",
        "weights of the model": model["weights"][:16],
        "the manifest's model": "yes" if model["of_manifest"] else "no",
    }


def _shards_table(directory: str, columns: list[str]) -> Table:
    table = io.read_parquet(io.join(directory, "shards.parquet"), columns)
    columns = [column for column in columns if column in table.schema.names]  # those of another release may have fewer
    rows = [[row[column] for column in columns] for row in table.slice(0, _ROWS_SHOWN).to_pylist()]
    return first_rows("Shards", [column.replace("_", " ") for column in columns], rows, _ROWS_SHOWN, table.num_rows)


def _table(title: str, columns: list[str], rows: list[list[Any]]) -> Table:
    return first_rows(title, columns, rows, _ROWS_SHOWN)


def _lookahead(directory: str, names: Listing, header: LookaheadHeader) -> Described:
    return "lookahead checkpoint", dict(header), []


_KINDS: list[tuple[str, str, str, Callable[[str, Listing, Any], Described]]] = [
    ("run.json", "cptsel.run", "run", _run),
    ("manifest.json", "cptsel.replay", "manifest", _manifest),
    ("export.json", "cptsel.export", "export", _export),
    ("lookahead.json", "cptsel.lookahead", "lookahead", _lookahead),
    ("targets.json", "cptsel.targets", "targets", _targets),
    ("fisher.json", "cptsel.fisher", "fisher", _fisher),
]
