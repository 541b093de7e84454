"""Checks that ``repeat`` is what weights, replay budget, cap and seed make it: every count is computed again."""

from dataclasses import dataclass

import numpy as np

from cptsel.pipeline.hashing import uniform
from cptsel.pipeline.kernels.repeats import replay_rates, systematic_repeats
from cptsel.pipeline.manifest import MANIFEST, Manifest
from cptsel.pipeline.problems import KEPT, Problem, Problems


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


def check_repeats(manifest: Manifest, played: dict[str, list[Played]], problems: Problems) -> None:
    """Hold the counts of every group against those that ``select`` computes from the header and the weights.

    Only for realisation ``repeat`` and one phase: how several phases share the replay budget is not in the header.

    Args:
        manifest: with totals and target masses that are already known to be right.
        played: by group, its samples, file by file.
    """
    header = manifest.header
    replay, cap = header["weighting"]["replay_tokens"], header["weighting"]["max_repeats"]
    if header["weighting"]["realisation"] != "repeat" or len(manifest.phases) != 1:
        return
    seed = header["selection"]["options"].get("seed")
    if not isinstance(seed, int):
        problems.add(MANIFEST, None, "selection.options has no seed, so repeats can't be computed again")
        return
    mass = header["totals"]["population_mass"]
    if not mass > 0:
        problems.add(MANIFEST, None, f"totals.population_mass is {mass}, so repeats can't be computed again")
        return
    shortfall = 0.0
    for entry in header["groups"]:
        parts = played.get(entry["group"], [])
        if not parts:
            continue
        ids, weight, n_tokens = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "weight", "n_tokens")
        )
        order = np.lexsort((ids[:, 1], ids[:, 0]))
        # Term for term as in selection.weighting, for the counts hang on the last bit.
        target = replay["requested"] * (entry["target_mass"] / mass)
        with np.errstate(divide="ignore", invalid="ignore"):  # a weight may be 0
            rates = replay_rates(weight[order], n_tokens[order], target, cap)
        shortfall += rates.shortfall
        (u,) = uniform(seed, "repeat", [entry["group"]])
        repeat = np.empty(len(order), dtype=np.int64)
        repeat[order] = systematic_repeats(rates.x, float(u))
        _compare(parts, repeat, problems)
    if abs(replay["shortfall"] - shortfall) > 1e-9 * max(replay["requested"], 1):
        said = replay["shortfall"]
        problems.add(MANIFEST, None, f"weighting.replay_tokens.shortfall is {said}, and the cap leaves {shortfall}")


def _compare(parts: list[Played], repeat: np.ndarray, problems: Problems) -> None:
    start = 0
    for part in parts:
        expected = repeat[start : start + len(part.rows)]
        start += len(part.rows)
        wrong = np.flatnonzero(part.repeat != expected)
        problems.total += len(wrong)
        for index in wrong[:KEPT].tolist():
            what = f"repeat is {part.repeat[index]}, and its weight, the replay tokens and the seed make it"
            problems.kept.append(Problem(part.file, int(part.rows[index]), f"{what} {expected[index]}"))
