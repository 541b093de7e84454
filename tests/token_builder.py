"""A corpus as texts and as token ids, and what cptsel makes of either."""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from corpus_builders import write_megatron
from transformers import AutoTokenizer

from cptsel.cli.main import main

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
