"""Checks that ``repeat`` is what weights, replay budget, cap and seed make it: every count is computed again."""

import math
from dataclasses import dataclass

import numpy as np

from cptsel.pipeline.artifacts.manifest import MANIFEST, Manifest, groups_of, replay_tokens
from cptsel.pipeline.artifacts.problems import KEPT, Problem, Problems
from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.sampling.repeats import (
    Chunk,
    capped_rates,
    repeat_purpose,
    replay_scales,
    systematic_repeats,
)
from cptsel.schemas.headers import ManifestHeader, PhaseEntry

_RELATIVE = 1e-9


@dataclass(frozen=True, eq=False)
class Played:
    """The samples of one file that are of one phase and group.

    ``rows`` (m,) int64 in ``file``, ``ids`` (m, 2) uint64 the sample_id as two big-endian halves, ``weight`` (m,)
    float64, ``n_tokens`` and ``repeat`` (m,) int64.
    """

    file: str
    rows: np.ndarray
    ids: np.ndarray
    weight: np.ndarray
    n_tokens: np.ndarray
    repeat: np.ndarray


def check_repeats(manifest: Manifest, played: dict[tuple[int, str], list[Played]], problems: Problems) -> None:
    """Compare the counts of every phase and group with those that ``select`` computes from the header and the weights.

    Args:
        manifest: with totals and target masses that are already known to be right.
        played: by (phase, group), its samples, file by file.
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
            _check_phase(header, phase, seed, played, problems)


def _check_phase(
    header: ManifestHeader,
    phase: PhaseEntry,
    seed: int,
    played: dict[tuple[int, str], list[Played]],
    problems: Problems,
) -> None:
    number, replay = phase["phase"], replay_tokens(header, phase)
    if replay is None:
        return  # check_totals reports it
    shortfall = 0.0
    for entry in groups_of(header, number):
        parts = played.get((number, entry["group"]), [])
        if parts:
            # The terms and their order are those of selection/outcome/weighting.py: counts may depend on the last bit.
            share = replay["requested"] * (entry["target_mass"] / header["totals"]["population_mass"])
            (u,) = uniform(seed, repeat_purpose(number), [entry["group"]])
            shortfall += _check_group(parts, share, float(u), header["weighting"]["max_repeats"], problems)
    if not math.isclose(replay["shortfall"], shortfall, rel_tol=0, abs_tol=_RELATIVE * max(replay["requested"], 1)):
        what = f"replay_tokens.shortfall of phase {number} is {replay['shortfall']}, but the cap leaves {shortfall}"
        problems.add(MANIFEST, None, what)


def _check_group(parts: list[Played], tokens: float, u: float, cap: int, problems: Problems) -> float:
    """Hold the counts of one group against new ones; returns the tokens that the cap leaves over."""
    ids, weight, n_tokens = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "weight", "n_tokens")
    )
    members = np.lexsort((ids[:, 1], ids[:, 0]))
    cell = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])
    scales = replay_scales(
        lambda: [Chunk(cell, weight, n_tokens)], np.zeros(len(parts), np.int64), np.array([tokens]), cap
    )
    repeat = np.empty(len(weight), np.int32)
    repeat[members], _ = systematic_repeats(capped_rates(weight[members], scales.scale[0], cap), u)
    start = 0
    for part in parts:
        expected = repeat[start : start + len(part.rows)]
        start += len(part.rows)
        wrong = np.flatnonzero(part.repeat != expected)
        problems.total += len(wrong)
        for index in wrong[:KEPT].tolist():
            what = f"repeat is {part.repeat[index]}, but its weight, the replay tokens and the seed make it"
            problems.kept.append(Problem(part.file, int(part.rows[index]), f"{what} {expected[index]}"))
    return float(scales.shortfall[0])
