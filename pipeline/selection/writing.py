"""Writing the manifest of a selection: samples, shards.parquet and the header (DESIGN section 5)."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from cptsel import __version__
from cptsel.pipeline import io
from cptsel.pipeline.config import SelectConfig
from cptsel.pipeline.kernels.weights import effective_tokens
from cptsel.pipeline.manifest import SHARDS, samples_name
from cptsel.pipeline.runs import EmbeddingRuns, RunShard, run_fingerprint
from cptsel.pipeline.selection.methods import METHODS, Coverage
from cptsel.pipeline.selection.plan import Plan
from cptsel.pipeline.selection.scope_shard import STEP
from cptsel.pipeline.selection.weighting import QUANTILES, Weighted, total
from cptsel.schemas.arrow import GROUP_TYPE, LOCATOR_COLUMNS, REPLAY_SHARDS, RUN_SHARDS, SAMPLES

_PACKAGES = ("apache-beam", "faiss-cpu", "numpy", "pyarrow")
_ADDED = ("objective", "random_objective")  # figures of cells that add up
_MEAN = ("mean_distance", "random_distance")  # figures of cells whose mean by mass is the whole's


def write_samples(out: str, work: str, weighted: Weighted, method: str) -> None:
    """Write ``samples/<shard>.parquet`` for every shard with picks."""

    def write(shard_id: int) -> None:
        begin, end = weighted.offsets[shard_id]
        picks = io.read_parquet(io.join(work, STEP, f"{shard_id:06d}.parquet"))
        table = _samples_table(picks, weighted, slice(begin, end), method)
        io.write_parquet(io.join(out, samples_name(shard_id)), table)

    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(write, weighted.offsets))


def _samples_table(picks: pa.Table, weighted: Weighted, part: slice, method: str) -> pa.Table:
    """Picks of one shard, which come in corpus order, as rows of SAMPLES; ``order_rank`` is their place in all."""
    count = picks.num_rows
    names, codes = np.unique(np.asarray(picks["group"].to_pylist(), dtype=object), return_inverse=True)
    columns = {name: picks[name] for name in (*LOCATOR_COLUMNS, "inclusion_prob", "grad_norm", "score")} | {
        "weight": weighted.weight[part],
        "loss_weight": weighted.loss_weight[part],
        "repeat": weighted.repeat[part],
        "phase": np.zeros(count, dtype=np.int16),
        "order_rank": np.arange(part.start, part.stop, dtype=np.int64),
        # One dictionary in sorted order, or the bytes would tell in what order the groups came by.
        "group": pa.DictionaryArray.from_arrays(codes.astype(np.int32), pa.array(names.tolist(), pa.string())),
        "method": pa.DictionaryArray.from_arrays(np.zeros(count, dtype=np.int32), pa.array([method], pa.string())),
    }
    assert SAMPLES.field("group").type == GROUP_TYPE
    return pa.table({name: columns[name] for name in SAMPLES.names}, schema=SAMPLES)


def write_shards(out: str, shards: Sequence[RunShard], plan: Plan, weighted: Weighted) -> None:
    """Write ``shards.parquet``: every shard of the runs, also those without a pick."""
    population = plan.by_shard()
    rows = []
    for shard in shards:
        cells = list(population.get(shard.shard_id, {}).values())
        part = slice(*weighted.offsets.get(shard.shard_id, (0, 0)))
        n_tokens = weighted.n_tokens[part]
        rows.append(
            {
                **{name: shard.source[name] for name in RUN_SHARDS.names if name in REPLAY_SHARDS.names},
                "population_samples": sum(cell.samples for cell in cells),
                "population_tokens": sum(cell.tokens for cell in cells),
                "population_mass": float(sum(cell.mass for cell in cells)),
                "selected_samples": len(n_tokens),
                "selected_tokens": int(n_tokens.sum()),
                "selected_mass": float(weighted.weight[part] @ n_tokens),
                "replay_tokens": int(weighted.repeat[part].astype(np.int64) @ n_tokens),
            }
        )
    io.write_parquet(io.join(out, SHARDS), pa.Table.from_pylist(rows, REPLAY_SHARDS))


def manifest_header(
    config: SelectConfig,
    runs: EmbeddingRuns,
    plan: Plan,
    weighted: Weighted,
    reports: Sequence[dict[str, Any]],
    exclude: frozenset[str],
) -> dict[str, Any]:
    """``manifest.json`` but for what ``finish_manifest`` adds; runs are named by fingerprint, never by path."""
    selected = {"samples": total(weighted.groups, "samples"), "tokens": total(weighted.groups, "tokens")}
    replayed = total(weighted.groups, "replay_tokens")
    by_group = summarise_reports(reports)
    return {
        "weighting": {
            "realisation": "repeat",
            "max_repeats": config.max_repeats,
            "replay_tokens": {
                "requested": weighted.replay_requested,
                "realised": replayed,
                "shortfall": float(sum(group.shortfall for group in weighted.groups)),
            },
            "weight_quantiles": list(QUANTILES),
        },
        "order": {"kind": "corpus"},
        "selection": {
            "method": config.method,
            "scope": config.scope,
            "budget": {"requested": config.budget, "unit": plan.unit, "amount": plan.budget},
            "options": _options(config, exclude),
            "report": add_reports(by_group),
            "reports": by_group,
        },
        "groups": _groups(plan, weighted),
        "totals": {
            "shards": len(runs.shards),
            "population_samples": sum(group.samples for group in plan.groups),
            "population_tokens": sum(group.tokens for group in plan.groups),
            "population_mass": plan.mass,
            "selected_samples": selected["samples"],
            "selected_tokens": selected["tokens"],
            "replay_tokens": replayed,
            "plays": total(weighted.groups, "plays"),
            "effective_tokens": effective_tokens(weighted.weight, weighted.n_tokens),
        },
        "phases": [{"phase": 0, "mix_fraction": None, **selected, "order": "corpus"}],
        "corpus": _corpus(runs),
        "provenance": {
            "runs": [{"fingerprint": run_fingerprint(header)} for header in runs.headers],
            "model": {**runs.headers[0]["model"], "weights": runs.headers[0]["fingerprints"]["weights"]},
            "tool": {"name": "cptsel", "version": __version__},
            "packages": {name: version(name) for name in _PACKAGES},
        },
    }


def _options(config: SelectConfig, exclude: frozenset[str]) -> dict[str, Any]:
    """The options that decide what is chosen; those of craig alone only where it reads them."""
    names = ["group_by", "group_alpha", "replay_tokens", "max_repeats", "seed"]
    if isinstance(METHODS[config.method], Coverage):
        names += ["neighbours", "similarity", "refine"]
    entries = "\n".join(sorted(exclude)).encode()
    return {
        **{name: getattr(config, name) for name in names},
        "exclude_sha256": hashlib.sha256(entries).hexdigest() if config.exclude else None,
    }


def _groups(plan: Plan, weighted: Weighted) -> list[dict[str, Any]]:
    return [
        {
            "group": group.group,
            "phase": 0,
            "population_samples": group.samples,
            "population_tokens": group.tokens,
            "population_mass": group.mass,
            "target_mass": group.target_mass,
            "budget": group.budget,
            "selected_samples": result.samples,
            "selected_tokens": result.tokens,
            **{name: value for name, value in asdict(result).items() if name not in {"group", "samples", "tokens"}},
        }
        for group, result in zip(plan.groups, weighted.groups, strict=True)
    ]


def _corpus(runs: EmbeddingRuns) -> dict[str, Any]:
    options, first = runs.options, runs.headers[0]
    roots = list(dict.fromkeys(header["corpus"]["root"] for header in runs.headers))
    return {
        "root": roots[0],
        **({"roots": roots} if len(roots) > 1 else {}),
        "text_field": options["text_field"],
        "id_field": options.get("id_field"),
        "tokenizer": first["fingerprints"]["tokenizer"],
        "max_tokens": options["max_tokens"],
    }


def summarise_reports(reports: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What methods say of cells, by group; empty for methods that say nothing."""
    members: dict[str, list[dict[str, Any]]] = {}
    for report in reports:
        if "mean_distance" in report:
            members.setdefault(report["group"], []).append(report)
    return [{"group": group, **add_reports(members[group])} for group in sorted(members)]


def add_reports(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several reports as one: objectives add up, distances are means by mass, gain over random follows from them."""
    if not reports:
        return {}
    mass = [report["mass"] for report in reports]
    whole: dict[str, Any] = {"mass": float(sum(mass)), "cells": sum(report.get("cells", 1) for report in reports)}
    whole |= {name: float(sum(report[name] for report in reports)) for name in _ADDED}
    for name in _MEAN:
        whole[name] = float(np.average([report[name] for report in reports], weights=mass))
    gains = [report["gain_over_random"] * report["random_distance"] * report["mass"] for report in reports]
    whole["neighbours_advised"] = max(report.get("neighbours_advised", 0) for report in reports)
    lost = whole["random_distance"] * whole["mass"]
    whole["gain_over_random"] = float(sum(gains) / lost) if lost > 0 else 0.0
    return whole
