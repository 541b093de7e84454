"""``cptsel distill``: teacher targets of the chosen samples at a frozen model.

A unit is a bounded part of a shard: its texts are read and held against their hashes, become the token ids that were
embedded, go through the model in batches, and become one file (docs/design.md, Teacher targets).
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, cast

import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.damage import manifest_warnings
from cptsel.pipeline.artifacts.manifest import Manifest, load_manifest
from cptsel.pipeline.artifacts.texts import check_shards
from cptsel.pipeline.artifacts.writing import check_apart, check_output, commit, writing
from cptsel.pipeline.chosen.config import DistillConfig
from cptsel.pipeline.chosen.model import ModelPlan, packages, plan_model, release, with_absolute_paths
from cptsel.pipeline.chosen.resume import begin, plan_id
from cptsel.pipeline.chosen.targets import STEP, WriteTargets, projection_of
from cptsel.pipeline.chosen.units import ChosenSamples, ReadWindows, plan_units
from cptsel.pipeline.config import check_read, check_values, to_yaml
from cptsel.pipeline.engine.beam import is_local
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.model.batching import TOKENS_PER_BATCH
from cptsel.pipeline.results import DistillResult
from cptsel.schemas.arrow import SPEC_VERSION, projection_schema
from cptsel.schemas.headers import TargetsHeader, TargetsKind
from cptsel.schemas.validation import validate

FORMAT = "cptsel.targets"
NAME: Final = "targets"
PROJECTION = "projection.parquet"


def distill(
    config: DistillConfig, progress: Progress | None = None, make_steps: Callable[..., Steps] = Steps
) -> DistillResult:
    """Write the targets of all chosen samples, those that no epoch plays too, each once.

    Returns:
        The summary: samples, tokens and bytes.

    Raises:
        UsageError: an option or a model that can't be used, an input that is not a finished manifest, or an output that
            is there and is another one.
        BadInputError: a shard or a row of the corpus is not there or can't be read, or the model gives no finite
            numbers.
        VerificationError: the corpus or the manifest is not what was embedded and selected.
    """
    started = time.monotonic()
    config = replace(config, **cast(Any, with_absolute_paths(config)))
    check_values(config)
    check_read(config)
    manifest = load_manifest(config.replay)
    _check_apart(config, manifest)
    check_output(config.out, "distill", overwrite=config.overwrite, resumes=True)  # before the weights are hashed
    steps = make_steps(io.join(config.out, outputs.WORK), config.beam_args, config.workers, progress)
    plan = plan_model(manifest, config, is_local(steps.options))
    header = _header(config, manifest, plan)
    chosen = ChosenSamples(manifest.realisation, None)
    units = plan_units(manifest, chosen, config.root, config.unit_tokens)
    check_shards({unit.uri for unit in units})
    totals = {"samples": sum(unit.count for unit in units), "tokens": sum(unit.tokens for unit in units)}
    with writing(config.out, "distill", overwrite=config.overwrite, dry_run=config.dry_run, resumes=True) as output:
        if config.dry_run:
            size = totals["tokens"] * _bytes_per_token(header["targets"])
            return _summary(
                config, "dry-run", manifest, header, {**totals, "files": len(units), "bytes_before_compression": size}
            )
        status = begin(output, to_yaml(config), NAME, header, config.overwrite)
        if status == "already done":
            header = validate(io.read_json(io.join(config.out, f"{NAME}.json")), NAME)
            return _summary(config, status, manifest, header, header["totals"])
        write = WriteTargets(
            spec=plan.spec,
            read=ReadWindows(chosen, manifest.text_field, plan.tokens, bool(header["model"]["prefix"])),
            prefix=tuple(header["model"]["prefix"]),
            targets=header["targets"],
            tokens_per_batch=header["options"]["tokens_per_batch"],
            row_tokens=manifest.header["corpus"]["max_tokens"],
            out=config.out,
            work=steps.work,
            plan=plan_id(header),
        )
        try:
            files = steps.run(STEP, write, units)
        finally:
            release()
        files += _write_projection(config.out, header)
        whole = _finish(config, header, files, {"seconds": time.monotonic() - started})
    return _summary(config, status, manifest, whole, whole["totals"])


def _check_apart(config: DistillConfig, manifest: Manifest) -> None:
    check_apart(config.out, manifest.directory)
    if os.path.isdir(config.model):
        check_apart(config.out, config.model)


def _header(config: DistillConfig, manifest: Manifest, plan: ModelPlan) -> TargetsHeader:
    """``targets.json`` without files and totals."""
    facts = plan.facts
    if config.targets == "logits" and config.top_k > facts["vocab_size"]:
        raise UsageError(f"--top-k {config.top_k}: the model has {facts['vocab_size']:,} tokens; ask for at most these")
    width = config.top_k if config.targets == "logits" else config.project or facts["hidden_size"]
    device = plan.spec.device.split(":")[0]
    return {
        "format": FORMAT,
        "spec_version": SPEC_VERSION,
        "parent": manifest.manifest_id,
        "model": facts,
        "targets": {
            "kind": config.targets,
            "width": width,
            "project": config.project,
            "seed": None if config.project is None else config.seed,
        },
        "options": {
            "device": device,
            "threads": config.threads,
            "tokens_per_batch": config.tokens_per_batch or TOKENS_PER_BATCH[device],
            "unit_tokens": config.unit_tokens,
        },
        "packages": packages(),
    }


def _bytes_per_token(targets: TargetsKind) -> int:
    """Of targets, before compression: float16, and int32 for ids."""
    return 6 * targets["width"] + 2 if targets["kind"] == "logits" else 2 * targets["width"]


def _write_projection(out: str, header: TargetsHeader) -> list[dict[str, Any]]:
    """The matrix by which hidden states were multiplied, for students; nothing where there is none."""
    targets = header["targets"]
    if targets["project"] is None:
        return []
    matrix, schema = projection_of(targets, header["model"]["hidden_size"]), projection_schema(targets["project"])
    rows = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), type=schema.field("row").type)
    io.write_parquet(io.join(out, PROJECTION), pa.Table.from_arrays([rows], schema=schema))
    digest, size = outputs.hash_file(io.join(out, PROJECTION))
    return [{"name": PROJECTION, "sha256": digest, "bytes": size, "samples": 0, "tokens": 0}]


def _finish(
    config: DistillConfig, header: TargetsHeader, files: list[dict[str, Any]], stats: dict[str, Any]
) -> TargetsHeader:
    entries = {file["name"]: {key: value for key, value in file.items() if key != "name"} for file in files}
    totals = {key: sum(entry[key] for entry in entries.values()) for key in ("bytes", "samples", "tokens")}
    whole = validate({**header, "files": entries, "totals": {"files": len(entries), **totals}}, NAME)
    path = io.join(config.out, f"{NAME}.json")
    io.write_json(path, whole)
    sums = {name: entry["sha256"] for name, entry in entries.items()} | {f"{NAME}.json": outputs.hash_file(path)[0]}
    io.write_bytes(io.join(config.out, outputs.SUMS), outputs.sums_text(sums).encode())
    validate(stats, "stats")
    io.write_json(io.join(config.out, outputs.STATS), stats)
    commit(config.out)
    return whole


def _summary(
    config: DistillConfig, status: str, manifest: Manifest, header: TargetsHeader, totals: dict[str, Any]
) -> DistillResult:
    targets, model = header["targets"], header["model"]
    return DistillResult(
        out=config.out,
        status=status,
        targets=targets["kind"],
        width=targets["width"],
        model=f"{model['source']} ({model['class']}, {model['dtype']})",
        is_of_the_manifest=model["of_manifest"],
        **totals,
        warnings=manifest_warnings(manifest.header),
    )
