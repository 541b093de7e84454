"""cptsel: choose replay data for continual pre-training of language models.

Every pass of the command line is also a call::

    import cptsel
    cptsel.embed(cptsel.EmbedConfig(inputs=["corpus/*.jsonl.gz"], model="models/base", out="run"))
    chosen = cptsel.select(cptsel.SelectConfig(runs=["run"], method="craig", budget="5%", out="replay"))
    chosen.selected_tokens, chosen.warnings
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
    "CompareConfig": "cptsel.pipeline.lookup.config",
    "CompareResult": "cptsel.pipeline.results",
    "CptselError": "cptsel.pipeline.errors",
    "DistillConfig": "cptsel.pipeline.chosen.config",
    "DistillResult": "cptsel.pipeline.results",
    "EmbedConfig": "cptsel.pipeline.embedding.config",
    "EmbedResult": "cptsel.pipeline.results",
    "ExplainConfig": "cptsel.pipeline.lookup.config",
    "ExplainResult": "cptsel.pipeline.results",
    "ExportConfig": "cptsel.pipeline.exports.config",
    "ExportResult": "cptsel.pipeline.results",
    "FisherConfig": "cptsel.pipeline.chosen.config",
    "FisherResult": "cptsel.pipeline.results",
    "LocateConfig": "cptsel.pipeline.lookup.config",
    "LocateResult": "cptsel.pipeline.results",
    "LookaheadConfig": "cptsel.pipeline.embedding.config",
    "LookaheadResult": "cptsel.pipeline.results",
    "OrderConfig": "cptsel.pipeline.ordering.config",
    "OrderResult": "cptsel.pipeline.results",
    "PlanConfig": "cptsel.pipeline.planning.config",
    "PlanResult": "cptsel.pipeline.results",
    "Replay": "cptsel.pipeline.views",
    "ReportConfig": "cptsel.pipeline.reporting.config",
    "ReportResult": "cptsel.pipeline.results",
    "Run": "cptsel.pipeline.views",
    "SelectConfig": "cptsel.pipeline.selection.config",
    "SelectResult": "cptsel.pipeline.results",
    "Summary": "cptsel.pipeline.summary",
    "Table": "cptsel.pipeline.summary",
    "VerifyConfig": "cptsel.pipeline.verification.config",
    "VerifyResult": "cptsel.pipeline.results",
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
