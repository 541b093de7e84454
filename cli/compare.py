"""``cptsel compare``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.lookup.config import CompareConfig
from cptsel.pipeline.summary import Summary


@pass_command(CompareConfig, "cptsel compare replay-uniform replay-craig replay-gradmatch")
def compare(config: CompareConfig, progress: Any) -> Summary:
    """Compare selections from one corpus side by side.

    Shows how much they have in common, how well each matches and covers the corpus, how even its weights are, and what
    each group gets; with --run also the picks of one that are farthest from all picks of another.
    """
    from cptsel.pipeline.compare import compare as run

    return run(config, progress)
