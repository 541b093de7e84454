"""The embedding runs that a manifest was selected from: whether those that a user names are these, and in which order.

``provenance.runs`` of ``manifest.json`` names them by fingerprint and ``run_id``, those of phase 0 in the order in
which its shards are numbered; ``phases`` says which of them a phase was selected from. So the order in which a user
names runs does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cptsel.pipeline import io
from cptsel.pipeline.artifacts.manifest import Manifest
from cptsel.pipeline.artifacts.run import EmbeddingRuns, open_checkpoints, open_header, open_runs, run_fingerprint
from cptsel.pipeline.errors import UsageError, VerificationError
from cptsel.schemas.headers import PhaseEntry, RunHeader, RunReference


@dataclass(frozen=True)
class Origin:
    """Named runs, opened.

    Attributes:
        runs: all that a phase was selected from; of several checkpoints of the same samples those that were named.
        phases: numbers of the phases that were selected from them.
        has_first: whether the first of the phase's runs is among them, which the columns of its samples are from.
    """

    runs: EmbeddingRuns
    phases: tuple[int, ...]
    has_first: bool


def open_origin(manifest: Manifest, directories: Sequence[str], phase: int | None = None) -> EmbeddingRuns:
    """Open the runs that a phase of a manifest was selected from, whatever the order in which they are named.

    Of several checkpoints of the same samples (``--combine``) any may be named.

    Args:
        manifest: of which ``provenance.runs`` names them.
        directories: runs.
        phase: number of the phase; by default any one whose runs these are.

    Raises:
        UsageError: one is not a finished run or none of those, or they are not all that are needed.
        VerificationError: a run is damaged, or its shards are not those of the manifest.
    """
    origins = open_origins(manifest, directories)
    mine = [origin for origin in origins if phase is None or phase in origin.phases]
    if not mine:
        raise UsageError(
            f"--run {directories[0]}: phase {phase} of {manifest.directory} was not selected from it, but phase "
            f"{origins[0].phases[0]} was; name the run of phase {phase}"
        )
    if len(origins) > 1:
        raise UsageError(
            f"--run: {manifest.directory} was selected from {origins[0].runs.directories[0]} in phase "
            f"{origins[0].phases[0]} and from {origins[1].runs.directories[0]} in phase {origins[1].phases[0]}; name "
            "the runs of one phase"
        )
    runs = mine[0].runs
    shards = manifest.shards()
    said = list(zip(shards["path"].to_pylist(), shards["sha256"].to_pylist(), strict=True))
    if said != [(shard.source["path"], shard.source["sha256"]) for shard in runs.shards]:
        raise VerificationError(
            f"{manifest.directory}: the files of its shards.parquet are not those of the runs that it was selected "
            "from; run cptsel verify --run"
        )
    return runs


def open_origin_of_any(
    manifests: Sequence[Manifest], directories: Sequence[str], phase: int
) -> tuple[int, EmbeddingRuns]:
    """Open the runs that one of several manifests was selected from; returns which one, and the runs.

    Raises:
        UsageError: they are those of none; the sentence is about the first.
        VerificationError: as in ``open_origin``.
    """
    refused: UsageError | None = None
    for number, manifest in enumerate(manifests):
        try:
            return number, open_origin(manifest, directories, phase)
        except UsageError as error:
            refused = refused or error
    raise refused or UsageError("no manifest was named")


def runs_of(manifest: Manifest) -> set[tuple[str, str | None]]:
    """Fingerprints and ids of the runs that a manifest names."""
    return {(entry["fingerprint"], entry.get("run_id")) for entry in manifest.header["provenance"]["runs"]}


def open_origins(manifest: Manifest, directories: Sequence[str]) -> list[Origin]:
    """Open named runs, those of each phase together, by ascending phase.

    Runs of a phase of which none is named are left out.

    Raises:
        UsageError: one is not a finished run or none of the manifest's, or they are not all of a phase.
        VerificationError: a run is damaged.
    """
    known = _known(manifest)
    named: dict[int, str] = {}
    for directory in directories:
        path = io.absolute(directory)
        place = _place(known, open_header(path))
        if place is None:
            raise UsageError(
                f"--run {directory}: {manifest.directory} was not selected from it (its run_id is not among "
                "provenance.runs in manifest.json); name the run that cptsel select was given"
            )
        if named.setdefault(place, path) != path:
            raise UsageError(f"--run {directory}: is the same run as {named[place]}; name it once")
    found: dict[tuple[int, ...], list[int]] = {}  # phases by their runs
    for entry in manifest.header["phases"]:
        found.setdefault(_places_of(known, entry), []).append(entry["phase"])
    origins = []
    for places, phases in found.items():
        mine = [place for place in places if place in named]
        if mine:
            runs = _open_together(manifest, [named[place] for place in mine], len(places))
            origins.append(Origin(runs, tuple(phases), mine[0] == places[0]))
    return origins


def is_origin(manifest: Manifest, phase: PhaseEntry, headers: Sequence[RunHeader]) -> bool:
    """Whether runs are some of those that a manifest names for the phase, or all of these are among them."""
    known = _known(manifest)
    named, mine = {_place(known, header) for header in headers}, set(_places_of(known, phase))
    return named <= mine or mine <= named


def _open_together(manifest: Manifest, directories: Sequence[str], count: int) -> EmbeddingRuns:
    """Named runs of a phase that was selected from ``count`` runs."""
    if manifest.header["selection"]["options"].get("combine") is not None and count > 1:
        return open_checkpoints(directories) if len(directories) > 1 else open_runs(directories)
    if len(directories) < count:
        raise UsageError(
            f"--run: {manifest.directory} was selected from {count} runs, of which {len(directories)} "
            f"{'is' if len(directories) == 1 else 'are'} named; name all runs that cptsel select was given"
        )
    return open_runs(directories)


def _known(manifest: Manifest) -> list[RunReference]:
    """The runs that a manifest names, each once."""
    found: list[RunReference] = []
    for entry in manifest.header["provenance"]["runs"]:
        if entry not in found:
            found.append(entry)
    return found


def _place(known: Sequence[RunReference], header: RunHeader) -> int | None:
    """Which of the runs that a manifest names a run is; those of older releases have no ``run_id``."""
    mine, name = run_fingerprint(header), header.get("run_id")
    for place, entry in enumerate(known):
        if entry["fingerprint"] == mine and entry.get("run_id") in (None, name):
            return place
    return None


def _places_of(known: Sequence[RunReference], phase: PhaseEntry) -> tuple[int, ...]:
    """The runs of a phase among those that a manifest names; older releases do not tell, and have but one choice."""
    names = phase.get("runs")
    return tuple(place for place, entry in enumerate(known) if names is None or entry["fingerprint"] in names)
