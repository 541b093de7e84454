"""``cptsel export``."""

from functools import partial
from typing import Any

from cptsel.cli._common import Summary, pass_command
from cptsel.cli._options import config_argument, config_option
from cptsel.pipeline.config import ExportConfig

_what = partial(config_option, ExportConfig, section="What is written")
_running = partial(config_option, ExportConfig, section="Running")

PARAMETERS = [
    config_argument(ExportConfig, "replay", "Directory written by cptsel select or cptsel order.", metavar="REPLAY"),
    _what("to", "Format: jsonl is JSON lines, zstd-compressed, repeats expanded, files in order.", choices=("jsonl",)),
    _what("root", "Directory in which the corpus lies now; by default where it was embedded.", metavar="DIR"),
    _what(
        "exclude",
        "File of doc_ids, doc_keys, sample_ids or hex content hashes, one a line, to leave out.",
        metavar="FILE",
    ),
    _running("out", "Directory to write.", metavar="DIR"),
    _running("overwrite", "Replace the directory if it is there."),
    _running("dry_run", "Say what would be written and do nothing."),
    _running("workers", "Local processes.", metavar="N"),
]


@pass_command(ExportConfig, PARAMETERS, "cptsel export ordered --to jsonl --out corpus-replay")
def export(config: ExportConfig, progress: Any) -> Summary:
    """Write the replay corpus that a manifest describes.

    Reads the text of every chosen sample from the corpus and checks it against its hash. What follows -- goes to
    Apache Beam.
    """
    from cptsel.pipeline.export import export as run

    return run(config, progress)
