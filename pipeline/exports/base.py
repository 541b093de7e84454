"""What an export format must be able to do. One file a format; ``registry.py`` lists them.

The help page reads the registry, so formats import what needs Beam where they use it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from cptsel.pipeline.artifacts.manifest import Manifest

#: How near training on the files alone comes to the manifest: the same samples, weights and order; the order of shards
#: only; the weights in expectation.
Fidelity = Literal["exact", "shard-level", "expectation-only"]

#: A play of a sample: text, id, sample_id, group, weight, loss_weight (what is left to multiply its loss by), repeat
#: (which of its plays), shard and row.
Record = dict[str, Any]

_INSTRUCTIONS = {
    "repeat": "play every {unit} once, in the order of the files; the repeats are already there",
    "loss": "play every {unit} once, in the order of the files, and multiply its token losses by its loss_weight",
    "sampling": "draw {unit}s with replacement, with probability in proportion to weight, until {tokens} are played",
    "none": "play every {unit} once, in the order of the files; weights are ignored",
}


class ExportFormat(ABC):
    """How plays become files. It has no state.

    Attributes:
        name: in ``--to`` and in ``export.json``.
        summary: a phrase for the help page.
        suffix: of its files, which lie below ``data/``.
        unit: what a play is in a file.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    suffix: ClassVar[str]
    unit: ClassVar[str] = "line"

    @abstractmethod
    def write(self, path: str, records: Iterable[Record]) -> tuple[str, int]:
        """Write one file of plays in their order, atomically; equal records give equal bytes.

        Returns:
            SHA-256, in hex, and size in bytes.
        """

    def fidelity(self, manifest: "Manifest") -> Fidelity:
        """How near training by the instructions comes to the manifest."""
        return "expectation-only" if manifest.realisation == "sampling" else "exact"

    def instructions(self, manifest: "Manifest") -> str:
        """What the trainer does with the files; of draws, how many tokens each phase wants."""
        from cptsel.pipeline.artifacts.manifest import replay_tokens

        if manifest.realisation != "sampling":
            return _INSTRUCTIONS[manifest.realisation].format(unit=self.unit)
        phases = {entry["phase"]: replay_tokens(manifest.header, entry) for entry in manifest.header["phases"]}
        asked = [(number, phases[number]) for number in manifest.phases]
        tokens = [f"{replay['requested']:,} tokens (phase {number})" for number, replay in asked if replay is not None]
        return _INSTRUCTIONS["sampling"].format(unit=self.unit, tokens=" and ".join(tokens))
