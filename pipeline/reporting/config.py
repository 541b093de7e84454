"""The options of ``cptsel report``."""

from dataclasses import dataclass

from cptsel.pipeline.config import Configuration, ReadBy, argument, option


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Configuration):
    """Options of ``cptsel report``."""

    replay: str = argument("Directory written by cptsel select or order.", metavar="REPLAY")
    other: str | None = argument(
        "Another selection from the same corpus, to show beside it.", metavar="[OTHER]", default=None
    )
    run: tuple[str, ...] = option(
        (),
        "Embedding run that REPLAY or OTHER was selected from; repeatable. Adds the map, losses, what the "
        "corpus is like, and texts that were not chosen; needs cptsel[report].",
        section="What is shown",
        metavar="RUN",
    )
    root: str | None = option(
        None,
        "Directory where the corpus is now; by default where it was embedded. Without the corpus, texts are left out.",
        section="What is shown",
        metavar="DIR",
    )
    points: int = option(
        10_000,
        "Most samples on the map: those chosen, and a random sample of the rest.",
        section="What is shown",
        metavar="N",
        least=10,
        most=200_000,
    )
    map: str | None = option(
        None,
        "Parquet file to write, with the points of the map: x, y, text, group, weight, sample_id and more, "
        "for viewers of embeddings.",
        section="What is shown",
        metavar="FILE",
        read=ReadBy("with --run", lambda config: bool(config.run)),
    )
    phase: int = option(0, "Phase to show.", section="What is shown", metavar="N", least=0)
    seed: int = option(0, "Seed of the random samples.", section="What is shown", metavar="N", least=0, most=2**31 - 1)
    out: str = option(help="HTML file to write.", section="Running", metavar="FILE")
    overwrite: bool = option(False, "Replace FILE if it exists.", section="Running")
