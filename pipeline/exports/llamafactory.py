"""LLaMA-Factory, pre-training stage: JSON lines of text, and the table by which it finds them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from cptsel.pipeline.exports.base import FIELDS, ExportFormat, Record
from cptsel.pipeline.exports.json_files import Line, facts, facts_read, read_json_lines, write_json_lines
from cptsel.pipeline.exports.media import Media, column
from cptsel.pipeline.exports.trainers import Trainer
from cptsel.pipeline.model.vocabulary import Vocabulary
from cptsel.schemas.headers import ExportFile

_FACTORY = Trainer(
    name="LLaMA-Factory",
    recipe="""
```yaml
stage: pt
dataset_dir: "EXPORT/{folder}"
dataset: replay
packing: false
cutoff_len: LENGTH
disable_shuffling: true
num_train_epochs: 1
```

LENGTH must fit a window with BOS and EOS; what is longer is cut off. Without `packing: false`, plays are joined, and
the end of every thousand is dropped. To mix in the new corpus, give it an entry in `dataset_info.json`, and set
`dataset: new,replay`, `mix_strategy: interleave_under` and `interleave_probs: {rest},{share}`. This draws by samples
and plays each file in its order.
""",
    order="kept, with `disable_shuffling`",
    weights="refused; select with `--realisation repeat`, or use `llamafactory-v1`",
    proved=("llamafactory",),
)


class LlamaFactory(ExportFormat):
    """``replay.jsonl`` and ``dataset_info.json``."""

    name: ClassVar[str] = "llamafactory"
    summary: ClassVar[str] = "JSON lines for LLaMA-Factory's pre-training stage"
    suffix: ClassVar[str] = ".jsonl"
    beside: ClassVar[tuple[str, ...]] = ("/dataset_info.json",)
    layout: ClassVar = "whole"
    keeps: ClassVar[tuple[str, ...]] = tuple(name for name in FIELDS if name != "loss_weight")
    weighs: ClassVar[tuple[str, ...]] = ()
    trainers: ClassVar[tuple[Trainer, ...]] = (_FACTORY,)
    media: ClassVar[Media | None] = Media(types=("application/jsonlines",), places={"id": column("doc_id")})

    def write(self, path: str, records: Iterable[Record], vocabulary: Vocabulary | None) -> Sequence[str]:
        return write_json_lines(path, map(_line, records))

    def read(self, path: str) -> Iterator[Record]:
        return read_json_lines(path, _record, _line)

    def index(self, folder: str, files: Mapping[str, ExportFile]) -> Mapping[str, Any]:
        return {"dataset_info.json": {"replay": {"file_name": "replay.jsonl", "columns": {"prompt": "text"}}}}


def _line(record: Record) -> Line:
    return {"text": record["text"], **facts(record)}


def _record(line: Line) -> Record:
    """The record that ``_line`` made into an object."""
    return {"text": line["text"], **facts_read(line)}
