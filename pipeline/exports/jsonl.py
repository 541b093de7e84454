"""JSON lines, compressed with zstd: a play a line."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.lines import parse_line, stream_lines, to_line, write_lines
from cptsel.pipeline.model.vocabulary import Vocabulary

_RECIPE = """
Read the files of `EXPORT/{folder}` sorted by name, and do not shuffle. axolotl: each file under `datasets` with
`ds_type: json` and `type: completion`, `shuffle_merged_datasets: false` and `curriculum_sampling: true`.
LLaMA-Factory: an entry of `dataset_info.json` with `"columns": {"prompt": "text"}`, `stage: pt` and
`mix_strategy: interleave_under` with `interleave_probs`.
"""


class Jsonl(ExportFormat):
    """One JSON object a play."""

    name: ClassVar[str] = "jsonl"
    summary: ClassVar[str] = "JSON lines, zstd-compressed, repeats expanded, files in order"
    suffix: ClassVar[str] = ".jsonl.zst"

    writes_ids: ClassVar[bool] = True

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        write_lines(path, map(to_line, records))
        return [path]

    def read(self, path: str) -> Iterator[Record]:
        return map(parse_line, stream_lines(path))

    def recipe(self, folders: Sequence[str]) -> str:
        return _RECIPE.replace("{folder}", folders[0])
