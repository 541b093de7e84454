"""What a report says of one selection, before any of it is HTML."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cptsel.pipeline.artifacts.damage import manifest_warnings
from cptsel.pipeline.artifacts.manifest import Manifest, groups_of, replay_tokens
from cptsel.pipeline.artifacts.texts import WINDOW_COLUMNS
from cptsel.pipeline.engine.progress import Progress
from cptsel.pipeline.reporting.overlap import played_tokens
from cptsel.pipeline.reporting.population import Population
from cptsel.schemas.headers import Group, PhaseEntry

_COLUMNS = [
    "sample_id", "shard_id", *WINDOW_COLUMNS, "n_tokens", "weight", "repeat", "phase", "group", "grad_norm",
]  # fmt: skip
_EFFECTIVE, _CUT, _NOISE = 0.5, 0.05, 2.0  # as select warns by


@dataclass(frozen=True)
class GroupShares:
    """What a group is of the corpus, and of the selection.

    Attributes:
        name: of the group.
        corpus: its share of the corpus, by tokens.
        target: the share that it is to stand for; None where the choice was not made by these groups.
        chosen: its share of the chosen tokens.
        played: its share of the tokens that a trainer plays.
        samples: how many were chosen.
    """

    name: str
    corpus: float
    target: float | None
    chosen: float
    played: float
    samples: int


@dataclass(frozen=True, eq=False)
class Facts:
    """One selection.

    Attributes:
        name: what it is called on the page.
        manifest: the manifest.
        phase: the entry of the phase that is shown.
        method: the method in words; empty where it is not known.
        picks: samples of the phase: locators, ``weight``, ``repeat``, ``group``, ``grad_norm``, and with a population
            ``loss`` and, where it is known, ``rise``.
        shares: of groups, by falling share of the corpus.
        group_by: the column that groups are by, None where all samples are one group.
    """

    name: str
    manifest: Manifest
    phase: PhaseEntry
    method: str
    picks: pa.Table
    shares: tuple[GroupShares, ...]
    group_by: str | None

    @property
    def groups(self) -> list[Group]:
        """What the manifest says of the groups of the phase."""
        return groups_of(self.manifest.header, self.phase["phase"])

    @property
    def played(self) -> int | None:
        """Tokens that an epoch of the phase plays."""
        found = played_tokens(self.manifest, self.phase)
        tokens = replay_tokens(self.manifest.header, self.phase)
        return found if found is not None or tokens is None else tokens["realised"]

    @property
    def report(self) -> dict[str, Any]:
        """What the method said of its choice; that was measured for phase 0 alone."""
        return (self.manifest.header["selection"].get("report") or {}) if self.phase["phase"] == 0 else {}

    def column(self, name: str) -> np.ndarray | None:
        """A column of the picks as floats, None where it is not known."""
        return self.picks[name].to_numpy().astype(np.float64) if name in self.picks.schema.names else None


def read_picks(manifest: Manifest, phase: PhaseEntry, progress: Progress | None = None) -> pa.Table:
    """All samples of a phase, by shard and row.

    Raises:
        VerificationError: a file of the manifest is not what its checksum says.
    """
    tables, files = [], manifest.sample_files()
    for done, name in enumerate(files.values(), 1):
        table = manifest.table(name, _COLUMNS)
        table = table.filter(pc.equal(table["phase"], phase["phase"]))
        group = table.schema.get_field_index("group")
        tables.append(table.set_column(group, "group", table["group"].cast(pa.string())))
        if progress:
            progress(done, len(files), "samples files")
    if not tables:
        types = {"sample_id": pa.string(), "group": pa.string(), "content_hash": pa.binary(16)}
        return pa.table({name: pa.array([], types.get(name, pa.int64())) for name in _COLUMNS})
    return pa.concat_tables(tables).combine_chunks()


def numbered_as(picks: pa.Table, manifest: Manifest, other: Manifest) -> pa.Table:
    """Picks of a manifest with the shard_ids that another of the same corpus has.

    Of pools of one corpus, which have a shard of each file, the number is that of the first.
    """
    first: dict[str, int] = {}
    for shard_id, path in zip(*(other.shards()[name].to_pylist() for name in ("shard_id", "path")), strict=True):
        first.setdefault(path, shard_id)
    paths = dict(zip(*(manifest.shards()[name].to_pylist() for name in ("shard_id", "path")), strict=True))
    place = picks.schema.get_field_index("shard_id")
    numbers = pa.array(
        [first[paths[number]] for number in picks["shard_id"].to_pylist()], picks.schema.field(place).type
    )
    return picks.set_column(place, picks.schema.field(place), numbers)


def facts_of(name: str, manifest: Manifest, phase: PhaseEntry, method: str, picks: pa.Table) -> Facts:
    """Facts of a selection, from its manifest and its picks alone.

    Args:
        name: what it is called on the page.
        manifest: the manifest; phase: one of its phases.
        method: the method in words.
        picks: what ``read_picks`` gives.
    """
    groups = groups_of(manifest.header, phase["phase"])
    draws = manifest.realisation == "sampling"
    mass, target = (math.fsum(group[key] for group in groups) for key in ("population_mass", "target_mass"))
    tokens = sum(group["selected_tokens"] for group in groups)
    played = target if draws else sum(group["replay_tokens"] for group in groups)
    shares = [
        GroupShares(
            group["group"],
            _share(group["population_mass"], mass),
            _share(group["target_mass"], target),
            _share(group["selected_tokens"], tokens),
            _share(group["target_mass"] if draws else group["replay_tokens"], played),
            group["selected_samples"],
        )
        for group in groups
    ]
    group_by = manifest.header["selection"]["options"].get("group_by")
    return Facts(name, manifest, phase, method, picks, _ranked(shares), group_by)


def with_population(facts: Facts, population: Population, selection: int) -> Facts:
    """The same facts, with what the embedding runs tell of the picks.

    Where the choice was not made by groups, the groups of the run take the place of the one of all.

    Args:
        facts: of a selection.
        population: its population.
        selection: which of the population's selections it is.
    """
    rows = population.rows.filter(pa.array(population.chosen(selection)))
    place = pc.index_in(facts.picks["sample_id"], value_set=rows["sample_id"].combine_chunks())
    mine = rows.take(place)  # a pick that the run does not have gives nulls
    picks = facts.picks
    for name in ("loss", "rise"):
        if name in mine.schema.names:
            picks = picks.append_column(name, mine[name])
    facts = replace(facts, picks=picks)
    if facts.group_by is not None or population.group_by is None:
        return facts
    group = picks.schema.get_field_index("group")
    picks = picks.set_column(group, "group", mine["group"].fill_null("(not in the run)"))
    shares = _counted_shares(picks, population.mass, facts.manifest.realisation)
    return replace(facts, picks=picks, shares=shares, group_by=population.group_by)


def _counted_shares(picks: pa.Table, mass: dict[str, float], realisation: str) -> tuple[GroupShares, ...]:
    """Shares by groups that the choice does not know of."""
    names, codes = np.unique(np.asarray(picks["group"].to_pylist(), object), return_inverse=True)
    tokens = picks["n_tokens"].to_numpy().astype(np.float64)
    times = picks["weight" if realisation == "sampling" else "repeat"].to_numpy()
    sums = [
        np.bincount(codes, values, minlength=len(names)) for values in (tokens, tokens * times, np.ones(len(codes)))
    ]
    found = {str(name): [float(values[place]) for values in sums] for place, name in enumerate(names)}
    whole = [float(values.sum()) for values in sums]
    corpus = sum(mass.values())
    shares = []
    for name in sorted(mass.keys() | found.keys()):
        chosen, played, samples = found.get(name, [0.0, 0.0, 0.0])
        shares.append(
            GroupShares(
                name,
                _share(mass.get(name, 0.0), corpus),
                None,
                _share(chosen, whole[0]),
                _share(played, whole[1]),
                int(samples),
            )
        )
    return _ranked(shares)


def _ranked(shares: Sequence[GroupShares]) -> tuple[GroupShares, ...]:
    return tuple(sorted(shares, key=lambda share: (-share.corpus, share.name)))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def warnings_of(facts: Facts) -> list[str]:
    """What a reader of the manifest should know before using it, a sentence each."""
    header, phase = facts.manifest.header, facts.phase
    found = manifest_warnings(header)
    replay = replay_tokens(header, phase)
    if replay is not None and replay["shortfall"] >= 1:
        found.append(
            f"{replay['shortfall']:,.0f} of {replay['requested']:,} replay tokens can't be played: samples are at the "
            f"cap of {header['weighting']['max_repeats']} repeats"
        )
    cut = sum(group.get("cut_tokens", 0.0) for group in facts.groups)
    if replay is not None and cut > _CUT * replay["requested"]:
        found.append(
            f"weights ask for {cut:,.0f} of the {replay['requested']:,} replay tokens beyond the cap of "
            f"{header['weighting']['max_repeats']} repeats, and other samples are played instead"
        )
    effective = phase.get("effective_tokens")
    if effective is not None and facts.manifest.realisation != "none" and effective < _EFFECTIVE * phase["tokens"]:
        found.append(
            f"weights leave only {effective:,.0f} of the {phase['tokens']:,} chosen tokens effective: a few samples "
            "count for many others"
        )
    if facts.report.get("ridges") and phase.get("target_norm", 0.0) < _NOISE * phase.get("target_noise", 0.0):
        found.append("the sum of all gradients is hardly longer than its sampling noise, so matching it says little")
    empty = sum(share.samples == 0 for share in facts.shares)
    if empty:
        found.append(f"{empty:,} of {len(facts.shares):,} groups have no chosen sample")
    return found
