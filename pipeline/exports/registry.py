"""The export formats."""

import re

from cptsel.pipeline.exports.base import ExportFormat
from cptsel.pipeline.exports.jsonl import Jsonl
from cptsel.pipeline.exports.parquet import Parquet

EXPORTS: dict[str, ExportFormat] = {format.name: format for format in (Jsonl(), Parquet())}


def data_pattern() -> str:
    """Regular expression of the files that exports write below their directory, but for those of all commands."""
    return rf"data/.+({'|'.join(re.escape(format.suffix) for format in EXPORTS.values())})"
