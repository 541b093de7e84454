"""``cptsel export``: write the replay corpus itself, in the input format of trainers.

Repeats are expanded, and files are in order by name. A file is a visit of a shard, or holds plays of many shards, which
write pieces that a second step merges. The text of every sample is read from the corpus, once a shard, and held against
its content hash. What the files alone can't do (weigh losses, draw) is said in ``export.json``, under ``instructions``,
in ``TRAINING.md`` and to the user. What a file looks like is the format's (``exports/``).
"""

import time
from collections.abc import Callable
from typing import Any, cast

from cptsel import __version__
from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.damage import manifest_warnings
from cptsel.pipeline.artifacts.exclusion import read_exclusions
from cptsel.pipeline.artifacts.manifest import Manifest, load_manifest
from cptsel.pipeline.artifacts.texts import check_shards
from cptsel.pipeline.artifacts.token_ids import TokenIds, token_ids
from cptsel.pipeline.artifacts.visits import read_visits
from cptsel.pipeline.artifacts.writing import check_apart, commit, writing
from cptsel.pipeline.config import check_read, check_values, to_yaml
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.pipeline.exports import page
from cptsel.pipeline.exports.about import about
from cptsel.pipeline.exports.base import ExportFormat
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.exports.datasets import EXPORT, FORMAT, datasets, recipe_folders
from cptsel.pipeline.exports.merge import merge_pieces
from cptsel.pipeline.exports.mixing import folder_mixes, phase_mixes, write_blends
from cptsel.pipeline.exports.plan import ExportTask, epochs_of, plan_export
from cptsel.pipeline.exports.registry import EXPORTS, data_pattern
from cptsel.pipeline.exports.shard import STEP, WriteShard, described
from cptsel.pipeline.exports.trainers import Mix
from cptsel.pipeline.hashing import fingerprint
from cptsel.pipeline.results import ExportResult
from cptsel.pipeline.summary import first_rows
from cptsel.schemas.arrow import SPEC_VERSION
from cptsel.schemas.headers import Excluded, ExportDataset, ExportHeader
from cptsel.schemas.validation import validate

_ROWS_SHOWN = 20


def export(
    config: ExportConfig, progress: Progress | None = None, make_steps: Callable[..., Steps] = Steps
) -> ExportResult:
    """Write the samples of a manifest, as often and in the order as they are played.

    Returns:
        The summary: files, lines, tokens and bytes.

    Raises:
        UsageError: an unknown format or one that can't hold what is asked for, an input that is not a finished
            manifest, or an output that exists.
        BadInputError: a shard or a row of the corpus is not there or can't be read.
        VerificationError: the corpus or the manifest is not what was embedded and selected.
    """
    started = time.monotonic()
    check_values(config)
    check_read(config)
    format = EXPORTS[config.to]
    manifest = load_manifest(config.replay)
    _check_format(config, manifest)
    mixes = phase_mixes(config, manifest, format)
    exclude = read_exclusions(config.exclude) if config.exclude else frozenset()
    tokens = token_ids(manifest, config.tokenizer) if config.ids or not format.writes_text else None
    _check_eos(format, tokens)
    out = io.absolute(config.out)
    check_apart(out, manifest.directory)
    with writing(out, "export", overwrite=config.overwrite, dry_run=config.dry_run, data=data_pattern()) as output:
        steps = make_steps(io.join(out, outputs.WORK), config.beam_args, config.workers, progress)
        # Reads every samples file: a damaged one, or a lost shard, must not cost an older export.
        tasks = plan_export(manifest, read_visits(manifest), config.root, format)
        check_shards([task.uri for task in tasks])
        format.check_corpus(manifest, config.root)
        if config.dry_run:
            totals: dict[str, Any] = _expected(manifest, format)
            if not any(visit.by_rank for task in tasks for visit in task.visits):
                totals["files"] = len({visit.file for task in tasks for visit in task.visits})
            return _summary(config, manifest, out, totals, tasks)
        output.begin(to_yaml(config))
        weighs = manifest.realisation == "loss"
        write = WriteShard(format, out, steps.work, manifest.text_field, tokens, exclude, weighs)
        results = steps.run(STEP, write, tasks)
        vocabulary = None if tokens is None else tokens.vocabulary
        files = merge_pieces(format, vocabulary, out, [file for result in results for file in result["files"]], steps)
        files += _finish_datasets(format, out, files)
        mixed = None
        if mixes is not None:
            mixed = folder_mixes(mixes, recipe_folders(format, [file["name"] for file in files]))
            for path in write_blends(format, out, mixed):
                files += described(out, [path], 0, 0)
        told = about(format, manifest, tokens is not None, config.license)
        header = _header(manifest, format, exclude if config.exclude else None, files, results, mixed, told)
        _check_totals(manifest, format, header)
        _finish(out, format, header, config, {"seconds": time.monotonic() - started})
    return _summary(config, manifest, out, header["totals"], tasks, header["excluded"] if config.exclude else None)


def _check_format(config: ExportConfig, manifest: Manifest) -> None:
    """Raise UsageError where the format can't hold what is asked for."""
    format = EXPORTS[config.to]
    if config.ids and not format.writes_ids:
        able = ", ".join(name for name, other in EXPORTS.items() if other.writes_ids)
        raise UsageError(f"--to {format.name} holds no token ids; leave out --ids, or use one of {able}")
    if manifest.of_ids and not config.ids and format.writes_text:
        alone = ", ".join(name for name, other in EXPORTS.items() if not other.writes_text)
        both = ", ".join(name for name, other in EXPORTS.items() if other.writes_ids and other.writes_text)
        raise UsageError(
            f"--to {format.name} writes text, and the corpus of {manifest.directory} is of token ids; use {alone}, or "
            f"--ids with {both}"
        )
    if config.tokenizer and manifest.of_ids:
        raise UsageError(f"--tokenizer: the corpus of {manifest.directory} is of token ids; leave it out")
    if config.tokenizer and format.writes_text and not config.ids:
        raise UsageError(f"--to {format.name} writes text; leave out --tokenizer, or add --ids")
    if config.license is not None and (format.media is None or not config.license.strip()):
        what = "is empty" if format.media is not None else f"has no place in --to {format.name}, which holds no records"
        raise UsageError(f"--license {what}; leave it out, or name one such as apache-2.0")
    if manifest.realisation in {"loss", "sampling"}.difference(format.weighs):
        able = "no weight a sample" if not format.weighs else "a loss weight a sample, and do not draw by weights"
        raise UsageError(
            f"--to {format.name}: its trainers take {able}, and {manifest.directory} realises weights by "
            f"{manifest.realisation!r}; select with --realisation repeat or none, or export another format"
        )


def _check_eos(format: ExportFormat, tokens: TokenIds | None) -> None:
    """Raise UsageError where documents could not be told apart."""
    if not (format.writes_text or format.refers) and tokens is not None and tokens.vocabulary.eos is None:
        where = f"the tokenizer {tokens.tokenizer}" if tokens.tokenizer else "the run (--eod-token-id of embed)"
        raise UsageError(f"--to {format.name} ends every play with EOS, and {where} has none; use --to parquet --ids")


def _finish_datasets(format: ExportFormat, out: str, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the format writes for each dataset as a whole."""
    by_name: dict[str, Any] = {file["name"]: file for file in files}
    written: list[dict[str, Any]] = []
    for folder, plays in datasets(format, by_name).items():
        for name, value in format.index(io.join(out, folder), plays).items():
            path = io.join(out, folder, name)
            io.write_json(path, value)
            written += described(out, [path], 0, 0)
    return written


def _expected(manifest: Manifest, format: ExportFormat) -> dict[str, int]:
    """Lines and tokens of all epochs that are written, as the manifest has them."""
    epochs, totals = epochs_of(manifest, format), manifest.header["totals"]
    return {"lines": totals["plays"] * epochs, "tokens": totals["replay_tokens"] * epochs}


def _warnings(manifest: Manifest, format: ExportFormat) -> list[str]:
    """What a trainer must do with the files that it would not do with any others."""
    found = manifest_warnings(manifest.header)
    if manifest.realisation in ("repeat", "none"):
        return found
    return [*found, f"weights are realised by {manifest.realisation!r}: {format.instructions(manifest)}"]


def _header(
    manifest: Manifest,
    format: ExportFormat,
    exclude: frozenset[str] | None,
    files: list[dict[str, Any]],
    results: list[dict[str, Any]],
    mixed: dict[str, Mix] | None,
    told: ExportDataset | None,
) -> ExportHeader:
    """``export.json``."""
    by_name = {file["name"]: file for file in files}
    entries = {name: {key: value for key, value in by_name[name].items() if key != "name"} for name in sorted(by_name)}
    excluded = {key: sum(result["excluded"][key] for result in results) for key in ("samples", "lines", "tokens")}
    header: dict[str, Any] = {
        "format": FORMAT,
        "spec_version": SPEC_VERSION,
        "tool": {"name": "cptsel", "version": __version__},
        "parent": manifest.manifest_id,
        "to": format.name,
        "realisation": manifest.realisation,
        "fidelity": format.fidelity(manifest),
        "instructions": format.instructions(manifest),
        "loses": format.loses(manifest),
        "files": entries,
        "totals": {
            "files": len(entries),
            **{key: sum(entry[key] for entry in entries.values()) for key in ("bytes", "lines", "tokens")},
        },
        "excluded": {"entries_sha256": None if exclude is None else fingerprint(sorted(exclude)), **excluded},
    }
    if mixed is not None:
        header["mix"] = {folder: {"new_corpus": mix.new, "fraction": mix.fraction} for folder, mix in mixed.items()}
    if format.code:
        header["code"] = list(format.code)
    if told is not None:
        header["dataset"] = told
    return validate(header, "export")


def _check_totals(manifest: Manifest, format: ExportFormat, header: ExportHeader) -> None:
    """What was written and what was excluded are together what the manifest plays."""
    excluded = {"lines": header["excluded"]["lines"], "tokens": header["excluded"]["tokens"]}
    for key, expected in _expected(manifest, format).items():
        found = header["totals"][key] + excluded[key]
        if found != expected:
            raise VerificationError(
                f"{manifest.directory}: plays {expected:,} {key}, but its samples and schedules give {found:,}; "
                "run cptsel verify"
            )


def _finish(out: str, format: ExportFormat, header: ExportHeader, config: ExportConfig, stats: dict[str, Any]) -> None:
    io.write_json(io.join(out, EXPORT), header)
    pages = page.pages(format, header)
    for name, data in pages.items():
        io.write_bytes(io.join(out, name), data)
    sums = {name: entry["sha256"] for name, entry in header["files"].items()}
    sums |= {name: outputs.hash_file(io.join(out, name))[0] for name in (EXPORT, *pages)}
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
) -> ExportResult:
    left_out = {f"excluded_{key}": value for key, value in (excluded or {}).items() if key != "entries_sha256"}
    files: dict[str, list[Any]] = {}  # by file of the corpus, of which several pools may have a shard
    for task in tasks:
        row = files.setdefault(task.shard["path"], [task.shard["path"], task.shard["bytes"], 0])
        row[2] += len(task.visits)
    read = first_rows("Shards that are read", ["shard", "bytes", "files"], list(files.values()), _ROWS_SHOWN)
    return ExportResult(
        out=out,
        status="dry-run" if config.dry_run else "done",
        format=config.to,
        fidelity=EXPORTS[config.to].fidelity(manifest),
        instructions=EXPORTS[config.to].instructions(manifest),
        **totals,
        **cast(Any, left_out),
        tables=[read] if config.dry_run else [],
        warnings=_warnings(manifest, EXPORTS[config.to]),
    )
