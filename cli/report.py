"""``cptsel report``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.reporting.config import ReportConfig
from cptsel.pipeline.summary import Summary


@pass_command(ReportConfig, "cptsel report replay --run run --out report.html")
def report(config: ReportConfig, progress: Any) -> Summary:
    """Write an HTML file that shows a selection, or two side by side.

    Shows what was asked for and what came out, groups before and after, distributions, how well the choice stands for
    the corpus, order, examples and provenance; with --run also a map. The file is self-contained: it loads nothing from
    the network, and can be sent by mail.
    """
    from cptsel.pipeline.report import report as run

    return run(config, progress)
