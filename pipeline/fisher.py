"""``cptsel fisher``: the diagonal of the Fisher information over the chosen samples, for elastic weight consolidation.

    F = Σ_j w_j (∇ Σ_t log p(y_jt | x_j,<t))² / Σ_j w_j n_j

over chosen samples j of n_j predicted tokens, which count w_j each (docs/design.md, Fisher information). A unit is a
bounded part of a shard: it writes its part of the sum over j, and these are added up in their order at the end.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.artifacts.damage import manifest_warnings
from cptsel.pipeline.artifacts.manifest import Manifest
from cptsel.pipeline.artifacts.texts import check_shards
from cptsel.pipeline.artifacts.writing import writing
from cptsel.pipeline.chosen.call import Call, finish, open_call, told_of_model
from cptsel.pipeline.chosen.config import FisherConfig
from cptsel.pipeline.chosen.model import ResolvedModel, packages
from cptsel.pipeline.chosen.resume import begin, plan_id
from cptsel.pipeline.chosen.squares import PARTIALS, STEP, WriteSquares, partial_path, write_mean
from cptsel.pipeline.chosen.units import ChosenSamples, Unit, plan_units
from cptsel.pipeline.config import to_yaml
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.results import FisherResult
from cptsel.schemas.arrow import SPEC_VERSION
from cptsel.schemas.headers import FisherHeader
from cptsel.schemas.validation import validate

FORMAT = "cptsel.fisher"
NAME: Final = "fisher"
TENSORS = "fisher.safetensors"


def fisher(
    config: FisherConfig, progress: Progress | None = None, make_steps: Callable[..., Steps] = Steps
) -> FisherResult:
    """Write the diagonal of the Fisher information, float32, by the names of the model's own parameters.

    Returns:
        The summary: samples, tokens, mass and the trace.

    Raises:
        UsageError: an option or a model that can't be used, an input that is not a finished manifest, or an output that
            is there and is another one.
        BadInputError: a shard or a row of the corpus is not there or can't be read, or the model gives no finite
            numbers.
        VerificationError: the corpus or the manifest is not what was embedded and selected.
    """
    call = open_call("fisher", config, progress, make_steps)
    config, manifest, model = call.config, call.manifest, call.model
    header = _header(config, manifest, model)
    chosen = ChosenSamples(manifest.realisation, config.weights)
    units = plan_units(manifest, chosen, config.root, config.unit_tokens)
    if not units:
        raise UsageError(f"{manifest.directory}: no chosen sample counts with --weights {config.weights}; use another")
    check_shards({unit.uri for unit in units})
    with writing(config.out, "fisher", overwrite=config.overwrite, dry_run=config.dry_run, resumes=True) as output:
        if config.dry_run:
            samples, tokens = sum(unit.count for unit in units), sum(unit.tokens for unit in units)
            return _summary(
                config, "dry-run", manifest, header, {"samples": samples, "tokens": tokens, "partial_sums": len(units)}
            )
        status = begin(output, to_yaml(config), NAME, header, config.overwrite)
        if status == "already done":
            _delete_partials(config.out)
            header = validate(io.read_json(io.join(config.out, f"{NAME}.json")), NAME)
            return _summary(config, status, manifest, header, dict(header["totals"]))
        write = WriteSquares(
            spec=model.spec,
            read=call.read(chosen),
            prefix=tuple(header["model"]["prefix"]),
            seed=header["fisher"]["seed"],
            out=config.out,
            work=call.steps.work,
            plan=plan_id(header),
        )
        found = call.run(STEP, write, units)
        totals = _add_up(config.out, units, found)
        whole = _finish(call, header, totals)
        _delete_partials(config.out)  # last: a call that is killed before goes on from them
    return _summary(config, status, manifest, whole, totals)


def _header(config: FisherConfig, manifest: Manifest, model: ResolvedModel) -> FisherHeader:
    """``fisher.json`` without files and totals."""
    return {
        "format": FORMAT,
        "spec_version": SPEC_VERSION,
        "parent": manifest.manifest_id,
        "model": model.facts,
        "fisher": {
            "kind": config.kind,
            "weights": config.weights,
            "seed": config.seed if config.kind == "true" else None,
        },
        "options": {
            "device": model.spec.device.split(":")[0],
            "threads": config.threads,
            "unit_tokens": config.unit_tokens,
        },
        "packages": packages(),
    }


def _add_up(out: str, units: Sequence[Unit], found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write the mean of the partial sums; returns the totals."""
    mass = math.fsum(part["mass"] for part in found)
    sums = write_mean(io.join(out, TENSORS), [partial_path(out, unit) for unit in units], mass)
    return {
        "samples": sum(part["samples"] for part in found),
        "tokens": sum(part["tokens"] for part in found),
        "mass": mass,
        "nats": math.fsum(part["nats"] for part in found) / mass,
        **sums,
    }


def _finish(call: Call[FisherConfig], header: FisherHeader, totals: dict[str, Any]) -> FisherHeader:
    digest, size = outputs.hash_file(io.join(call.config.out, TENSORS))
    whole = validate({**header, "files": {TENSORS: {"sha256": digest, "bytes": size}}, "totals": totals}, NAME)
    finish(call, NAME, whole)
    return whole


def _delete_partials(out: str) -> None:
    io.delete_files(out, [name for name in outputs.list_tree(out) if name.startswith(f"{PARTIALS}/")])


def _summary(
    config: FisherConfig, status: str, manifest: Manifest, header: FisherHeader, totals: dict[str, Any]
) -> FisherResult:
    return FisherResult(
        out=config.out,
        status=status,
        kind=header["fisher"]["kind"],
        weights=header["fisher"]["weights"],
        **told_of_model(header["model"]),
        **totals,
        warnings=manifest_warnings(manifest.header),
    )
