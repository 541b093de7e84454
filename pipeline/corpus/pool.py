"""The candidate pool: which documents of a corpus are read at all, decided by their names before they are decoded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from cptsel.pipeline import hashing

PURPOSE = "pool"


class Range(NamedTuple):
    """Variates in (start, start + rate] are in: ``rate`` is the probability of a document of the group."""

    start: float
    rate: float


ALL = Range(0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Pool:
    """A Poisson sample of documents: document d of group g is in when start_g < u(seed, d) ≤ start_g + rate_g.

    Every document is drawn by itself, by a uniform variate of its name, so that no worker needs another, pools of one
    seed nest as their ranges do, and Σ x / rate over a pool is an unbiased estimate of Σ x over the corpus (Horvitz and
    Thompson 1952).

    Attributes:
        seed: of the variates.
        whole: range of the documents of any group that ``groups`` does not name.
        by: group column by which ranges differ; None where they do not.
        groups: ranges by the value of that column.
    """

    seed: int = 0
    whole: Range = ALL
    by: str | None = None
    groups: Mapping[str | None, Range] = field(default_factory=lambda: MappingProxyType({}))

    def variate(self, path: str, row_index: int) -> float:
        """u of a document, in (0, 1]."""
        return hashing.variate(self.seed, PURPOSE, hashing.doc_key(path, row_index))

    def may_hold(self, variate: float) -> bool:
        """Whether a document with this variate is in, as far as that can be said without its group."""
        return any(start < variate <= start + rate for start, rate in (self.whole, *self.groups.values()))

    def place(self, path: str, row_index: int, group: str | None) -> float | None:
        """Where a document stands in the pool, in (0, 1], by how much the pool could shrink; None where it is out."""
        start, rate = self.range_of(group)
        variate = self.variate(path, row_index)
        return (variate - start) / rate if start < variate <= start + rate else None

    def range_of(self, group: str | None) -> Range:
        """The range of a group."""
        return self.groups.get(group, self.whole)

    @property
    def is_all(self) -> bool:
        """Whether every document is in."""
        return self.whole == ALL and not self.groups

    def ends_before(self, other: "Pool") -> bool:
        """Whether no document can be in both, as the ranges of ``other`` begin where these end, or later."""
        names = {None, *self.groups, *other.groups}
        pairs = [(self.range_of(name), other.range_of(name)) for name in names] + [(self.whole, other.whole)]
        return all(mine.start + mine.rate <= its.start for mine, its in pairs)

    def to_json(self) -> dict[str, Any]:
        """What ``run.json`` says of it; ``seed`` stands elsewhere there."""
        return {
            "start": self.whole.start,
            "rate": self.whole.rate,
            "by": self.by,
            "groups": [[name, *self.groups[name]] for name in sorted(self.groups, key=lambda g: (g is not None, g))],
        }

    @staticmethod
    def from_json(seed: int, value: Mapping[str, Any] | None) -> "Pool":
        """The pool of a run; all documents where it has none."""
        if value is None:
            return Pool(seed)
        groups = {name: Range(start, rate) for name, start, rate in value["groups"]}
        return Pool(seed, Range(value["start"], value["rate"]), value["by"], groups)
