"""The options of ``cptsel plan``, each declared once."""

from dataclasses import dataclass

from cptsel.pipeline.config import Configuration, argument, option


@dataclass(frozen=True, kw_only=True)
class PlanConfig(Configuration):
    """Options of ``cptsel plan``."""

    trainings: str = argument(
        "CSV file of small trainings, a row each, with the columns replay_tokens and rise.", metavar="TRAININGS"
    )
    rise: float | None = option(
        None,
        "Rise of the old loss that is tolerated, in the unit of the file: tell the least replay that keeps to it.",
        section="What is told",
        metavar="RISE",
    )
    tokens: tuple[str, ...] = option(
        (),
        "Tokens of a replay, such as 50M, of which the rise is told; repeatable.",
        section="What is told",
        metavar="TOKENS",
    )
