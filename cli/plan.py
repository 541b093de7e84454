"""``cptsel plan``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.planning.config import PlanConfig
from cptsel.pipeline.summary import Summary


@pass_command(PlanConfig, "cptsel plan sample_data/trainings.csv --rise 0.1 --tokens 20K")
def plan(config: PlanConfig, progress: Any) -> Summary:
    """Say how much replay is needed, from a few small trainings.

    Train on the same new text without replay and with three or more amounts of it, chosen alike, a few times each if
    you can. A law is fitted to how much the old loss rose: r0 - b ln(1 + T / s) after T replayed tokens. What it says
    of every amount that was left out of the fit tells what it is worth; where that is little, nothing else is told. It
    holds for as much new text, trained on alike, and not far beyond the amounts that were tried.
    """
    from cptsel.pipeline.plan import plan as run

    return run(config)
