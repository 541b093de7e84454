"""What an export format must be able to do. One file a format; ``registry.py`` lists them.

The help page reads the registry, so formats import what needs Beam where they use it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from cptsel.pipeline.exports.media import Media
from cptsel.pipeline.exports.trainers import EXAMPLE, Mix, Trainer, fill
from cptsel.pipeline.model.vocabulary import Vocabulary
from cptsel.schemas.headers import ExportFile

if TYPE_CHECKING:
    from cptsel.pipeline.artifacts.manifest import Manifest

#: How near training on the files alone comes to the manifest: the same samples, as often and in order; the order of
#: shards only; the same samples as often, in an order of the trainer's own; the weights in expectation.
Fidelity = Literal["exact", "shard-level", "unordered", "expectation-only"]

#: What becomes a file: a visit of a shard by one rank; or, of all ranks together, a phase and epoch, in files of some
#: thousand plays or as one; or of a shard, what a phase plays of it.
Layout = Literal["visits", "parts", "whole", "shards"]

#: A play of a sample: text, id, sample_id, group, weight, loss_weight (what is left to multiply its loss by), repeat
#: (which of its plays), shard and row; input_ids, where token ids are written; and where a format refers to the corpus,
#: place, its tokens in a file there, or index, its row counted through all files.
Record = dict[str, Any]

#: What a play says beside its token ids, in the order in which lines have it.
FIELDS = ("text", "id", "sample_id", "group", "weight", "loss_weight", "repeat", "shard", "row")

_NO_DRAWS = """
No trainer that reads this format draws by weight: if it plays the files in order, it ignores the weights. Export with
`--to parquet`, `hf` or `jsonl` and draw from that, or select with another `--realisation`.
"""
_INSTRUCTIONS = {
    "repeat": "play every {unit} once, in the order of the files; repeats are already expanded",
    "loss": "play every {unit} once, in the order of the files, and multiply its token losses by its loss_weight",
    "sampling": "draw {unit}s with replacement, with probability proportional to weight, until {tokens} are played",
    "none": "play every {unit} once, in the order of the files; weights are ignored",
}
_ANEW = "The trainer tokenises the text again, and a window may get other token ids than when it was embedded."
_ANEW_BUT_IDS = (
    "A trainer that does not read `input_ids` (of exports with `--ids`) tokenises the text again, and a window may get "
    "other token ids than when it was embedded."
)
_NO_TEXT = "The corpus holds token ids, so there is no text. `input_ids` are those of a window, without BOS or EOS."
_BOUNDARIES = (
    "Every play ends with EOS, even if its window ends inside a document. No BOS is written. The tokens of a window "
    "are cut from those of its whole document, as when it was embedded."
)


class Linked(NamedTuple):
    """A file of an export that is a link into the corpus, and what is known of it."""

    path: str
    sha256: str
    bytes: int


class ExportFormat(ABC):
    """How plays become files. It has no state.

    Attributes:
        name: in ``--to`` and in ``export.json``.
        summary: a phrase for the help page.
        suffix: of its files of plays, which lie below ``data/``.
        beside: ends of the names of its other files there.
        unit: what a play is in a file.
        layout: what becomes a file.
        writes_text: whether it can hold text.
        writes_ids: whether it can hold token ids.
        keeps: the fields of a play that can be read from its files again; of input_ids, where they are written.
        joins: whether a file holds each document once, and not its plays.
        refers: by which field of a play its files refer to the corpus and hold none of it: ``place``, of any window, or
            ``index``, of whole documents alone. None where they hold texts or ids.
        weighs: the realisations by weights of which its trainers are capable; weights are no matter to repeats or none.
        shuffles: whether its trainers put plays into an order of their own.
        mixes: whether its files are mixed with a new corpus as they are.
        trainers: who reads it, and how.
        code: files of the package by which its trainers read it, put beside the data.
        media: what its files are to other readers; None where they hold no records, only numbers of plays.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    suffix: ClassVar[str]
    beside: ClassVar[tuple[str, ...]] = ()
    unit: ClassVar[str] = "line"
    layout: ClassVar[Layout] = "visits"
    writes_text: ClassVar[bool] = True
    writes_ids: ClassVar[bool] = False
    keeps: ClassVar[tuple[str, ...]] = FIELDS
    joins: ClassVar[bool] = False
    refers: ClassVar[Literal["place", "index"] | None] = None
    weighs: ClassVar[tuple[str, ...]] = ("loss", "sampling")
    shuffles: ClassVar[bool] = False
    mixes: ClassVar[bool] = True
    trainers: ClassVar[tuple[Trainer, ...]] = ()
    code: ClassVar[tuple[str, ...]] = ()
    media: ClassVar[Media | None] = None

    @abstractmethod
    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str | Linked]:
        """Write one file of plays in their order, atomically; equal records give equal bytes.

        Args:
            path: of the file.
            records: the plays.
            vocabulary: where plays have input_ids.

        Returns:
            The path, and those of other files that belong to it.
        """

    @abstractmethod
    def read(self, path: str) -> Iterator[Record]:
        """The plays of a file that ``write`` wrote, in their order: of every play what ``kept`` says.

        Whatever ``write`` would not have written, such as bytes behind the last play, is an error. A file is read in
        pieces, or holds no more than ``write`` holds.

        Args:
            path: of the file; those that belong to it lie beside it.

        Raises:
            ValueError: it is damaged; the message goes on after the file's name. Errors of the libraries that read it
                (``exports.checking.UNREADABLE``) are passed on.
        """

    def check_corpus(self, manifest: "Manifest", root: str | None) -> None:
        """Refuse a corpus that the format can't refer to; nothing by default.

        Args:
            manifest: that is exported.
            root: where the corpus lies now; where it was embedded by default.

        Raises:
            UsageError: it can't be referred to.
            BadInputError: a file of it can't be read.
        """
        return

    def kept(self, record: Record) -> Record:
        """What the files keep of a play: ``read`` gives ``kept`` of every record that is ``held`` of those written."""
        return {name: record[name] for name in (*self.keeps, "input_ids") if name in record}

    def held(self, records: Iterable[Record]) -> Iterable[Record]:
        """Of the plays of a file in their order, those that it holds, in its own."""
        return records

    def index(self, folder: str, files: Mapping[str, ExportFile]) -> Mapping[str, Any]:
        """What a trainer reads first of a dataset, such as a list of its files.

        Args:
            folder: of a phase and epoch, with the files.
            files: the dataset's files of plays by name, in order.

        Returns:
            JSON values by the names of the files that hold them, in ``folder``.
        """
        return {}

    def fidelity(self, manifest: "Manifest") -> Fidelity:
        """How near training by the instructions comes to the manifest."""
        if manifest.realisation == "sampling":
            return "expectation-only"
        return "unordered" if self.shuffles else "exact"

    def instructions(self, manifest: "Manifest") -> str:
        """What the trainer does with the files; of draws, how many tokens each phase wants."""
        from cptsel.pipeline.artifacts.manifest import replay_tokens

        if manifest.realisation != "sampling":
            words = _INSTRUCTIONS[manifest.realisation].format(unit=self.unit)
            return words.replace(", in the order of the files", "") if self.shuffles else words
        phases = {entry["phase"]: replay_tokens(manifest.header, entry) for entry in manifest.header["phases"]}
        asked = [(number, phases[number]) for number in manifest.phases]
        tokens = [f"{replay['requested']:,} tokens (phase {number})" for number, replay in asked if replay is not None]
        return _INSTRUCTIONS["sampling"].format(unit=self.unit, tokens=" and ".join(tokens))

    def loses(self, manifest: "Manifest") -> list[str]:
        """What of the manifest does not reach a trainer that reads the files alone, in sentences."""
        lost = [_BOUNDARIES]
        if self.writes_text:
            lost = [_NO_TEXT if manifest.of_ids else _ANEW_BUT_IDS if self.writes_ids else _ANEW]
        if self.layout != "visits" and manifest.header["order"].get("world_size", 1) > 1:
            lost.append("Plays are in the common order of all ranks; the trainer deals them out to its own.")
        if self.shuffles:
            lost.append("The trainer shuffles in its own way, and one set of files serves all epochs.")
        return lost

    def recipe(
        self,
        folders: Sequence[str],
        mixes: Mapping[str, Mix] | None = None,
        fields: Sequence[str] | None = None,
        *,
        draws: bool = False,
    ) -> str:
        """How each of its trainers trains on it, in Markdown: what to paste into the trainer's configuration.

        Args:
            folders: of the datasets, relative to the export, such as ``data``; the recipe shows the first.
            mixes: how each is mixed with the new corpus, where that is known.
            fields: that plays have, where that is known; trainers that need another are left out.
            draws: whether weights are realised by draws; trainers that play what is there, in order, are left out.
        """
        folder, known = folders[0], mixes is not None
        mix = mixes[folder] if mixes is not None else EXAMPLE
        able = [one for one in self.trainers if one.needs is None or fields is None or one.needs in fields]
        if draws:
            drawing = [f"\n## {one.name}\n{fill(one.draws, folder, mix)}" for one in able if one.draws]
            return "".join(drawing) or _NO_DRAWS
        return "".join(f"\n## {trainer.name}\n{trainer.section(folder, mix, known)}" for trainer in able)

    def blends(self) -> dict[str, Trainer]:
        """Names of the files by which trainers mix a dataset with another corpus, and one that reads each."""
        return {trainer.blend.name: trainer for trainer in reversed(self.trainers) if trainer.blend is not None}

    def ends(self) -> tuple[str, ...]:
        """Ends of the names of all files that it writes below ``data/``."""
        return (self.suffix, *self.beside, *(f"/{name}" for name in self.blends()))
