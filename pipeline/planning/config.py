"""The options of ``cptsel plan``, each declared once."""

from dataclasses import dataclass

from cptsel.pipeline.config import Configuration, argument, option


@dataclass(frozen=True, kw_only=True)
class PlanConfig(Configuration):
    """Options of ``cptsel plan``."""

    trainings: str = argument(
        "CSV file with one row per small training, and the columns replay_tokens and rise.", metavar="TRAININGS"
    )
    rise: float | None = option(
        None,
        "Largest rise of the old loss that you tolerate, in the unit of the file: say the least replay that "
        "keeps within it.",
        section="What is predicted",
        metavar="RISE",
    )
    tokens: tuple[str, ...] = option(
        (),
        "Replayed tokens, such as 50M, whose rise is predicted; repeatable.",
        section="What is predicted",
        metavar="TOKENS",
    )
