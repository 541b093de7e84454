"""The methods of ``select``: the one place where they are listed.

A new method is a kernel and an entry here; the command's help, docs/methods.md and the tests go by this table. Nothing
heavy is imported, so that help pages stay quick: a kernel is named, and loaded when it is first called.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

#: How a method works, which is all that scopes, phases and reports need to know of it (see families.py):
#: ``draw`` at random by scores; ``cover`` by vectors, every sample's mass going to the pick that stands for it;
#: ``match`` the sum of gradients by a weighted few; ``all`` of them.
Family = Literal["draw", "cover", "match", "all"]


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        family: how it works.
        summary: what it does, in a phrase for the help page and the table of methods.
        source: where it is from.
        kernel: ``module:function`` under ``cptsel.pipeline.kernels``; of a draw the scores.
        merge: the same for the candidates of several parts, where the family has such a step.
        settings: arguments of the kernel that make it this method.
        implies: options of the configuration that this method sets; another value for them is refused.
    """

    family: Family
    summary: str
    source: str
    kernel: str = ""
    merge: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    implies: dict[str, Any] = field(default_factory=dict)

    @property
    def needs_vectors(self) -> bool:
        return self.family in ("cover", "match")

    def load(self) -> Callable[..., Any]:
        """The kernel."""
        return _load(self.kernel)

    def load_merge(self) -> Callable[..., Any]:
        """The kernel of a merge."""
        return _load(self.merge)


def _load(name: str) -> Callable[..., Any]:
    module, function = name.split(":")
    loaded: Callable[..., Any] = getattr(import_module(f"cptsel.pipeline.kernels.{module}"), function)
    return loaded


_CRAIG: dict[str, Any] = {"kernel": "coverage.craig:craig", "merge": "coverage.merge:merge"}
_MATCH: dict[str, Any] = {"kernel": "matching.gradmatch:match", "merge": "matching.gradmatch:match"}

METHODS: dict[str, Method] = {
    "uniform": Method("draw", "draws at random", "baseline", "sampling.draws:uniform_scores"),
    "full": Method("all", "takes everything", "baseline"),
    "temperature": Method(
        "draw",
        "draws at random from groups whose shares are tempered by --group-alpha",
        "Conneau et al. 2020 (XLM-R)",
        "sampling.draws:uniform_scores",
        implies={"group_mass": None},
    ),
    "mix-review": Method(
        "draw",
        "draws afresh for every phase, fewer each time",
        "He et al. 2021",
        "sampling.draws:uniform_scores",
    ),
    "importance": Method(
        "draw",
        "draws samples by the length of their gradient, or by their loss",
        "Katharopoulos & Fleuret 2018",
        "sampling.draws:importance_scores",
    ),
    "interference": Method(
        "draw",
        "draws samples by how much the new domain raises their loss",
        "Aljundi et al. 2019 (MIR), offline",
        "sampling.draws:uniform_scores",
        implies={"mass": "interference"},
    ),
    "craig": Method(
        "cover",
        "covers all gradients by facility location; each pick weighs what it stands for",
        "Mirzasoleiman et al. 2020",
        **_CRAIG,
    ),
    "kmedoids": Method(
        "cover",
        "craig, refined until no medoid moves",
        "Kaufman & Rousseeuw 1987; Park & Jun 2009",
        **_CRAIG,
        settings={"refine": None},
    ),
    "gradmatch": Method(
        "match",
        "matches the sum of all gradients by a weighted few (non-negative OMP)",
        "Killamsetty et al. 2021",
        **_MATCH,
    ),
    "gradmatch-batch": Method(
        "match",
        "gradmatch with mini-batches of consecutive samples",
        "Killamsetty et al. 2021 (per-batch variant)",
        **_MATCH,
        implies={"unit": "batch"},
    ),
    "gradient-coreset": Method(
        "match",
        "matches the sum of all gradients by equal weights",
        "Balles et al. 2022",
        **_MATCH,
        settings={"uniform_weights": True},
    ),
}
