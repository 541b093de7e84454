"""``cptsel explain``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.lookup.config import ExplainConfig
from cptsel.pipeline.summary import Summary


@pass_command(ExplainConfig, "cptsel explain ordered 7d0f1c6e9b3a4d5286c1f0e2a9b8c7d6 --run run")
def explain(config: ExplainConfig, progress: Any) -> Summary:
    """Say why samples were chosen, what they stand for, and when they are played.

    For a sample, all samples of a document, or those whose text has a phrase: group, method, score and weight, where
    they are, their text if the corpus is available, and every play by phase, epoch, rank and position, as cptsel locate
    takes them. Exits with 2 if nothing that was chosen has this name or phrase.
    """
    from cptsel.pipeline.explain import explain as run

    return run(config, progress)
