"""``cptsel plan``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.planning.config import PlanConfig
from cptsel.pipeline.summary import Summary


@pass_command(PlanConfig, "cptsel plan sample_data/trainings.csv --rise 0.1 --tokens 20K")
def plan(config: PlanConfig, progress: Any) -> Summary:
    """Say how much replay is needed, from a few small trainings.

    Train on the same new text without replay and with three or more amounts of replay, chosen in the same way, a few
    times each if you can. A law is fitted to how much the old loss rose: r0 - b ln(1 + T / s) after T replayed tokens.
    As a test, the law predicts every amount from a fit without it; if it predicts badly, nothing else is said. The law
    holds for the same amount of new text and the same training, and not far beyond the amounts that were tried.
    """
    from cptsel.pipeline.plan import plan as run

    return run(config)
