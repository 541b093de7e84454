"""``cptsel compare``: selections side by side, by what their manifests say and by the samples they share."""

from itertools import combinations

from cptsel.pipeline.artifacts.manifest import load_manifest
from cptsel.pipeline.config import CompareConfig
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.reporting.overlap import (
    check_alike,
    groups_table,
    overlap_table,
    overlaps_of,
    phase_of,
    selections_table,
    short_names,
    target_warnings,
)
from cptsel.pipeline.summary import Summary


def compare(config: CompareConfig, progress: Progress | None = None) -> Summary:
    """Lay selections from one corpus side by side.

    Returns:
        The summary: figures of each, overlap of each pair, and the mix of groups.

    Raises:
        UsageError: fewer than two manifests, one is none, they are not of one corpus, or have no such phase.
        VerificationError: a file of a manifest is not what its checksum says.
    """
    if len(config.replays) < 2:
        raise UsageError("compare takes two manifests or more; name another REPLAY")
    manifests = [load_manifest(path) for path in config.replays]
    for other in manifests[1:]:
        check_alike(manifests[0], other)
    phases = [phase_of(manifest, config.phase) for manifest in manifests]
    names = short_names([manifest.directory for manifest in manifests])
    pairs = list(combinations(range(len(manifests)), 2))
    overlaps = overlaps_of(manifests, config.phase, pairs, progress)
    tables = [
        selections_table(names, manifests, phases),
        overlap_table(names, manifests, phases, pairs, overlaps),
        groups_table(names, manifests, config.phase),
    ]
    totals = manifests[0].header["totals"]
    return Summary(
        command="compare",
        out=None,
        status="done",
        totals={
            "selections": len(manifests),
            "phase": config.phase,
            "samples of the corpus": totals["population_samples"],
            "tokens of the corpus": totals["population_tokens"],
        },
        tables=tables,
        warnings=target_warnings(names, phases),
    )
