"""LLaMA-Factory v1: JSON lines with a message a play, which carries the weight of its loss."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from cptsel.pipeline.exports.base import ExportFormat, Record
from cptsel.pipeline.exports.json_files import Line, facts, facts_read, read_json_lines, write_json_lines
from cptsel.pipeline.exports.media import Media, column
from cptsel.pipeline.exports.trainers import Trainer
from cptsel.pipeline.model.vocabulary import Vocabulary

if TYPE_CHECKING:
    from cptsel.pipeline.artifacts.manifest import Manifest

_FACTORY = Trainer(
    name="LLaMA-Factory v1",
    recipe="""
Run `USE_V1=1 llamafactory-cli sft config.yaml`, where `config.yaml` has `train_dataset: datasets.yaml`, this file:

```yaml
replay: {path: "EXPORT/{folder}/replay.jsonl", source: local}
new: {path: "{new}", source: local, size: SAMPLES}
```

`size` and `weight` draw samples with replacement: give them only to the new corpus.
""",
    order="lost: its sampler shuffles",
    weights="multiply losses, divided by their sum in a batch: `loss_weight`, one float per message",
    proved=("llamafactory",),
)


class LlamaFactoryV1(ExportFormat):
    """``replay.jsonl``: ``messages`` with one of the assistant, whose ``loss_weight`` weighs all its tokens."""

    name: ClassVar[str] = "llamafactory-v1"
    summary: ClassVar[str] = "JSON lines for LLaMA-Factory v1, which takes loss weights"
    suffix: ClassVar[str] = ".jsonl"
    layout: ClassVar = "whole"
    weighs: ClassVar[tuple[str, ...]] = ("loss",)
    shuffles: ClassVar[bool] = True
    trainers: ClassVar[tuple[Trainer, ...]] = (_FACTORY,)
    media: ClassVar[Media | None] = Media(
        types=("application/jsonlines",),
        places={
            "text": column("messages", "$.content[0].value"),
            "loss_weight": column("messages", "$.loss_weight"),
            "id": column("doc_id"),
        },
    )

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        return write_json_lines(path, map(_line, records))

    def read(self, path: str) -> Iterator[Record]:
        return read_json_lines(path, _record, _line)

    def loses(self, manifest: "Manifest") -> list[str]:
        lost = [*super().loses(manifest), "Every text is put into a chat template, whose markup is trained on too."]
        if manifest.realisation == "loss":
            lost.append("A batch's loss is divided by the sum of its weights, so weights count only within a batch.")
        return lost


def _line(record: Record) -> Line:
    content = [{"type": "text", "value": record["text"]}]
    message = {"role": "assistant", "content": content, "loss_weight": record["loss_weight"]}
    return {"messages": [message], **facts(record)}


def _record(line: Line) -> Record:
    """The record that ``_line`` made into an object."""
    (message,) = line["messages"]
    (content,) = message["content"]
    return {"text": content["value"], "loss_weight": message["loss_weight"], **facts_read(line)}
