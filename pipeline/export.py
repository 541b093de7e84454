"""``cptsel export``: write the replay corpus itself, in the input format of trainers.

``jsonl``: zstd-compressed JSON lines, repeats expanded, files in order by name: one a visit of a shard, or so many
ranks of a curriculum, which shards write in pieces and a second step merges. The text of every sample is read from the
corpus, once a shard, and held against its content hash. What the files alone can't do (weigh losses, draw) is said in
``export.json``, under ``instructions``, and to the user.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.exclusion import read_exclusions
from cptsel.pipeline.artifacts.manifest import Manifest, load_manifest, replay_tokens, source_uri
from cptsel.pipeline.artifacts.visits import PhaseVisits, read_visits
from cptsel.pipeline.config import ExportConfig, to_yaml
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.exports.merge import merge_pieces
from cptsel.pipeline.exports.shard import STEP, ExportTask, Visit, WriteShard, check_shard
from cptsel.pipeline.hashing import fingerprint
from cptsel.schemas.arrow import SPEC_VERSION
from cptsel.schemas.validation import validate

FORMAT = "cptsel.export"
EXPORT = "export.json"
WORK = "_work"  # removed before _SUCCESS

INSTRUCTIONS = {
    "repeat": "play every line once, in the order of the files; the repeats are already there",
    "loss": "play every line once, in the order of the files, and multiply its token losses by its loss_weight",
    "sampling": "draw lines with replacement, with probability in proportion to weight, until {tokens} are played",
    "none": "play every line once, in the order of the files; weights are ignored",
}

_ROWS_SHOWN = 20


def export(config: ExportConfig, progress: Progress | None = None) -> dict[str, Any]:
    """Write the samples of a manifest, as often and in the order as they are played.

    Returns:
        The summary: files, lines, tokens and bytes.

    Raises:
        UsageError: an unknown format, an input that is not a finished manifest, or an output that exists.
        BadInputError: a shard or a row of the corpus is not there or can't be read.
        VerificationError: the corpus or the manifest is not what was embedded and selected.
    """
    started = time.monotonic()
    if config.to != "jsonl":
        raise UsageError(f"--to {config.to}: not a format of this release; known: jsonl")
    manifest = load_manifest(config.replay)
    exclude = read_exclusions(config.exclude) if config.exclude else frozenset()
    out = io.absolute(config.out)
    outputs.check_apart(out, manifest.directory)
    outputs.check_output(out, "export", config.overwrite)
    steps = Steps(io.join(out, WORK), config.beam_args, config.workers, progress)
    # Reads every samples file: a damaged one, or a lost shard, must not cost an older export.
    tasks = plan_export(manifest, read_visits(manifest), config.root)
    _check_corpus(tasks)
    if config.dry_run:
        totals = _expected(manifest)
        if not any(visit.spread for task in tasks for visit in task.visits):
            totals["files"] = sum(len(task.visits) for task in tasks)
        return _summary(config, manifest, out, totals, tasks)
    outputs.prepare_output(out, "export", to_yaml(config), config.overwrite)
    write = WriteShard(out, steps.work, manifest.text_field, exclude, manifest.realisation == "loss")
    results = steps.run(STEP, write, tasks)
    files = merge_pieces(out, [file for result in results for file in result["files"]], steps)
    header = _header(manifest, exclude if config.exclude else None, files, results)
    _check_totals(manifest, header)
    io.delete_tree(steps.work)  # which is not there where nothing is played
    _finish(out, header, config, {"seconds": time.monotonic() - started})
    return _summary(config, manifest, out, header["totals"], tasks, header["excluded"] if config.exclude else None)


def plan_export(manifest: Manifest, played: dict[int, PhaseVisits], root: str | None) -> list[ExportTask]:
    """One task for each shard that is visited, with the files its visits become."""
    visits: dict[int, list[Visit]] = {}
    for shard_id, visit in _scheduled(manifest) if manifest.schedule_files() else _unscheduled(manifest, played):
        visits.setdefault(shard_id, []).append(visit)
    files = manifest.sample_files()
    return [
        ExportTask(
            shard=shard,
            uri=source_uri(shard, root),
            samples=manifest.path(files[shard["shard_id"]]),
            sha256=manifest.header["files"][files[shard["shard_id"]]]["sha256"],
            visits=tuple(visits[shard["shard_id"]]),
        )
        for shard in manifest.shards().to_pylist()
        if shard["shard_id"] in visits
    ]


def _scheduled(manifest: Manifest) -> Iterator[tuple[int, Visit]]:
    """Visits of all epochs and ranks; a file's place among its rank's is in its name."""
    for (phase, epoch), name in manifest.schedule_files().items():
        for row in manifest.table(name).to_pylist():
            place = f"{_folder(manifest, phase)}/epoch-{epoch:03d}/rank-{row['rank']:05d}/{row['position']:09d}"
            yield row["shard_id"], _visit(place, phase, row["shard_id"], row["pass"])


def _unscheduled(manifest: Manifest, played: dict[int, PhaseVisits]) -> Iterator[tuple[int, Visit]]:
    """Visits of the one epoch of a manifest without schedules: pass by pass, samples by order_rank."""
    for phase, visits in played.items():
        folder = _folder(manifest, phase)
        spread = phase in manifest.curricula() and len(visits.ids) > 1 and manifest.realisation != "sampling"
        pairs = sorted(zip(visits.passes.tolist(), visits.ids[visits.shard].tolist(), strict=True))
        for place, (number, shard_id) in enumerate(pairs):
            if spread:
                yield shard_id, Visit(f"{folder}/pass-{number:05d}", phase, number, spread=True)
            else:
                yield shard_id, _visit(f"{folder}/{place:09d}", phase, shard_id, number)


def _folder(manifest: Manifest, phase: int) -> str:
    return f"data/phase-{phase:03d}" if len(manifest.phases) > 1 else "data"


def _visit(place: str, phase: int, shard_id: int, number: int) -> Visit:
    return Visit(f"{place}-shard{shard_id:06d}-pass{number}.jsonl.zst", phase, number)


def _check_corpus(tasks: list[ExportTask]) -> None:
    """Every shard that will be read is there.

    Raises:
        BadInputError: one is not.
    """
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lambda task: check_shard(task.uri), tasks))


def _expected(manifest: Manifest) -> dict[str, int]:
    """Lines and tokens of all epochs, as the manifest has them."""
    epochs, totals = manifest.header["order"].get("epochs", 1), manifest.header["totals"]
    return {"lines": totals["plays"] * epochs, "tokens": totals["replay_tokens"] * epochs}


def _fidelity(manifest: Manifest) -> str:
    """How near training on the files alone comes to the manifest."""
    return "expectation-only" if manifest.realisation == "sampling" else "exact"


def _warnings(manifest: Manifest) -> list[str]:
    """What a trainer must do with the files that it would not do with any others."""
    if manifest.realisation == "repeat":
        return []
    return [f"weights are realised by {manifest.realisation!r}: {_instructions(manifest)}"]


def _instructions(manifest: Manifest) -> str:
    """What the trainer does with the lines; of draws, how many tokens each phase wants."""
    if manifest.realisation != "sampling":
        return INSTRUCTIONS[manifest.realisation]
    phases = {entry["phase"]: replay_tokens(manifest.header, entry) for entry in manifest.header["phases"]}
    asked = [(number, phases[number]) for number in manifest.phases]
    tokens = [f"{replay['requested']:,} tokens (phase {number})" for number, replay in asked if replay is not None]
    return INSTRUCTIONS["sampling"].format(tokens=" and ".join(tokens))


def _header(
    manifest: Manifest, exclude: frozenset[str] | None, files: list[dict[str, Any]], results: list[dict[str, Any]]
) -> dict[str, Any]:
    """``export.json``."""
    by_name = {file["name"]: file for file in files}
    entries = {name: {key: value for key, value in by_name[name].items() if key != "name"} for name in sorted(by_name)}
    excluded = {key: sum(result["excluded"][key] for result in results) for key in ("samples", "lines", "tokens")}
    header = {
        "format": FORMAT,
        "spec_version": SPEC_VERSION,
        "parent": manifest.manifest_id,
        "to": "jsonl",
        "realisation": manifest.realisation,
        "fidelity": _fidelity(manifest),
        "instructions": _instructions(manifest),
        "files": entries,
        "totals": {
            "files": len(entries),
            **{key: sum(entry[key] for entry in entries.values()) for key in ("bytes", "lines", "tokens")},
        },
        "excluded": {"entries_sha256": None if exclude is None else fingerprint(sorted(exclude)), **excluded},
    }
    validate(header, "export")
    return header


def _check_totals(manifest: Manifest, header: dict[str, Any]) -> None:
    """What was written and what was excluded are together what the manifest plays."""
    for key, expected in _expected(manifest).items():
        found = header["totals"][key] + header["excluded"][key]
        if found != expected:
            raise VerificationError(
                f"{manifest.directory}: plays {expected:,} {key}, but its samples and schedules give {found:,}; "
                "run cptsel verify"
            )


def _finish(out: str, header: dict[str, Any], config: ExportConfig, stats: dict[str, Any]) -> None:
    io.write_json(io.join(out, EXPORT), header)
    sums = {name: entry["sha256"] for name, entry in header["files"].items()}
    sums[EXPORT] = outputs.hash_file(io.join(out, EXPORT))[0]
    io.write_bytes(io.join(out, outputs.SUMS), outputs.sums_text(sums).encode())
    outputs.write_config(out, "export", to_yaml(config))
    validate(stats, "stats")
    io.write_json(io.join(out, outputs.STATS), stats)
    io.write_bytes(io.join(out, outputs.SUCCESS), b"")


def _summary(
    config: ExportConfig,
    manifest: Manifest,
    out: str,
    totals: dict[str, Any],
    tasks: list[ExportTask],
    excluded: dict[str, Any] | None = None,
) -> dict[str, Any]:
    left_out = {f"excluded {key}": excluded[key] for key in ("samples", "lines", "tokens")} if excluded else {}
    rows = [[task.shard["path"], task.shard["bytes"], len(task.visits)] for task in tasks[:_ROWS_SHOWN]]
    title = "Shards that are read" + (f" (first {len(rows)} of {len(tasks)})" if len(tasks) > len(rows) else "")
    return {
        "command": "export",
        "out": out,
        "status": "dry-run" if config.dry_run else "done",
        "totals": {"format": "jsonl.zst", "fidelity": _fidelity(manifest), **totals, **left_out},
        "tables": [{"title": title, "columns": ["shard", "bytes", "files"], "rows": rows}],
        "warnings": _warnings(manifest),
    }
