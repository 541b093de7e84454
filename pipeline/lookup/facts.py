"""What is told of a chosen sample."""

import math
from typing import Any

from cptsel.pipeline.artifacts.manifest import Manifest, groups_of
from cptsel.pipeline.lookup.reading import Row


def facts(manifest: Manifest, row: Row, shard: dict[str, Any], uri: str, text: str | None) -> dict[str, Any]:
    """Why a sample was chosen, what it weighs, where it lies, and its text, by name.

    Args:
        manifest: that chose it.
        row: of SAMPLES.
        shard: its row of ``shards.parquet``.
        uri: where the shard lies now.
        text: what is shown of its text; None where the corpus is not at hand.
    """
    found = {
        **_names(row),
        "phase": row["phase"],
        "group": row["group"],
        "method": row["method"],
        "score": row["score"],
        "probability": row["inclusion_prob"],
        **_budget(manifest, row),
        "tokens": row["n_tokens"],
        "weight": row["weight"],
        "stands for tokens": row["weight"] * row["n_tokens"],
        "repeat": row["repeat"],
        "loss weight": row["loss_weight"],
        "gradient norm": row["grad_norm"],
        "shard": shard["path"],
        "file": uri,
        **location(row),
        "text": text,
    }
    return {name: finite(value) for name, value in found.items()}


def location(row: Row) -> dict[str, Any]:
    """Where a sample lies in its shard: physical row, and characters of the document's text, end excluded.

    Of a document of ids there are token ids in their place.
    """
    if row["char_start"] is None:
        place = {"token ids": f"{row['token_start']}:{row['token_start'] + row['token_count']}"}
    else:
        place = {"characters": f"{row['char_start']}:{row['char_end']}"}
    return {"row": row["row_index"], **place}


def finite(value: Any) -> Any:
    """A value as JSON may hold it: None for a number that is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _names(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in ("sample_id", "doc_key", "doc_id")}


def _budget(manifest: Manifest, row: Row) -> dict[str, Any]:
    """What the group was allowed, and got, in the sample's phase."""
    budget = manifest.header["selection"].get("budget")
    for group in groups_of(manifest.header, row["phase"]):
        if group["group"] == row["group"]:
            unit = f" {budget['unit']}" if budget else ""
            return {
                "budget of its group": f"{group['budget']:,.0f}{unit}",
                "chosen from its group": f"{group['selected_samples']:,} of {group['population_samples']:,} samples",
            }
    return {}
