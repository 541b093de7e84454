"""A corpus as texts and as token ids, and what cptsel makes of either."""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from corpus_builders import write_megatron
from selection_builder import choose
from transformers import AutoTokenizer

from cptsel.cli.main import main
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.export import export
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify

EOD = 0  # of tiny-lm


@dataclass
class TokenCorpus:
    """Ids of the documents by file, and the folders of the same as texts and as ids, each with ``de/`` and ``en/``."""

    documents: dict[str, list[list[int]]]
    texts: Path
    ids: Path


def build_token_corpus(folder: Path, tiny_lm: Path, documents: int = 8) -> TokenCorpus:
    """Plain ASCII, whose windows are the same whether they are cut in a text or in its ids."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    found: dict[str, list[list[int]]] = {}
    for number, name in enumerate(("de/0", "en/0", "en/1")):
        texts = [
            f"File {name} has a document {i}, and {'more ' * (7 * i % 23)}words." for i in range(documents + number)
        ]
        found[name] = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        for kind in ("texts", "ids"):
            (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"text": text}) + "\n" for text in texts]
        (folder / "texts" / f"{name}.jsonl").write_text("".join(lines))
        write_megatron(folder / "ids" / f"{name}.bin", [[[*ids, EOD]] for ids in found[name]])
    return TokenCorpus(found, folder / "texts", folder / "ids")


def embed(inputs: str, out: Path, model: Path, *options: str) -> pa.Table:
    """Rows of a run, by path of their shard and place in it."""
    command = ["embed", inputs, "--model", str(model), "--max-tokens", "16", "--sketch-dim", "64", "--out", str(out)]
    assert main([*command, *options]) == 0
    return rows_of(out)


def rows_of(run: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(run.glob("embeddings/*.parquet"))])


def replay_of(run: Path, folder: Path) -> Path:
    """A manifest with repeats, ordered for two ranks."""
    options = {"method": "craig", "budget": "40%", "group_by": "path[0]", "realisation": "repeat"}
    choose(run, folder / "replay", replay_tokens="900 tokens", **options)
    order(OrderConfig(replay=str(folder / "replay"), world_size=2, out=str(folder / "ordered")))
    return folder / "ordered"


def exported(replay: Path, out: Path, to: str, **options: object) -> Path:
    """An export that verify has held against its manifest."""
    export(ExportConfig(replay=str(replay), out=str(out), to=to, **options), make_steps=InlineSteps)
    assert verify(VerifyConfig(directory=str(out), replay=str(replay))).status == "verified"
    return out


def plays_of(corpus: TokenCorpus, replay: Path) -> list[tuple[str, list[int]]]:
    """(sample_id, ids) of all plays, by rank and in order."""
    shards = pq.read_table(replay / "shards.parquet").to_pylist()
    samples = {path.stem: pq.read_table(path).sort_by("order_rank").to_pylist() for path in replay.glob("samples/*")}
    found = []
    for visit in pq.read_table(replay / "schedule/0-0.parquet").to_pylist():
        name = shards[visit["shard_id"]]["path"].removesuffix(".bin")
        for row in samples[f"{visit['shard_id']:06d}"]:
            if row["repeat"] >= visit["pass"]:
                ids = corpus.documents[name][row["row_index"]]
                found.append((row["sample_id"], ids[row["token_start"] : row["token_start"] + row["token_count"]]))
    return found
