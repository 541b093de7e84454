"""A small replay manifest of a corpus that was really tokenised, and the token ids that it plays."""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from transformers import AutoTokenizer

from cptsel.cli.main import main


@dataclass
class Embedded:
    """The manifest's folder, (sample_id, token ids) of every play in order, and the corpus's folder."""

    replay: Path
    plays: list[tuple[str, list[int]]]
    corpus: Path


def build_embedded(folder: Path, tiny_lm: Path) -> Embedded:
    """Embed two small shards, some windows of which begin or end inside a word, and choose from them with repeats.

    Documents have ids of 32 hex digits.
    """
    texts = [
        f"Übung {i}: naïve 🙂 text, </s> written out, and the {'many ' * (i * 7)}words of a document."
        for i in range(12)
    ]
    (folder / "corpus").mkdir()
    for shard in range(2):
        rows = [{"text": text, "id": f"{0xA0 + number:032X}"} for number, text in enumerate(texts)]
        lines = [json.dumps(row) + "\n" for row in rows[shard * 6 : shard * 6 + 6]]
        (folder / "corpus" / f"{shard}.jsonl").write_text("".join(lines))
    run, replay = str(folder / "run"), folder / "replay"
    options = ["--model", str(tiny_lm), "--max-tokens", "16", "--split-special-tokens", "--sketch-dim", "64"]
    assert main(["embed", str(folder / "corpus/*.jsonl"), *options, "--out", run]) == 0
    options = ["--method", "uniform", "--budget", "60%", "--realisation", "repeat", "--replay-tokens", "600 tokens"]
    assert main(["select", run, *options, "--out", str(replay)]) == 0
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    rows = [row for path in sorted(replay.glob("samples/*.parquet")) for row in pq.read_table(path).to_pylist()]
    plays = []
    for number in range(1, 5):
        for row in sorted(rows, key=lambda row: row["order_rank"]):
            if row["repeat"] >= number:
                text = texts[row["shard_id"] * 6 + row["row_index"]]
                ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
                ids = ids[row["token_start"] : row["token_start"] + row["token_count"]]
                plays.append((row["sample_id"], ids))
    assert max(row["repeat"] for row in rows) > 1
    return Embedded(replay, plays, folder / "corpus")
