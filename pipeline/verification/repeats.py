"""Checks that ``repeat`` is what weights, replay budget, cap and seed make it: every count is computed again."""

import math
from collections.abc import Iterator

import numpy as np

from cptsel.pipeline.artifacts.manifest import MANIFEST, Manifest, groups_of, replay_tokens
from cptsel.pipeline.artifacts.problems import Problems
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.sampling.repeats import Chunk, repeat_purpose
from cptsel.pipeline.spill.plays import count_repeats
from cptsel.pipeline.verification.rows import Rows
from cptsel.schemas.headers import ManifestHeader, PhaseEntry

_RELATIVE = 1e-9


def check_repeats(manifest: Manifest, rows: Rows, problems: Problems) -> None:
    """Compare the counts of every phase and group with those that ``select`` computes from the header and the weights.

    Args:
        manifest: with totals and target masses that are already known to be right.
        rows: all of its samples, every sample_id of which is one.
        problems: what is wrong is added to it.
    """
    if manifest.realisation != "repeat":
        return  # every row has repeat 1, which check_samples checks
    header = manifest.header
    seed, mass = header["selection"]["options"].get("seed"), header["totals"]["population_mass"]
    if not isinstance(seed, int):
        problems.add(MANIFEST, None, "selection.options has no seed, so repeats can't be computed again")
    elif not mass > 0:
        problems.add(MANIFEST, None, f"totals.population_mass is {mass}, so repeats can't be computed again")
    else:
        for phase in header["phases"]:
            _check_phase(header, phase, seed, rows, problems)


def _check_phase(header: ManifestHeader, phase: PhaseEntry, seed: int, rows: Rows, problems: Problems) -> None:
    """Hold the counts of one phase against new ones, and the tokens that the cap leaves over."""
    number, replay = phase["phase"], replay_tokens(header, phase)
    if replay is None:
        return  # check_totals reports it
    there = {group for phase_of, group in rows.cells if phase_of == number}
    groups = [entry for entry in groups_of(header, number) if entry["group"] in there]
    if not groups:
        return
    # The terms and their order are those of selection/outcome/weighting.py: counts may depend on the last bit.
    target = np.array([entry["target_mass"] for entry in groups])
    shares = replay["requested"] * (target / header["totals"]["population_mass"])
    places = {entry["group"]: place for place, entry in enumerate(groups)}
    # Cells of other phases have no row here, whatever their group.
    group = np.array([places.get(name, 0) for _, name in rows.cells], np.int64)

    def chunks() -> Iterator[Chunk]:
        return (Chunk(part["cell"], part["weight"], part["n_tokens"]) for part in rows.of_phase(number))

    u = np.concatenate([uniform(seed, repeat_purpose(number), [entry["group"]]) for entry in groups])
    ids, cap = rows.column(number, ["high", "low"]), header["weighting"]["max_repeats"]
    expected, shortfall = count_repeats(chunks, group, shares, cap, ids, u, rows.part_rows)
    seen = 0
    for name, _, part in rows.by_file():
        mine = np.flatnonzero(part["phase"] == number)
        counts = part["repeat"].copy()
        counts[mine] = expected.read(seen, seen + len(mine))
        seen += len(mine)
        for right in np.unique(counts[counts != part["repeat"]]).tolist():
            wrong = (counts == right) & (part["repeat"] != right)
            what = "repeat is {}, but its weight, the replay tokens and the seed make it"
            problems.add_rows(name, wrong, f"{what} {right}", part["repeat"])
    found = math.fsum(shortfall)
    if not math.isclose(replay["shortfall"], found, rel_tol=0, abs_tol=_RELATIVE * max(replay["requested"], 1)):
        what = f"replay_tokens.shortfall of phase {number} is {replay['shortfall']}, but the cap leaves {found}"
        problems.add(MANIFEST, None, what)
