"""What an export is as a data set: the facts of ``export.json`` from which its card and Croissant metadata are made."""

import posixpath
from typing import TYPE_CHECKING

from cptsel.pipeline.exports.base import ExportFormat
from cptsel.schemas.headers import ExportDataset, ExportGroup, ExportPopulation

if TYPE_CHECKING:
    from cptsel.pipeline.artifacts.manifest import Manifest


def about(format: ExportFormat, manifest: "Manifest", ids: bool, license: str | None) -> ExportDataset | None:
    """The facts; None where the format's files hold no records.

    Args:
        format: of the export.
        manifest: that is exported.
        ids: whether plays have token ids.
        license: as it was given.
    """
    if format.media is None:
        return None
    header = manifest.header
    selection, totals = header["selection"], header["totals"]
    source = header["provenance"]["model"].get("source")
    budget = selection.get("budget")
    groups: dict[str, ExportGroup] = {}
    for entry in header["groups"]:
        found = groups.setdefault(
            entry["group"], ExportGroup(group=entry["group"], mass=entry["population_mass"], tokens=0)
        )
        tokens = entry["replay_tokens"]
        if manifest.realisation == "sampling":  # draws go by weight, not by what was chosen
            tokens = round(entry.get("replay_requested", tokens))
        found["tokens"] += tokens
    return ExportDataset(
        fields=[
            *(name for name in format.keeps if not (name == "text" and manifest.of_ids)),
            *(["input_ids"] if ids else []),
        ],
        license=license,
        method=selection["method"],
        budget=None if budget is None else budget["requested"],
        model=posixpath.basename(str(source).rstrip("/")) or None if source else None,
        max_tokens=header["corpus"]["max_tokens"],
        population=ExportPopulation(
            shards=totals.get("shards", 0), samples=totals["population_samples"], tokens=totals["population_tokens"]
        ),
        groups=[groups[name] for name in sorted(groups)],
    )
