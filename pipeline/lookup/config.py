"""The options of ``cptsel compare``, ``cptsel explain`` and ``cptsel locate``, each declared once."""

from dataclasses import dataclass

from cptsel.pipeline.config import Configuration, ReadBy, argument, option

_WITH_RUN = ReadBy("with --run", lambda config: bool(config.run))


def parse_phrase(value: str) -> str:
    """A phrase to look for. Raises ValueError where it is empty."""
    if not value:
        raise ValueError("the phrase is empty; give at least a letter of the text")
    return value


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Configuration):
    """Options of ``cptsel compare``."""

    replays: tuple[str, ...] = argument("Manifests written by cptsel select or order.", metavar="REPLAY...")
    phase: int = option(0, "Phase to compare.", section="What is compared", metavar="N", least=0)
    run: tuple[str, ...] = option(
        (),
        "Embedding run that one of them was selected from and that has the picks of all. Also say how far, "
        "by the sketch, the picks of each are from those of the others, and which are farthest; repeatable.",
        section="Distances",
        metavar="RUN",
    )
    farthest: int = option(
        5,
        "Farthest picks to show for each pair, in each direction.",
        section="Distances",
        metavar="N",
        least=1,
        most=1000,
        read=_WITH_RUN,
    )
    root: str | None = option(
        None,
        "Directory where the corpus is now, for texts; by default where it was embedded.",
        section="Distances",
        metavar="DIR",
        read=_WITH_RUN,
    )


@dataclass(frozen=True, kw_only=True)
class ExplainConfig(Configuration):
    """Options of ``cptsel explain``."""

    replay: str = argument("Manifest written by cptsel select or order.", metavar="REPLAY")
    sample: str | None = argument(
        "A sample_id; or a doc_key or doc_id, for all chosen samples of that document.",
        metavar="[SAMPLE]",
        default=None,
    )
    text: str | None = option(
        None,
        "Instead of SAMPLE: the chosen samples whose text contains exactly this phrase. Reads the corpus.",
        section="What is explained",
        metavar="PHRASE",
        parse=parse_phrase,
    )
    most: int = option(
        20,
        "Most samples to explain; the number of others is printed.",
        section="What is explained",
        metavar="N",
        least=1,
        most=10_000,
    )
    root: str | None = option(
        None,
        "Directory where the corpus is now; by default where it was embedded.",
        section="What is explained",
        metavar="DIR",
    )
    run: tuple[str, ...] = option(
        (),
        "Embedding run that the manifest was selected from. Also say, for each sample and within its group "
        "in its shard, what is nearest by the sketch and what the sample stands for; repeatable.",
        section="Neighbours",
        metavar="RUN",
    )
    neighbours: int = option(
        5, "Neighbours of each kind.", section="Neighbours", metavar="K", least=1, most=1000, read=_WITH_RUN
    )


@dataclass(frozen=True, kw_only=True)
class LocateConfig(Configuration):
    """Options of ``cptsel locate``."""

    replay: str = argument("Manifest written by cptsel select or order.", metavar="REPLAY")
    phase: int = option(0, "Phase of the training.", section="Place", metavar="P", least=0)
    epoch: int = option(0, "Epoch of the phase.", section="Place", metavar="E", least=0)
    rank: int = option(0, "Rank that plays.", section="Place", metavar="R", least=0)
    position: int = option(
        help="Position of the play among those of the rank in the epoch, from 0.", section="Place", metavar="N", least=0
    )
    root: str | None = option(
        None,
        "Directory where the corpus is now; by default where it was embedded.",
        section="Text",
        metavar="DIR",
    )
