"""The methods of ``select``: the one place where they are listed.

A new method is a kernel and an entry here; the command's help, its choices and checks, docs/methods.md and the tests go
by this table. What the families do with the kernels is in ``families/``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from cptsel.pipeline.kernels.coverage.craig import CraigResult, craig
from cptsel.pipeline.kernels.coverage.merge import merge
from cptsel.pipeline.kernels.matching.gradmatch import MatchResult, match
from cptsel.pipeline.kernels.sampling.draws import importance_scores, uniform_scores


@dataclass(frozen=True)
class Family:
    """A way to choose, and all that others need to know of it.

    Attributes:
        name: of the module under ``families/``.
        title: what users call it.
        needs_vectors: whether it reads gradients, and not narrow columns alone.
        has_gain: whether a pick has a gain, by which a curriculum can order.
        is_random: whether phases differ, each being a draw of its own.
    """

    name: Literal["draw", "cover", "match", "everything"]
    title: str
    needs_vectors: bool = False
    has_gain: bool = False
    is_random: bool = False


DRAW = Family("draw", "draw", is_random=True)
COVER = Family("cover", "coverage", needs_vectors=True, has_gain=True)
MATCH = Family("match", "matching", needs_vectors=True, has_gain=True)
EVERYTHING = Family("everything", "everything")


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method; its class says of which family it is.

    Attributes:
        summary: what it does, in a phrase for the help page and the table of methods.
        source: where it is from.
        implies: options of the configuration that this method sets; another value for them is refused.
    """

    family: Family = field(init=False)
    summary: str
    source: str
    implies: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Draw(Method):
    """At random by scores.

    Attributes:
        scores: of columns of the samples, (n,) float64, not negative; its second argument is ``--importance``.
        by_importance: whether it reads that.
    """

    family: Family = field(init=False, default=DRAW)
    scores: Callable[[Mapping[str, np.ndarray], str], np.ndarray] = uniform_scores
    by_importance: bool = False


@dataclass(frozen=True, kw_only=True)
class Cover(Method):
    """By vectors; every sample's mass goes to the pick that stands for it.

    Attributes:
        kernel: chooses from one cell.
        merge: chooses from the candidates of several parts.
        settings: arguments of both that make it this method.
    """

    family: Family = field(init=False, default=COVER)
    kernel: Callable[..., CraigResult] = craig
    merge: Callable[..., CraigResult] = merge
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Match(Method):
    """The sum of gradients is matched by a weighted few.

    Attributes:
        kernel: chooses from one cell, or from the candidates of several parts.
        even: whether all weights are equal.
    """

    family: Family = field(init=False, default=MATCH)
    kernel: Callable[..., MatchResult] = match
    even: bool = False


@dataclass(frozen=True, kw_only=True)
class Everything(Method):
    """All samples are taken."""

    family: Family = field(init=False, default=EVERYTHING)


METHODS: dict[str, Method] = {
    "uniform": Draw(summary="draws at random", source="baseline"),
    "full": Everything(summary="takes everything", source="baseline", implies={"budget": "100%"}),
    "temperature": Draw(
        summary="draws at random from groups whose shares are tempered by --group-alpha",
        source="Conneau et al. 2020 (XLM-R)",
        implies={"group_mass": None},
    ),
    "mix-review": Draw(summary="draws like uniform, anew for every phase and fewer each time", source="He et al. 2021"),
    "importance": Draw(
        summary="draws samples by the length of their gradient, or by their loss",
        source="Katharopoulos & Fleuret 2018",
        scores=importance_scores,
        by_importance=True,
    ),
    "interference": Draw(
        summary="draws samples by how much the new domain raises their loss",
        source="Aljundi et al. 2019 (MIR), offline",
        implies={"mass": "interference"},
    ),
    "craig": Cover(
        summary="covers all gradients by facility location; each pick weighs what it stands for",
        source="Mirzasoleiman et al. 2020",
    ),
    "kmedoids": Cover(
        summary="covers like craig, and refines the choice until no medoid moves",
        source="Kaufman & Rousseeuw 1987; Park & Jun 2009",
        settings={"refine": None},
    ),
    "gradmatch": Match(
        summary="matches the sum of all gradients with a few weighted samples (non-negative OMP)",
        source="Killamsetty et al. 2021",
    ),
    "gradmatch-batch": Match(
        summary="matches like gradmatch, with mini-batches of consecutive samples",
        source="Killamsetty et al. 2021 (per-batch variant)",
        implies={"unit": "batch"},
    ),
    "gradient-coreset": Match(
        summary="matches the sum of all gradients with equal weights",
        source="Balles et al. 2022",
        even=True,
    ),
}
