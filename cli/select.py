"""``cptsel select``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.selection.config import SelectConfig
from cptsel.pipeline.summary import Summary


@pass_command(
    SelectConfig,
    "cptsel select run --method craig --budget 5% --group-by language --out replay",
)
def select(config: SelectConfig, progress: Any) -> Summary:
    """Choose a weighted subset of an embedded corpus: a replay manifest.

    Reads one embedding RUN, or several that belong together, and writes REPLAY: which samples to replay, with what
    weight, and how often each is played. What follows -- goes to Apache Beam.
    """
    from cptsel.pipeline.select import select as run

    return run(config, progress)
