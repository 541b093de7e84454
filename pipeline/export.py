"""``cptsel export``: write the replay corpus itself, in the input format of trainers.

Repeats are expanded, and files are in order by name: one a visit of a shard, or so many ranks of a curriculum, which
shards write in pieces and a second step merges. The text of every sample is read from the corpus, once a shard, and
held against its content hash. What the files alone can't do (weigh losses, draw) is said in ``export.json``, under
``instructions``, and to the user. What a file looks like is the format's (``exports/``).
"""

import time
from collections.abc import Callable
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.damage import manifest_warnings
from cptsel.pipeline.artifacts.exclusion import read_exclusions
from cptsel.pipeline.artifacts.manifest import Manifest, load_manifest
from cptsel.pipeline.artifacts.visits import read_visits
from cptsel.pipeline.artifacts.writing import check_apart, commit, writing
from cptsel.pipeline.config import check_values, to_yaml
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.errors import VerificationError
from cptsel.pipeline.exports.base import ExportFormat
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.exports.merge import merge_pieces
from cptsel.pipeline.exports.plan import ExportTask, check_corpus, plan_export
from cptsel.pipeline.exports.registry import EXPORTS, data_pattern
from cptsel.pipeline.exports.shard import STEP, WriteShard
from cptsel.pipeline.hashing import fingerprint
from cptsel.pipeline.summary import Summary, first_rows
from cptsel.schemas.arrow import SPEC_VERSION
from cptsel.schemas.headers import Excluded, ExportHeader
from cptsel.schemas.validation import validate

FORMAT = "cptsel.export"
EXPORT = "export.json"

_ROWS_SHOWN = 20


def export(config: ExportConfig, progress: Progress | None = None, make_steps: Callable[..., Steps] = Steps) -> Summary:
    """Write the samples of a manifest, as often and in the order as they are played.

    Returns:
        The summary: files, lines, tokens and bytes.

    Raises:
        UsageError: an unknown format, an input that is not a finished manifest, or an output that exists.
        BadInputError: a shard or a row of the corpus is not there or can't be read.
        VerificationError: the corpus or the manifest is not what was embedded and selected.
    """
    started = time.monotonic()
    check_values(config)
    format = EXPORTS[config.to]
    manifest = load_manifest(config.replay)
    exclude = read_exclusions(config.exclude) if config.exclude else frozenset()
    out = io.absolute(config.out)
    check_apart(out, manifest.directory)
    with writing(out, "export", overwrite=config.overwrite, dry_run=config.dry_run, data=data_pattern()) as output:
        steps = make_steps(io.join(out, outputs.WORK), config.beam_args, config.workers, progress)
        # Reads every samples file: a damaged one, or a lost shard, must not cost an older export.
        tasks = plan_export(manifest, read_visits(manifest), config.root, format.suffix)
        check_corpus(tasks)
        if config.dry_run:
            totals = _expected(manifest)
            if not any(visit.spread for task in tasks for visit in task.visits):
                totals["files"] = sum(len(task.visits) for task in tasks)
            return _summary(config, manifest, out, totals, tasks)
        output.begin(to_yaml(config))
        write = WriteShard(format, out, steps.work, manifest.text_field, exclude, manifest.realisation == "loss")
        results = steps.run(STEP, write, tasks)
        files = merge_pieces(format, out, [file for result in results for file in result["files"]], steps)
        header = _header(manifest, format, exclude if config.exclude else None, files, results)
        _check_totals(manifest, header)
        _finish(out, header, config, {"seconds": time.monotonic() - started})
    return _summary(config, manifest, out, header["totals"], tasks, header["excluded"] if config.exclude else None)


def _expected(manifest: Manifest) -> dict[str, int]:
    """Lines and tokens of all epochs, as the manifest has them."""
    epochs, totals = manifest.header["order"].get("epochs", 1), manifest.header["totals"]
    return {"lines": totals["plays"] * epochs, "tokens": totals["replay_tokens"] * epochs}


def _warnings(manifest: Manifest, format: ExportFormat) -> list[str]:
    """What a trainer must do with the files that it would not do with any others."""
    found = manifest_warnings(manifest.header)
    if manifest.realisation == "repeat":
        return found
    return [*found, f"weights are realised by {manifest.realisation!r}: {format.instructions(manifest)}"]


def _header(
    manifest: Manifest,
    format: ExportFormat,
    exclude: frozenset[str] | None,
    files: list[dict[str, Any]],
    results: list[dict[str, Any]],
) -> ExportHeader:
    """``export.json``."""
    by_name = {file["name"]: file for file in files}
    entries = {name: {key: value for key, value in by_name[name].items() if key != "name"} for name in sorted(by_name)}
    excluded = {key: sum(result["excluded"][key] for result in results) for key in ("samples", "lines", "tokens")}
    header: dict[str, Any] = {
        "format": FORMAT,
        "spec_version": SPEC_VERSION,
        "parent": manifest.manifest_id,
        "to": format.name,
        "realisation": manifest.realisation,
        "fidelity": format.fidelity(manifest),
        "instructions": format.instructions(manifest),
        "files": entries,
        "totals": {
            "files": len(entries),
            **{key: sum(entry[key] for entry in entries.values()) for key in ("bytes", "lines", "tokens")},
        },
        "excluded": {"entries_sha256": None if exclude is None else fingerprint(sorted(exclude)), **excluded},
    }
    return validate(header, "export")


def _check_totals(manifest: Manifest, header: ExportHeader) -> None:
    """What was written and what was excluded are together what the manifest plays."""
    excluded = {"lines": header["excluded"]["lines"], "tokens": header["excluded"]["tokens"]}
    for key, expected in _expected(manifest).items():
        found = header["totals"][key] + excluded[key]
        if found != expected:
            raise VerificationError(
                f"{manifest.directory}: plays {expected:,} {key}, but its samples and schedules give {found:,}; "
                "run cptsel verify"
            )


def _finish(out: str, header: ExportHeader, config: ExportConfig, stats: dict[str, Any]) -> None:
    io.write_json(io.join(out, EXPORT), header)
    sums = {name: entry["sha256"] for name, entry in header["files"].items()}
    sums[EXPORT] = outputs.hash_file(io.join(out, EXPORT))[0]
    io.write_bytes(io.join(out, outputs.SUMS), outputs.sums_text(sums).encode())
    outputs.write_config(out, "export", to_yaml(config))
    validate(stats, "stats")
    io.write_json(io.join(out, outputs.STATS), stats)
    commit(out)


def _summary(
    config: ExportConfig,
    manifest: Manifest,
    out: str,
    totals: dict[str, Any],
    tasks: list[ExportTask],
    excluded: Excluded | None = None,
) -> Summary:
    left_out = {f"excluded {key}": value for key, value in (excluded or {}).items() if key != "entries_sha256"}
    rows = [[task.shard["path"], task.shard["bytes"], len(task.visits)] for task in tasks]
    return Summary(
        command="export",
        out=out,
        status="dry-run" if config.dry_run else "done",
        totals={
            "format": EXPORTS[config.to].suffix[1:],
            "fidelity": EXPORTS[config.to].fidelity(manifest),
            **totals,
            **left_out,
        },
        tables=[first_rows("Shards that are read", ["shard", "bytes", "files"], rows, _ROWS_SHOWN)],
        warnings=_warnings(manifest, EXPORTS[config.to]),
    )
