"""``cptsel lookahead``."""

from typing import Any

from cptsel.cli._common import pass_command
from cptsel.pipeline.embedding.config import LookaheadConfig
from cptsel.pipeline.summary import Summary


@pass_command(LookaheadConfig, "cptsel lookahead models/base 'new/*.jsonl' --steps 10 --out models/ahead")
def lookahead(config: LookaheadConfig, progress: Any) -> Summary:
    """Take a model a few steps along a new corpus: a checkpoint at which to embed the old one.

    What training on NEW would make the model forget shows in gradients there, and hardly at MODEL itself. MODEL is not
    changed. The checkpoint has float32 weights, as small steps are lost in less.
    """
    from cptsel.pipeline.lookahead import lookahead as run

    return run(config, progress)
