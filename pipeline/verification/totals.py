"""Checks of what a manifest's samples add up to: by shard, group, phase and in all."""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pyarrow as pa

from cptsel.pipeline.artifacts.manifest import MANIFEST, SHARDS, Manifest, groups_of, replay_tokens, required_features
from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.verification.ranks import check_ranks
from cptsel.pipeline.verification.repeats import check_repeats
from cptsel.pipeline.verification.rows import Rows
from cptsel.schemas.headers import ManifestHeader

RELATIVE = 1e-9  # for sums of float64: correctly rounded here, and nearly so where they were written


@dataclass
class Tally:
    """What some rows add up to; ``mass`` as parts whose exact sum is taken at the end."""

    samples: int = 0
    tokens: int = 0
    plays: int = 0
    replay_tokens: int = 0
    mass: list[float] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.samples += other.samples
        self.tokens += other.tokens
        self.plays += other.plays
        self.replay_tokens += other.replay_tokens
        self.mass += other.mass


@dataclass
class Totals:
    """Tallies over all files, and what can be checked only after the last one."""

    rows: Rows
    cells: dict[tuple[int, str], Tally] = field(default_factory=lambda: defaultdict(Tally))
    shards: dict[int, Tally] = field(default_factory=lambda: defaultdict(Tally))
    factors: list[tuple[str, int, int, float]] = field(default_factory=list)  # file, phase, row, loss_weight / weight


def add_file(name: str, shard_id: int, table: pa.Table, totals: Totals) -> None:
    """Add one file to the totals."""
    n_tokens, repeat = table["n_tokens"].to_numpy().astype(np.int64), table["repeat"].to_numpy().astype(np.int64)
    weight, factor, phase = (table[name].to_numpy() for name in ("weight", "loss_weight", "phase"))
    totals.shards[shard_id].add(Tally())
    for cell, mine in totals.rows.add(name, table).items():
        tally = Tally(
            int(mine.sum()),
            int(n_tokens[mine].sum()),
            int(repeat[mine].sum()),
            int((repeat * n_tokens)[mine].sum()),
            [math.fsum((weight * n_tokens)[mine])],
        )
        totals.cells[cell].add(tally)
        totals.shards[shard_id].add(tally)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((weight == 0) & (factor == 0), np.nan, factor / weight)
    for number in np.unique(phase).tolist():  # if the least and the largest of a file are right, all are
        mine = np.flatnonzero((phase == number) & ~np.isnan(ratio))
        for row in {int(mine[pick(ratio[mine])]) for pick in (np.argmin, np.argmax) if len(mine)}:
            totals.factors.append((name, number, row, float(ratio[row])))


def check_totals(manifest: Manifest, shards: dict[int, dict[str, Any]], totals: Totals, problems: Problems) -> None:
    """Compare shards.parquet and manifest.json with all rows; if they are right, check what is computed from them."""
    before = problems.total
    _check_shards(shards, totals, problems)
    _check_groups(manifest.header, totals, problems)
    _check_whole(manifest.header, shards, totals, problems)
    _check_features(manifest, problems)
    if problems.total == before:
        check_ranks(manifest, totals.rows, problems)
        _check_loss_weights(manifest, totals, problems)
        _check_replay_tokens(manifest, totals, problems)
        if totals.rows.named:
            check_repeats(manifest, totals.rows, problems)


def _check_loss_weights(manifest: Manifest, totals: Totals, problems: Problems) -> None:
    """loss_weight = weight · Σ n_tokens / Σ (weight · n_tokens), over all samples of the phase."""
    if manifest.realisation not in {"repeat", "loss"}:
        return  # every row has loss_weight 1, which check_samples checks
    for phase in manifest.phases:
        cells = [tally for (number, _), tally in totals.cells.items() if number == phase]
        mass = math.fsum(part for tally in cells for part in tally.mass)
        scale = sum(tally.tokens for tally in cells) / mass if mass else math.nan
        for name, number, row, ratio in totals.factors:
            if number == phase and not math.isclose(ratio, scale, rel_tol=RELATIVE):
                problems.add(name, row, f"loss_weight is {ratio:.12g} times weight, not {scale:.12g} times")


def _compare(problems: Problems, file: str, row: int | None, what: str, said: Any, found: Any) -> None:
    same = math.isclose(said, found, rel_tol=RELATIVE) if isinstance(found, float) else said == found
    if not same:
        problems.add(file, row, f"{what} is {said}, but the rows add up to {found}")


def _check_shards(shards: dict[int, dict[str, Any]], totals: Totals, problems: Problems) -> None:
    """The selected columns of shards.parquet are what the samples add up to."""
    for row, (shard_id, shard) in enumerate(shards.items()):
        tally = totals.shards.get(shard_id, Tally())
        for key, found in (
            ("selected_samples", tally.samples),
            ("selected_tokens", tally.tokens),
            ("selected_mass", math.fsum(tally.mass)),
            ("replay_tokens", tally.replay_tokens),
        ):
            _compare(problems, SHARDS, row, f"{key} of shard {shard_id}", shard[key], found)


def _check_groups(header: ManifestHeader, totals: Totals, problems: Problems) -> None:
    """Groups and phases of manifest.json: counts, and Σ weight · n_tokens = target mass."""
    for entry in header["groups"]:
        phase, group = entry.get("phase", 0), entry["group"]
        tally = totals.cells.get((phase, group), Tally())
        for key, said, found in (
            ("selected_samples", entry["selected_samples"], tally.samples),
            ("selected_tokens", entry["selected_tokens"], tally.tokens),
            ("replay_tokens", entry["replay_tokens"], tally.replay_tokens),
            ("target_mass", entry["target_mass"], math.fsum(tally.mass)),
        ):
            _compare(problems, MANIFEST, None, f"{key} of group {group!r} of phase {phase}", said, found)
    _check_population(header, problems)
    for of_phase in header["phases"]:
        mine = [tally for (number, _), tally in totals.cells.items() if number == of_phase["phase"]]
        for key, said, found in (
            ("samples", of_phase["samples"], sum(t.samples for t in mine)),
            ("tokens", of_phase["tokens"], sum(t.tokens for t in mine)),
        ):
            _compare(problems, MANIFEST, None, f"{key} of phase {of_phase['phase']}", said, found)


def _check_population(header: ManifestHeader, problems: Problems) -> None:
    """The groups of every phase divide the whole population, and their target masses its mass T."""
    said = header["totals"]
    for phase in sorted({entry.get("phase", 0) for entry in header["groups"]}):
        groups = groups_of(header, phase)
        for key, whole in (
            ("population_samples", said["population_samples"]),
            ("population_tokens", said["population_tokens"]),
            ("population_mass", said["population_mass"]),
            ("target_mass", said["population_mass"]),
        ):
            found = math.fsum(cast(float, dict(entry)[key]) for entry in groups)
            if not math.isclose(found, whole, rel_tol=RELATIVE):
                problems.add(MANIFEST, None, f"{key} of the groups of phase {phase} add up to {found}, not to {whole}")


def _check_whole(header: ManifestHeader, shards: dict[int, dict[str, Any]], totals: Totals, problems: Problems) -> None:
    """Totals of manifest.json are what the samples and shards add up to."""
    whole = Tally()
    for tally in totals.cells.values():
        whole.add(tally)
    said = header["totals"]
    found_totals: dict[str, int | float] = {
        "selected_samples": whole.samples,
        "selected_tokens": whole.tokens,
        "replay_tokens": whole.replay_tokens,
        "plays": whole.plays,
    }
    for key in ("population_samples", "population_tokens"):
        found_totals[key] = sum(shard[key] for shard in shards.values())
    found_totals["population_mass"] = math.fsum(shard["population_mass"] for shard in shards.values())
    for key, found in found_totals.items():
        _compare(problems, MANIFEST, None, f"totals.{key}", dict(said)[key], found)
    realised = header["weighting"]["replay_tokens"]["realised"]
    _compare(problems, MANIFEST, None, "weighting.replay_tokens.realised", realised, whole.replay_tokens)


def _check_features(manifest: Manifest, problems: Problems) -> None:
    """required_features lists what the realisation and the corpus need, and nothing else."""
    said = manifest.header["required_features"]
    needed = sorted(required_features(manifest.realisation, manifest.of_ids))
    if sorted(said) != needed:
        what = f"required_features is {said}, but realisation {manifest.realisation!r} needs {needed}"
        problems.add(MANIFEST, None, what)


def _check_replay_tokens(manifest: Manifest, totals: Totals, problems: Problems) -> None:
    """The replay tokens of every phase are those of its samples, and all phases together are the weighting's."""
    header = manifest.header
    parts = {phase["phase"]: replay_tokens(header, phase) for phase in header["phases"]}
    for number, replay in parts.items():
        if replay is None:
            problems.add(MANIFEST, None, f"phase {number} has no replay_tokens")
            continue
        tokens = sum(tally.replay_tokens for (phase, _), tally in totals.cells.items() if phase == number)
        _compare(problems, MANIFEST, None, f"replay_tokens.realised of phase {number}", replay["realised"], tokens)
        if manifest.realisation in {"loss", "none"} and replay["requested"] != replay["realised"]:
            what = (
                f"replay_tokens.requested of phase {number} is {replay['requested']}, but every sample is played once"
            )
            problems.add(MANIFEST, None, f"{what}: {replay['realised']} tokens")
        if manifest.realisation != "repeat" and replay["shortfall"]:
            what = f"replay_tokens.shortfall of phase {number} is {replay['shortfall']}, but there is no cap"
            problems.add(MANIFEST, None, what)
        _check_shares(header, number, replay["requested"], problems)
    whole = header["weighting"]["replay_tokens"]
    there = [replay for replay in parts.values() if replay is not None]
    for key, said, found in (  # realised is compared with the rows, above
        ("requested", whole["requested"], math.fsum(replay["requested"] for replay in there)),
        ("shortfall", whole["shortfall"], math.fsum(replay["shortfall"] for replay in there)),
    ):
        if not math.isclose(said, found, rel_tol=RELATIVE, abs_tol=RELATIVE):
            problems.add(MANIFEST, None, f"weighting.replay_tokens.{key} is {said}, but the phases add up to {found}")


def _check_shares(header: ManifestHeader, phase: int, requested: int, problems: Problems) -> None:
    """The replay tokens of a phase are divided by target mass, where the groups say how."""
    mass = header["totals"]["population_mass"]
    for entry in groups_of(header, phase):
        if "replay_requested" in entry and mass > 0:
            said, share = entry["replay_requested"], requested * (entry["target_mass"] / mass)
            if not math.isclose(said, share, rel_tol=RELATIVE, abs_tol=RELATIVE):
                what = (
                    f"replay_requested of group {entry['group']!r} of phase {phase} is {said}, but its share is {share}"
                )
                problems.add(MANIFEST, None, what)
