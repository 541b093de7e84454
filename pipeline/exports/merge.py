"""Second step of an export whose files hold plays of several shards: pieces that shards wrote become files in order."""

from dataclasses import dataclass
from typing import Any

from cptsel.pipeline import io
from cptsel.pipeline.engine.steps import Steps
from cptsel.pipeline.exports.base import ExportFormat
from cptsel.pipeline.exports.pieces import MergeTask, merge_tasks, read_pieces
from cptsel.pipeline.exports.shard import described
from cptsel.pipeline.model.vocabulary import Vocabulary

STEP = "merge"


@dataclass(frozen=True)
class MergeFile:
    """MergeTask → [{name, sha256, bytes, lines, tokens}, ...]. Holds one part's records."""

    format: ExportFormat
    vocabulary: Vocabulary | None
    out: str
    work: str

    def __call__(self, task: MergeTask) -> list[dict[str, Any]]:
        written = self.format.write(io.join(self.out, task.name), read_pieces(task.parts), self.vocabulary)
        io.write_scratch(io.join(self.work, STEP, str(task.number)), b"")
        return described(self.out, written, task.lines, task.tokens)


def merge_pieces(
    format: ExportFormat, vocabulary: Vocabulary | None, out: str, files: list[dict[str, Any]], steps: Steps
) -> list[dict[str, Any]]:
    """Files of the export, from what the shards wrote: files as they are, and pieces, which are merged."""
    tasks = merge_tasks([file for file in files if "piece" in file])
    merged = steps.run(STEP, MergeFile(format, vocabulary, out, steps.work), tasks)
    return [file for file in files if "piece" not in file] + [file for written in merged for file in written]
