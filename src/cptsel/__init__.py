"""cptsel: choose replay data for continual pre-training of language models.

Every pass of the command line is also a call::

    import cptsel
    cptsel.embed(cptsel.EmbedConfig(inputs=["corpus/*.jsonl.gz"], model="models/base", out="run"))
    cptsel.select(cptsel.SelectConfig(runs=["run"], method="craig", budget="5%", out="replay"))
    cptsel.order(cptsel.OrderConfig(replay="replay", out="ordered", epochs=1, world_size=8))

What is in their outputs, as tables and vectors::

    run, replay = cptsel.open_run("run"), cptsel.open_replay("replay")
    replay.samples(["sample_id", "weight"])

Names load on first use, so that ``import cptsel`` and ``cptsel --help`` stay fast.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("cptsel")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_HOMES = {
    "CptselError": "cptsel.pipeline.errors",
    "CompareConfig": "cptsel.pipeline.config",
    "DistillConfig": "cptsel.pipeline.chosen.config",
    "EmbedConfig": "cptsel.pipeline.embedding.config",
    "ExplainConfig": "cptsel.pipeline.lookup.config",
    "ExportConfig": "cptsel.pipeline.exports.config",
    "FisherConfig": "cptsel.pipeline.chosen.config",
    "LocateConfig": "cptsel.pipeline.lookup.config",
    "LookaheadConfig": "cptsel.pipeline.embedding.config",
    "OrderConfig": "cptsel.pipeline.config",
    "PlanConfig": "cptsel.pipeline.config",
    "ReportConfig": "cptsel.pipeline.reporting.config",
    "Replay": "cptsel.pipeline.views",
    "Run": "cptsel.pipeline.views",
    "Summary": "cptsel.pipeline.summary",
    "Table": "cptsel.pipeline.summary",
    "SelectConfig": "cptsel.pipeline.selection.config",
    "VerifyConfig": "cptsel.pipeline.config",
    "compare": "cptsel.pipeline.compare",
    "distill": "cptsel.pipeline.distill",
    "embed": "cptsel.pipeline.embed",
    "explain": "cptsel.pipeline.explain",
    "export": "cptsel.pipeline.export",
    "fisher": "cptsel.pipeline.fisher",
    "inspect": "cptsel.pipeline.inspect",
    "locate": "cptsel.pipeline.locate",
    "lookahead": "cptsel.pipeline.lookahead",
    "open_replay": "cptsel.pipeline.views",
    "open_run": "cptsel.pipeline.views",
    "order": "cptsel.pipeline.order",
    "plan": "cptsel.pipeline.plan",
    "report": "cptsel.pipeline.report",
    "select": "cptsel.pipeline.select",
    "verify": "cptsel.pipeline.verify",
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cptsel' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
