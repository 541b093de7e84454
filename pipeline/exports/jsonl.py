"""JSON lines, compressed with zstd: a play a line."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.lines import parse_line, stream_lines, to_line, write_lines
from cptsel.pipeline.exports.media import Media
from cptsel.pipeline.exports.trainers import Trainer
from cptsel.pipeline.model.vocabulary import Vocabulary

_LINES = Trainer(
    name="A reader of your own",
    recipe="""
Read the files below `EXPORT/{folder}` sorted by name, and don't shuffle. Each line is a JSON object with `text`,
`input_ids` or both, `sample_id`, `group`, `weight`, `loss_weight`, and where the play comes from.
""",
    order="kept; by rank, if the manifest has ranks",
    weights="fields, for a loss or draws of your own",
    samples="text, or text and token ids",
    proved=("zstandard",),
    draws="""
Read all lines of the files below `EXPORT/{folder}`. Each line is a JSON object with `text`, `input_ids` or both,
`sample_id`, `group`, `weight`, and where the play comes from. Draw lines with replacement, with probability
proportional to `weight`.
""",
)


class Jsonl(ExportFormat):
    """One JSON object a play."""

    name: ClassVar[str] = "jsonl"
    summary: ClassVar[str] = "JSON lines, zstd-compressed, repeats expanded, files in order"
    suffix: ClassVar[str] = ".jsonl.zst"
    writes_ids: ClassVar[bool] = True
    trainers: ClassVar[tuple[Trainer, ...]] = (_LINES,)
    media: ClassVar[Media | None] = Media(types=("application/jsonlines", "application/zstd"))

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        write_lines(path, map(to_line, records))
        return [path]

    def read(self, path: str) -> Iterator[Record]:
        return map(parse_line, stream_lines(path))
