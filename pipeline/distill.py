"""``cptsel distill``: teacher targets of the chosen samples at a frozen model.

A unit is a bounded part of a shard: its texts are read and held against their hashes, become the token ids that were
embedded, go through the model in batches, and become one file (docs/design.md, Teacher targets).
"""

from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.damage import manifest_warnings
from cptsel.pipeline.artifacts.manifest import Manifest
from cptsel.pipeline.artifacts.texts import check_shards
from cptsel.pipeline.artifacts.writing import writing
from cptsel.pipeline.chosen.call import Call, finish, open_call, told_of_model
from cptsel.pipeline.chosen.config import DistillConfig
from cptsel.pipeline.chosen.model import ResolvedModel, packages
from cptsel.pipeline.chosen.resume import begin, plan_id
from cptsel.pipeline.chosen.targets import STEP, WriteTargets, projection_of
from cptsel.pipeline.chosen.units import ChosenSamples, plan_units
from cptsel.pipeline.config import to_yaml
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
    call = open_call("distill", config, progress, make_steps)
    config, manifest, model = call.config, call.manifest, call.model
    header = _header(config, manifest, model)
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
            spec=model.spec,
            read=call.read(chosen),
            prefix=tuple(header["model"]["prefix"]),
            targets=header["targets"],
            tokens_per_batch=header["options"]["tokens_per_batch"],
            row_tokens=manifest.header["corpus"]["max_tokens"],
            out=config.out,
            work=call.steps.work,
            plan=plan_id(header),
        )
        files = call.run(STEP, write, units)
        files += _write_projection(config.out, header)
        whole = _finish(call, header, files)
    return _summary(config, status, manifest, whole, whole["totals"])


def _header(config: DistillConfig, manifest: Manifest, model: ResolvedModel) -> TargetsHeader:
    """``targets.json`` without files and totals."""
    facts = model.facts
    if config.targets == "logits" and config.top_k > facts["vocab_size"]:
        raise UsageError(f"--top-k {config.top_k}: the model has {facts['vocab_size']:,} tokens; ask for at most these")
    width = config.top_k if config.targets == "logits" else config.project or facts["hidden_size"]
    device = model.spec.device.split(":")[0]
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


def _finish(call: Call[DistillConfig], header: TargetsHeader, files: list[dict[str, Any]]) -> TargetsHeader:
    entries = {file["name"]: {key: value for key, value in file.items() if key != "name"} for file in files}
    totals = {key: sum(entry[key] for entry in entries.values()) for key in ("bytes", "samples", "tokens")}
    whole = validate({**header, "files": entries, "totals": {"files": len(entries), **totals}}, NAME)
    finish(call, NAME, whole)
    return whole


def _summary(
    config: DistillConfig, status: str, manifest: Manifest, header: TargetsHeader, totals: dict[str, Any]
) -> DistillResult:
    targets = header["targets"]
    return DistillResult(
        out=config.out,
        status=status,
        targets=targets["kind"],
        width=targets["width"],
        **told_of_model(header["model"]),
        **totals,
        warnings=manifest_warnings(manifest.header),
    )
