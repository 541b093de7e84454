"""``cptsel lookahead``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.embedding.config import LookaheadConfig
from cptsel.pipeline.summary import Summary


@pass_command(LookaheadConfig, "cptsel lookahead models/base 'new/*.jsonl' --steps 10 --out models/ahead")
def lookahead(config: LookaheadConfig, progress: Any) -> Summary:
    """Train a copy of a model for a few steps on a new corpus, to embed the old corpus with it.

    Gradients at this checkpoint show what training on NEW would make the model forget; at MODEL itself they hardly do.
    MODEL is not changed. The checkpoint has float32 weights, as small steps are lost at lower precision.
    """
    from cptsel.pipeline.lookahead import lookahead as run

    return run(config, progress)
