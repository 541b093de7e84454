"""What ``manifest.json`` says of a selection: options, budgets, totals, and how good it is.

See docs/design.md, Replay manifest.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import Any

from cptsel import __version__
from cptsel.pipeline.artifacts.damage import damage_of
from cptsel.pipeline.artifacts.manifest import load_manifest, required_features
from cptsel.pipeline.artifacts.run import EmbeddingRuns, run_fingerprint
from cptsel.pipeline.config import options_of
from cptsel.pipeline.selection.config import SelectConfig
from cptsel.pipeline.selection.outcome.reports import add_reports, summarise_reports
from cptsel.pipeline.selection.outcome.tallies import QUANTILES
from cptsel.pipeline.selection.outcome.weighted import GroupResult, Weighted, total
from cptsel.pipeline.selection.outcome.weighting import Weighing
from cptsel.pipeline.selection.plan import Plan
from cptsel.pipeline.selection.reading.cells import CellReader
from cptsel.schemas.headers import Group, ManifestBody, ManifestCorpus, PhaseEntry, Provenance, ReplayTokens, Residuals

_PACKAGES = ("apache-beam", "faiss-cpu", "numpy", "pyarrow")

# Options that say where and how a call runs, or that the header holds elsewhere; all others decide what is chosen.
_NOT_OPTIONS = frozenset(
    {"runs", "out", "method", "scope", "budget", "exclude", "workers", "overwrite", "dry_run", "beam_args"}
    | {"group_mass", "history", "new", "phase_run", "skip_residuals", "realisation", "max_repeats"}
)


@dataclass(frozen=True, eq=False)
class Selected:
    """A phase that was selected: its plan, its picks and what the method says of them.

    Attributes:
        runs: what it was selected from.
        reader: how its cells were read.
        work: directory with its picks.
        plan: budgets.
        weighted: weights of the picks.
        reports: of the method, by cell or group.
        residuals: by group, and of the whole under None; empty where they were not asked for.
        from_first: whether it was drawn from the picks of phase 0.
    """

    runs: EmbeddingRuns
    reader: CellReader
    work: str
    plan: Plan
    weighted: Weighted
    reports: Sequence[dict[str, Any]]
    residuals: dict[str | None, Residuals]
    from_first: bool


def manifest_header(
    config: SelectConfig,
    phases: Sequence[Selected],
    weighing: Weighing,
    exclude: frozenset[str],
    new: EmbeddingRuns | None,
) -> ManifestBody:
    """``manifest.json`` but for what ``finish_manifest`` adds; runs are named by fingerprint, never by path."""
    first = phases[0]
    runs, plan = first.runs, first.plan
    entries = [_phase(selected, weighing) for selected in phases]
    by_group = summarise_reports(first.reports)
    replayed = _sum_replayed([entry["replay_tokens"] for entry in entries])
    return {
        "required_features": required_features(weighing.realisation, bool(runs.options.get("tokens"))),
        "weighting": {
            "realisation": weighing.realisation,
            "max_repeats": weighing.max_repeats,
            "replay_tokens": replayed,
            "weight_quantiles": list(QUANTILES),
        },
        "order": {"kind": "corpus" if weighing.curriculum is None else "curriculum"},
        "selection": {
            "method": config.method,
            "scope": config.scope,
            "budget": {
                "requested": config.budget if config.mix_ratio is None else f"--mix-ratio {config.mix_ratio:g}",
                "unit": plan.unit,
                "amount": plan.budget,
            },
            "options": _options(config, exclude),
            "report": add_reports(by_group),
            "reports": by_group,
        },
        "groups": [group for selected in phases for group in _groups(selected)],
        "totals": {
            "shards": runs.files,
            "population_samples": sum(group.samples for group in plan.groups),
            "population_tokens": sum(group.tokens for group in plan.groups),
            "population_mass": plan.mass,
            "selected_samples": sum(entry["samples"] for entry in entries),
            "selected_tokens": sum(entry["tokens"] for entry in entries),
            "replay_tokens": replayed["realised"],
            "plays": sum(total(selected.weighted.groups, "plays") for selected in phases),
            "effective_tokens": sum(entry["effective_tokens"] for entry in entries),
        },
        "phases": entries,
        "corpus": _corpus(runs),
        "provenance": _provenance(config, phases, new),
    }


def _phase(selected: Selected, weighing: Weighing) -> PhaseEntry:
    weighted = selected.weighted
    return {
        "phase": weighted.number,
        "mix_fraction": None,
        "samples": total(weighted.groups, "samples"),
        "tokens": total(weighted.groups, "tokens"),
        "order": weighing.order,
        "replay_tokens": {
            "requested": weighted.replay_requested,
            "realised": total(weighted.groups, "replay_tokens"),
            "shortfall": float(sum(group.shortfall for group in weighted.groups)),
        },
        "effective_tokens": weighted.effective_tokens,
        "weight_quantiles": list(weighted.weight_quantiles),
        "drawn_from_phase": 0 if selected.from_first else None,
        "runs": [run_fingerprint(header) for header in selected.runs.headers],
        **selected.residuals.get(None, {}),
    }


def _sum_replayed(entries: Sequence[ReplayTokens]) -> ReplayTokens:
    return {
        "requested": sum(entry["requested"] for entry in entries),
        "realised": sum(entry["realised"] for entry in entries),
        "shortfall": sum(entry["shortfall"] for entry in entries),
    }


def _provenance(config: SelectConfig, phases: Sequence[Selected], new: EmbeddingRuns | None) -> Provenance:
    headers = phases[0].runs.headers
    later = [
        header for selected in phases[1:] if selected.runs is not phases[0].runs for header in selected.runs.headers
    ]
    found: Provenance = {
        "runs": [{"fingerprint": run_fingerprint(header), "run_id": header["run_id"]} for header in (*headers, *later)],
        "model": {**headers[0]["model"], "weights": headers[0]["fingerprints"]["weights"]},
        "tool": {"name": "cptsel", "version": __version__},
        "packages": {name: version(name) for name in _PACKAGES},
    }
    if ahead := headers[0]["options"].get("lookahead"):
        found["model"]["before_lookahead"] = ahead["weights"]
    if config.history:
        found["history"] = [load_manifest(path).manifest_id for path in config.history]
    if new:
        found["new"] = [run_fingerprint(header) for header in new.headers]
    return found


def _options(config: SelectConfig, exclude: frozenset[str]) -> dict[str, Any]:
    """The options that decide what is chosen; those that only some methods read where it is one of these."""
    unread = {
        name
        for name, declared in options_of(config).items()
        if declared.read is not None and declared.read.of_methods and not declared.read.reads(config)
    }
    left_out = _NOT_OPTIONS | unread
    values = {field.name: getattr(config, field.name) for field in fields(config) if field.name not in left_out}
    entries = "\n".join(sorted(exclude)).encode()
    by_hand = config.group_mass not in (None, "interference")
    return {
        **values,
        "max_repeats": config.max_repeats,
        "group_mass": "by hand" if by_hand else config.group_mass,
        "exclude_sha256": hashlib.sha256(entries).hexdigest() if config.exclude else None,
    }


def _groups(selected: Selected) -> list[Group]:
    results = {result.group: result for result in selected.weighted.groups}
    found: list[Group] = []
    for group in selected.plan.groups:
        result = results.get(group.group) or GroupResult(group.group)
        found.append(
            {
                "group": group.group,
                "phase": selected.weighted.number,
                "population_samples": group.samples,
                "population_tokens": group.tokens,
                "population_mass": group.mass,
                "population_mass_error": math.sqrt(group.mass_variance),
                "target_mass": group.target_mass,
                "budget": group.budget,
                "selected_samples": result.samples,
                "selected_tokens": result.tokens,
                "plays": result.plays,
                "played_samples": result.played_samples,
                "replay_tokens": result.replay_tokens,
                "replay_requested": result.replay_requested,
                "cut_tokens": result.cut_tokens,
                "shortfall": result.shortfall,
                "effective_tokens": result.effective_tokens,
                "weight_quantiles": list(result.weight_quantiles),
                **selected.residuals.get(group.group, {}),
            }
        )
    return found


def _corpus(runs: EmbeddingRuns) -> ManifestCorpus:
    options, first = runs.options, runs.headers[0]
    roots = list(dict.fromkeys(header["corpus"]["root"] for header in runs.headers))
    corpus: ManifestCorpus = {
        "root": roots[0],
        "text_field": options["text_field"],
        "id_field": options.get("id_field"),
        "tokenizer": first["fingerprints"]["tokenizer"],
        "max_tokens": options["max_tokens"],
    }
    if options.get("split_special_tokens"):
        corpus["split_special_tokens"] = True
    if tokens := options.get("tokens"):
        corpus["tokens"] = tokens
    if len(roots) > 1:
        corpus["roots"] = roots
    if damage := damage_of(runs.headers[:1] if runs.checkpoints > 1 else runs.headers):
        corpus["damage"] = damage
    return corpus
