"""ms-swift: JSON lines with a message a play, which carries the weight of its loss."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.json_files import Line, facts, facts_read, read_json_lines, write_json_lines
from cptsel.pipeline.exports.media import Media, column
from cptsel.pipeline.exports.trainers import Trainer
from cptsel.pipeline.model.vocabulary import Vocabulary

_SWIFT = Trainer(
    name="ms-swift",
    recipe="""
```sh
swift pt --dataset EXPORT/{folder}/replay.jsonl --is_binary_loss_scale false --dataset_shuffle false \\
    --train_dataloader_shuffle false --truncation_strategy right --max_length LENGTH --num_train_epochs 1
```

Without `--is_binary_loss_scale false`, weights become 0 or 1. The loss is the sum of weighted token losses, divided by
the number of tokens. Tokens of the text have the sample's weight; the EOS that ms-swift adds has weight 1. LENGTH must
fit a window with BOS and EOS: without `--truncation_strategy right`, longer samples are left out. Leave packing off: it
changes the order. To mix in the new corpus:
`--dataset {new} EXPORT/{folder}/replay.jsonl --interleave_prob {rest} {share}`, which draws by samples and plays each
file in its order.
""",
    order="kept, with the recipe's options",
    weights="multiply losses: `loss_scale`, one float per message",
    proved=("ms-swift",),
)


class MsSwift(ExportFormat):
    """``replay.jsonl``: ``messages`` with one of the assistant, whose ``loss_scale`` is what multiplies its loss."""

    name: ClassVar[str] = "ms-swift"
    summary: ClassVar[str] = "JSON lines for ms-swift, which takes loss weights"
    suffix: ClassVar[str] = ".jsonl"
    layout: ClassVar = "whole"
    weighs: ClassVar[tuple[str, ...]] = ("loss",)
    trainers: ClassVar[tuple[Trainer, ...]] = (_SWIFT,)
    media: ClassVar[Media | None] = Media(
        types=("application/jsonlines",),
        places={
            "text": column("messages", "$.content"),
            "loss_weight": column("messages", "$.loss_scale"),
            "id": column("doc_id"),
        },
    )

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        return write_json_lines(path, map(_line, records))

    def read(self, path: str) -> Iterator[Record]:
        return read_json_lines(path, _record, _line)


def _line(record: Record) -> Line:
    message = {"role": "assistant", "content": record["text"], "loss_scale": record["loss_weight"]}
    return {"messages": [message], **facts(record)}


def _record(line: Line) -> Record:
    """The record that ``_line`` made into an object."""
    (message,) = line["messages"]
    return {"text": message["content"], "loss_weight": message["loss_scale"], **facts_read(line)}
