"""Selections beside each other: whether they are of one corpus, what they share, and tables of both."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cptsel.pipeline.artifacts.manifest import Manifest, groups_of, replay_tokens
from cptsel.pipeline.artifacts.origin import runs_of
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.errors import UsageError
from cptsel.pipeline.summary import Table, counted
from cptsel.schemas.headers import PhaseEntry

_GROUPS_SHOWN = 20
_COLUMNS = ["sample_id", "phase", "n_tokens", "weight", "repeat"]


@dataclass(frozen=True)
class Overlap:
    """What two selections have in common in one shard; fields add up over shards.

    Attributes:
        samples: in both.
        tokens: of these.
        first_played: tokens that the first plays of samples that the second plays too; second_played likewise.
        common_share: Σ min(M_a / T_a, M_b / T_b), M = weight · n_tokens, T the mass of the corpus by its own pool.
    """

    samples: int
    tokens: int
    first_played: int
    second_played: int
    common_share: float


def target_warnings(names: Sequence[str], phases: Sequence[PhaseEntry]) -> list[str]:
    """Residuals are relative to a target, which the mix of groups, --mass, --new and --combine may change."""
    known = [(name, phase["target_norm"]) for name, phase in zip(names, phases, strict=True) if "target_norm" in phase]
    others = [name for name, norm in known if not math.isclose(norm, known[0][1], rel_tol=1e-6)]
    if not others:
        return []
    return [
        f"residuals of {', '.join(others)} are relative to another target than that of {known[0][0]} (another "
        "mix of groups, corpus, pool, --mass, --new or --combine), so they do not say which matches better"
    ]


def check_alike(first: Manifest, other: Manifest, grown: bool = False) -> None:
    """Refuse manifests whose samples are not windows of one corpus; from which of its documents does not matter.

    Args:
        first, other: the manifests.
        grown: whether one corpus may have files that the other has not, if it has all of that one's too.

    Raises:
        UsageError: the sentence names the difference.
    """
    refused = f"{other.directory} is not a selection from the corpus of {first.directory}"
    for what in ("tokenizer", "max_tokens", "text_field", "split_special_tokens", "tokens"):
        mine, its = first.header["corpus"].get(what), other.header["corpus"].get(what)
        if mine != its:
            raise UsageError(
                f"{refused}: its {what} is {its}, not {mine}; compare selections from one embedding run, or from runs "
                "of the same samples"
            )
    before, after = _hashes(first), _hashes(other)
    changed = [path for path in before if after.get(path, before[path]) != before[path]]
    strange, missing = [path for path in after if path not in before], [path for path in before if path not in after]
    if grown and not changed and not (strange and missing):
        return
    differences = (
        (changed, "files have other bytes"),
        (strange, "of its files are not in that corpus"),
        (missing, "files of that corpus are not in its own"),
    )
    if detail := ", ".join(f"{len(paths):,} {what} (such as {paths[0]})" for paths, what in differences if paths):
        raise UsageError(f"{refused}: {detail}; compare selections from runs of one corpus")


def _hashes(manifest: Manifest) -> dict[str, str]:
    """SHA-256 of every file of the corpus of a manifest, by its path below the root."""
    shards = manifest.shards()
    return dict(zip(shards["path"].to_pylist(), shards["sha256"].to_pylist(), strict=True))


def population_warnings(names: Sequence[str], manifests: Sequence[Manifest]) -> list[str]:
    """Selections from other pools of one corpus, or before it grew, had not the same to choose from."""
    samples = [manifest.header["totals"]["population_samples"] for manifest in manifests]
    files = [len(_hashes(manifest)) for manifest in manifests]
    if len(set(files)) > 1:
        there = zip(names, files, samples, strict=True)
        told = ", ".join(f"{name} from {counted(n, 'file')} with {counted(m, 'sample')}" for name, n, m in there)
        return [
            f"one corpus has files that another lacks: {told}; so the selections can differ where one could not choose "
            "what the other chose, and each mass is a share of its own corpus"
        ]
    if len(set(samples)) == 1:
        return []
    told = ", ".join(f"{name} from {count:,}" for name, count in zip(names, samples, strict=True))
    return [
        f"the selections were made from different samples of the corpus (pools or exclusions): {told}; so they can "
        "differ where one could not choose what the other chose"
    ]


def phase_of(manifest: Manifest, number: int) -> PhaseEntry:
    """The entry of a phase in ``manifest.json``. Raises UsageError where there is none."""
    for phase in manifest.header["phases"]:
        if phase["phase"] == number:
            return phase
    raise UsageError(f"--phase {number}: {manifest.directory} has the phases {', '.join(map(str, manifest.phases))}")


def short_names(directories: Sequence[str]) -> list[str]:
    """Paths without what they all begin with; numbered where two are the same."""
    parts = [directory.rstrip("/").split("/") for directory in directories]
    shared = 0
    while all(len(path) > shared + 1 and path[shared] == parts[0][shared] for path in parts):
        shared += 1
    names = ["/".join(path[shared:]) for path in parts]
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, 1)]


def overlaps_of(
    manifests: Sequence[Manifest], phase: int, pairs: Sequence[tuple[int, int]], progress: Progress | None
) -> list[Overlap]:
    """What each pair has in common, from one shard's samples of all at a time.

    Raises:
        VerificationError: a file of a manifest is not what its checksum says.
    """
    files = [manifest.files_by_path() for manifest in manifests]
    paths = sorted(set().union(*files))
    added = [Overlap(0, 0, 0, 0, 0.0)] * len(pairs)
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = pool.map(lambda path: _file_overlaps(manifests, files, path, phase, pairs), paths)
        for done, overlaps in enumerate(found, 1):
            added = [
                Overlap(
                    a.samples + b.samples,
                    a.tokens + b.tokens,
                    a.first_played + b.first_played,
                    a.second_played + b.second_played,
                    a.common_share + b.common_share,
                )
                for a, b in zip(added, overlaps, strict=True)
            ]
            if progress:
                progress(done, len(paths), "files")
    return added


def _file_overlaps(
    manifests: Sequence[Manifest],
    files: Sequence[dict[str, list[str]]],
    path: str,
    phase: int,
    pairs: Sequence[tuple[int, int]],
) -> list[Overlap]:
    """What pairs have in common of a file of the corpus, of which several pools may have samples."""
    chosen: list[dict[str, tuple[int, float, int]]] = []  # of each: played tokens, share of mass and tokens, by sample
    for manifest, mine in zip(manifests, files, strict=True):
        rows = [row for name in mine.get(path, []) for row in manifest.table(name, _COLUMNS).to_pylist()]
        whole = manifest.header["totals"]["population_mass"] or 1.0
        chosen.append(
            {
                row["sample_id"]: (
                    row["repeat"] * row["n_tokens"],
                    row["weight"] * row["n_tokens"] / whole,
                    row["n_tokens"],
                )
                for row in rows
                if row["phase"] == phase
            }
        )
    found = []
    for a, b in pairs:
        common = sorted(chosen[a].keys() & chosen[b].keys())
        both = [(chosen[a][name], chosen[b][name]) for name in common]
        found.append(
            Overlap(
                len(common),
                sum(mine[2] for mine, _ in both),
                sum(mine[0] for mine, its in both if its[0]),
                sum(its[0] for mine, its in both if mine[0]),
                math.fsum(min(mine[1], its[1]) for mine, its in both),
            )
        )
    return found


def _by_chance(first: Manifest, other: Manifest, mine: int, its: int) -> float | None:
    """Samples that two independent uniform draws of these sizes would share, in expectation.

    Of samples P and a part of them, a draw of m and one of n share m · n / P. None where that is not known: the
    selections are from runs of which one's are not all of the other's.
    """
    samples = [manifest.header["totals"]["population_samples"] for manifest in (first, other)]
    nested = runs_of(first) <= runs_of(other) or runs_of(other) <= runs_of(first)
    return mine * its / max(samples) if max(samples) and (nested or samples[0] == samples[1]) else None


def selections_table(names: Sequence[str], manifests: Sequence[Manifest], phases: Sequence[PhaseEntry]) -> Table:
    """Figures of each selection, a row each."""
    rows = []
    for name, manifest, phase in zip(names, manifests, phases, strict=True):
        selection = manifest.header["selection"]
        report = (selection.get("report") or {}) if phase["phase"] == 0 else {}  # measured for phase 0 alone
        effective = phase.get("effective_tokens")
        rows.append(
            [
                name,
                selection["method"],
                phase["samples"],
                phase["tokens"],
                played_tokens(manifest, phase),
                None if effective is None or not phase["tokens"] else effective / phase["tokens"],
                phase.get("residual"),
                phase.get("validation_residual"),
                phase.get("random_validation_residual"),
                report.get("gain_over_random"),
            ]
        )
    columns = [
        "selection", "method", "samples", "tokens", "played tokens", "effective share", "residual",
        "on validation", "of random picks", "coverage gain",
    ]  # fmt: skip
    return Table(title="Selections", columns=columns, rows=rows)


def overlap_table(
    names: Sequence[str],
    manifests: Sequence[Manifest],
    phases: Sequence[PhaseEntry],
    pairs: Sequence[tuple[int, int]],
    overlaps: Sequence[Overlap],
) -> Table:
    """Common samples beside what two independent uniform draws would share, and how far the masses are apart."""
    rows = []
    for (a, b), overlap in zip(pairs, overlaps, strict=True):
        mine, its = phases[a]["samples"], phases[b]["samples"]
        union = mine + its - overlap.samples
        played = [_realised(phases[i]) for i in (a, b)]  # as overlaps count them
        by_group = [_tokens_by_group(manifests[i], phases[i]) for i in (a, b)]
        rows.append(
            [
                names[a],
                names[b],
                overlap.samples,
                _by_chance(manifests[a], manifests[b], mine, its),
                overlap.samples / union if union else 0.0,
                overlap.first_played / played[0] if played[0] else 0.0,
                overlap.second_played / played[1] if played[1] else 0.0,
                max(0.0, 1 - overlap.common_share),
                overlap.tokens,
                _moved(*by_group),
            ]
        )
    columns = [
        "selection", "and", "samples in both", "by chance", "Jaccard", "of its played tokens", "of the other's",
        "distance of masses", "tokens in both", "tokens moved between groups",
    ]  # fmt: skip
    return Table(title="Overlap", columns=columns, rows=rows)


def groups_table(names: Sequence[str], manifests: Sequence[Manifest], phase: int) -> Table:
    """Share of every group in the corpus and in what each selection plays."""
    played: list[dict[str, float]] = []
    for manifest in manifests:
        drawn = manifest.realisation == "sampling"
        groups = groups_of(manifest.header, phase)
        played.append({group["group"]: group["target_mass" if drawn else "replay_tokens"] for group in groups})
    mass: dict[str, float] = {}  # share of the corpus, as the first says that knows the group, of the most files
    for manifest in sorted(manifests, key=lambda manifest: -len(_hashes(manifest))):
        whole = manifest.header["totals"]["population_mass"]
        for group in groups_of(manifest.header, phase):
            mass.setdefault(group["group"], group["population_mass"] / whole if whole else 0.0)
    ranked = sorted(mass, key=lambda name: (-mass[name], name))
    shown, rest = ranked[:_GROUPS_SHOWN], ranked[_GROUPS_SHOWN:]
    rows = [[name, mass[name], *(_share(mine, [name]) for mine in played)] for name in shown]
    if rest:
        rows.append([counted(len(rest), "other"), sum(mass[n] for n in rest), *(_share(mine, rest) for mine in played)])
    return Table(title="Groups, by share of the tokens played", columns=["group", "corpus", *names], rows=rows)


def _tokens_by_group(manifest: Manifest, phase: PhaseEntry) -> dict[str, float]:
    """Tokens of every group that a phase plays; of draws, as many as are expected of what was asked for."""
    groups = groups_of(manifest.header, phase["phase"])
    replay = replay_tokens(manifest.header, phase)
    if manifest.realisation != "sampling" or replay is None:
        return {group["group"]: group["replay_tokens"] for group in groups}
    mass = math.fsum(group["target_mass"] for group in groups)
    return {group["group"]: replay["requested"] * group["target_mass"] / mass if mass else 0.0 for group in groups}


def _moved(first: dict[str, float], second: dict[str, float]) -> float:
    """Half the L1 distance of tokens by group. Of as many tokens, those that are another group's."""
    groups = sorted(first.keys() | second.keys())
    return math.fsum(abs(first.get(name, 0) - second.get(name, 0)) for name in groups) / 2


def tokens_table(names: Sequence[str], manifests: Sequence[Manifest], phases: Sequence[PhaseEntry]) -> Table:
    """Tokens that each selection plays of every group, and how many more than the first does."""
    tokens = [_tokens_by_group(manifest, phase) for manifest, phase in zip(manifests, phases, strict=True)]
    moved = {
        name: max(abs(its.get(name, 0) - tokens[0].get(name, 0)) for its in tokens) for name in set().union(*tokens)
    }
    ranked = sorted(moved, key=lambda name: (-moved[name], name))
    shown, rest = ranked[:_GROUPS_SHOWN], ranked[_GROUPS_SHOWN:]
    rows: list[list[Any]] = []
    for label, mine in [*((name, [name]) for name in shown), *([(counted(len(rest), "other"), rest)] if rest else [])]:
        played = [round(math.fsum(its.get(name, 0) for name in mine)) for its in tokens]
        rows.append([label, *played, *(its - played[0] for its in played[1:])])
    columns = ["group", *names, *(f"{name} less {names[0]}" for name in names[1:])]
    return Table(title="Tokens played, by group, the most different first", columns=columns, rows=rows)


def played_tokens(manifest: Manifest, phase: PhaseEntry) -> int | None:
    """Tokens that a phase plays; of samples that a trainer draws by weight, as many as were asked for."""
    tokens = phase.get("replay_tokens")
    if tokens is None:
        return None
    return tokens["requested"] if manifest.realisation == "sampling" else tokens["realised"]


def _realised(phase: PhaseEntry) -> int:
    tokens = phase.get("replay_tokens")
    return 0 if tokens is None else tokens["realised"]


def _share(played: dict[str, float], groups: Sequence[str]) -> float | None:
    """Share of some groups in all that is played; None where a selection knows none of them."""
    if not any(name in played for name in groups):
        return None
    whole = sum(played.values())
    return sum(played.get(name, 0) for name in groups) / whole if whole else 0.0
