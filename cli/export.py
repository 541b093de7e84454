"""``cptsel export``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.summary import Summary


@pass_command(ExportConfig, "cptsel export ordered --to jsonl --out corpus-replay")
def export(config: ExportConfig, progress: Any) -> Summary:
    """Write the replay corpus that a manifest describes.

    Reads the text of every chosen sample from the corpus and checks it against its hash. What follows -- goes to
    Apache Beam.
    """
    from cptsel.pipeline.export import export as run

    return run(config, progress)
