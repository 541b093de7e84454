"""``cptsel embed`` end to end on small corpora: every row can be traced to its text, and nothing is lost."""

import gzip
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from selection_builder import choose
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from cptsel.pipeline import hashing, io
from cptsel.pipeline.corpus.documents import Document, DocumentBlock, Reject
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.cutting import cut_block
from cptsel.pipeline.embedding.rows import quantise
from cptsel.pipeline.errors import BadInputError, UsageError
from cptsel.pipeline.export import export
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.inspect import inspect
from cptsel.pipeline.model.batching import batches
from cptsel.pipeline.model.tokenizer import Prefix, load_tokenizer
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify
from cptsel.schemas import arrow
from cptsel.schemas.validation import validate

CODE = "def f(x):\n    return x\n" * 9
TEXTS = ["Weights and measures. " * 30, "Привет, мир! " * 12, "短い文章です。🎉🎉" * 8, "x", CODE]


@pytest.fixture
def corpus(tmp_path):
    """Five documents as plain JSONL, and as gzip with damage between them."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = [json.dumps({"id": f"d{i}", "text": text, "lang": "ab"[i % 2]}) for i, text in enumerate(TEXTS)]
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n")
    damaged = [lines[0], "{broken", "", lines[1], json.dumps({"text": None}), lines[2]]
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(damaged).encode()))
    return folder


def run(tiny_lm, corpus, out, pattern="a.jsonl", **options):
    settings = {"max_tokens": 24, "group_by": ("lang",), "max_bad_fraction": 0.5} | options
    summary = embed(EmbedConfig(inputs=(f"{corpus}/{pattern}",), model=str(tiny_lm), out=str(out), **settings))
    names = io.list_names(str(out / "embeddings"))
    tables = [io.read_parquet(str(out / "embeddings" / name)) for name in names]
    return summary, pa.concat_tables(tables, promote_options="permissive")


def vectors(table, name):
    column = table[name].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float32)


def test_a_group_column_without_a_value_is_a_warning(tiny_lm, corpus, tmp_path):
    lines = [json.loads(line) for line in (corpus / "a.jsonl").read_text().splitlines()]
    lines[3]["rare"] = "x"
    (corpus / "c.jsonl").write_text("".join(json.dumps(line | {"none": None}) + "\n" for line in lines))
    columns = ("lang", "nosuch", "rare", "none")
    for _ in ("done", "already done"):
        summary, _table = run(tiny_lm, corpus, tmp_path / "run", pattern="[ac].jsonl", group_by=columns)
        assert summary.warnings == [
            f"--group-by {name}: no row has it, so all samples are one group" for name in ("nosuch", "none")
        ]


def test_rows_are_windows_that_tile_their_documents(tiny_lm, corpus, tmp_path):
    summary, table = run(tiny_lm, corpus, tmp_path / "run")
    assert arrow.check_schema(table.schema, arrow.embeddings_schema(1024, 256, "float16", ["lang"])) is None
    rows = table.to_pylist()
    assert summary.totals["samples"] == len(rows)
    assert [(r["row_index"], r["window"]) for r in rows] == sorted((r["row_index"], r["window"]) for r in rows)
    assert len({r["sample_id"] for r in rows}) == len(rows)
    tokenizer = load_tokenizer(str(tiny_lm))
    lines = (corpus / "a.jsonl").read_bytes()
    for index, text in enumerate(TEXTS):
        mine = [r for r in rows if r["row_index"] == index]
        assert "".join(text[r["char_start"] : r["char_end"]] for r in mine) == text
        assert sum(r["token_count"] for r in mine) == len(tokenizer(text, add_special_tokens=False)["input_ids"])
        assert [r["token_start"] for r in mine] == np.cumsum([0, *[r["token_count"] for r in mine]])[:-1].tolist()
        for r in mine:
            assert r["token_count"] <= 24
            assert r["n_tokens"] == r["token_count"]  # BOS stands before it
            assert r["doc_key"] == hashing.doc_key("a.jsonl", index)
            assert r["sample_id"] == hashing.sample_id(r["doc_key"], r["char_start"], r["char_end"])
            part = text[r["char_start"] : r["char_end"]]
            assert r["content_hash"] == hashing.content_hash(part.encode())
            assert json.loads(lines[r["byte_offset"] :][: r["byte_length"]])["id"] == r["doc_id"] == f"d{index}"
            assert (r["lang"], r["pool_prob"]) == ("ab"[index % 2], 1.0)
            assert r["grad_norm"] == r["sketch_norm"] > 0
            assert r["loss_sum"] > 0
    for name in ("direction", "validation"):
        np.testing.assert_allclose(np.linalg.norm(vectors(table, name), axis=1), 1, atol=2e-3)
    header = io.read_json(str(tmp_path / "run" / "run.json"))
    validate(header, "run")
    assert header["totals"]["windows"] == len(rows)
    shards = pq.read_table(tmp_path / "run" / "shards.parquet").to_pylist()
    tokens = sum(table["token_count"].to_pylist())
    assert [(s["path"], s["rows"], s["tokens"]) for s in shards] == [("a.jsonl", 5, tokens)]


def test_damage_is_counted_and_moves_no_row(tiny_lm, corpus, tmp_path):
    summary, table = run(tiny_lm, corpus, tmp_path / "run", "b.jsonl.gz")
    assert sorted(set(table["row_index"].to_pylist())) == [0, 3, 5]
    rejects = pq.read_table(tmp_path / "run" / "rejects" / "000000-00000.parquet").to_pylist()
    assert [(r["row_index"], r["reason"]) for r in rejects] == [(1, "bad_json"), (2, "blank_line"), (4, "null_text")]
    assert rejects[0]["first_bytes"] == b"{broken"
    assert summary.totals["rows read"] == 6
    assert "bad_json" in summary.warnings[0]
    units = pq.read_table(tmp_path / "run" / "units.parquet").to_pylist()
    assert [(u["rows_read"], u["rows_kept"], u["rows_rejected"]) for u in units] == [(6, 3, 3)]


def test_a_file_that_breaks_off_is_named(tiny_lm, corpus, tmp_path):
    whole = (corpus / "b.jsonl.gz").read_bytes()
    (corpus / "b.jsonl.gz").write_bytes(whole[:-30])
    summary, _ = run(tiny_lm, corpus, tmp_path / "run", "b.jsonl.gz", max_bad_fraction=1.0)
    assert "b.jsonl.gz: truncated_stream at row" in summary.warnings[0]
    assert summary.totals["rows read"] == summary.totals["rows kept"] + summary.totals["rows rejected"]


def test_why_a_file_can_not_be_read_is_told(tiny_lm, tmp_path):
    for name, lines in {"a": b"0,40\n", "b": b"no places\n"}.items():
        np.save(tmp_path / f"{name}.npy", np.arange(40, dtype="<u2"))
        (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(lines))
    summary, _ = run(tiny_lm, tmp_path, tmp_path / "run", "*.npy", group_by=(), max_bad_fraction=1.0)
    why = r"\(?the \.csv\.gz does not say where documents lie \(.*\); restore it, or move it away, so that"
    assert re.search(rf"b\.npy: unreadable_index at row 0; .* is lost: {why}", summary.warnings[0])
    with pytest.raises(
        BadInputError, match=rf"1 of 2 rows .*; .*b\.npy can't be read from row 0 on {why} .*; see .*rejects"
    ):
        run(tiny_lm, tmp_path, tmp_path / "few", "*.npy", group_by=(), max_bad_fraction=0.1)


def test_bytes_that_were_not_read_count_as_bad_and_are_told_ever_after(tiny_lm, corpus, tmp_path):
    """Three rejects are few, but they stand for most of the corpus: a share of rows alone would let this pass."""
    lines = "".join(json.dumps({"text": f"{i} {os.urandom(40).hex()} of the story"}) + "\n" for i in range(400))
    whole = gzip.compress(lines.encode())
    (corpus / "b.jsonl.gz").write_bytes(whole[: int(0.15 * len(whole))])
    size = (corpus / "b.jsonl.gz").stat().st_size
    with pytest.raises(BadInputError, match=rf"{size:,} of its {size:,} bytes are lost \(100.0% of the corpus"):
        run(tiny_lm, corpus, tmp_path / "refused", "b.jsonl.gz", max_bad_fraction=0.05)
    out = tmp_path / "run"
    summary, table = run(tiny_lm, corpus, out, "*.jsonl*", max_bad_fraction=1.0)
    assert table.num_rows > 0
    share = size / sum(path.stat().st_size for path in corpus.glob("*.jsonl*"))
    sentence = f"1 shard, of which {size:,} bytes ({share:.2%} of the corpus) are lost"
    assert sentence in " ".join(summary.warnings)
    totals = json.loads((out / "run.json").read_text())["totals"]
    assert (totals["shards_damaged"], totals["bytes_lost"]) == (1, size)
    verified = verify(VerifyConfig(directory=str(out)))
    again, _ = run(tiny_lm, corpus, out, "*.jsonl*", max_bad_fraction=1.0)
    assert again.status == "already done"
    chosen = choose(out, tmp_path / "replay", method="uniform", group_by=None)
    ordered = order(OrderConfig(replay=str(tmp_path / "replay"), out=str(tmp_path / "ordered")))
    exported = export(ExportConfig(replay=str(tmp_path / "ordered"), out=str(tmp_path / "export"), to="jsonl"))
    for found in (again, verified, inspect(str(out)), chosen, inspect(str(tmp_path / "replay")), ordered, exported):
        assert sentence in " ".join(found.warnings), found.command


def test_same_rows_from_every_format_and_block_size(tiny_lm, corpus, tmp_path):
    _, plain = run(tiny_lm, corpus, tmp_path / "plain", tokens_per_batch=100_000)
    records = [json.loads(line) for line in (corpus / "a.jsonl").read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(records), corpus / "a.parquet", row_group_size=2)
    _, parquet = run(tiny_lm, corpus, tmp_path / "parquet", "a.parquet", block_bytes=1)
    _, blocks = run(tiny_lm, corpus, tmp_path / "blocks", block_bytes=600)
    assert len(io.list_names(str(tmp_path / "blocks" / "embeddings"))) > 1
    assert len(io.list_names(str(tmp_path / "parquet" / "embeddings"))) == len(TEXTS)  # inside row groups too
    for other in (parquet, blocks):
        assert other["content_hash"].to_pylist() == plain["content_hash"].to_pylist()
        np.testing.assert_allclose(vectors(other, "direction"), vectors(plain, "direction"), atol=1e-3)
        np.testing.assert_allclose(other["sketch_norm"].to_numpy(), plain["sketch_norm"].to_numpy(), rtol=1e-5)
    assert blocks["sample_id"].to_pylist() == plain["sample_id"].to_pylist()


def test_int8_keeps_the_direction(tiny_lm, corpus, tmp_path):
    _, half = run(tiny_lm, corpus, tmp_path / "half")
    _, byte = run(tiny_lm, corpus, tmp_path / "byte", storage="int8", norm="exact")
    direction = vectors(byte, "direction") * byte["direction_scale"].to_numpy()[:, None]
    cosines = (direction * vectors(half, "direction")).sum(axis=1) / np.linalg.norm(direction, axis=1)
    assert cosines.min() > 0.9995
    ratio = byte["grad_norm"].to_numpy() / half["grad_norm"].to_numpy()
    assert (ratio != 1).any()  # exact against sketched
    assert ratio.std() < 0.05


def test_quantise_is_within_half_a_step():
    rows = np.random.default_rng(0).standard_normal((20, 64)).astype(np.float32)
    codes, scale = quantise(rows)
    assert np.abs(codes).max() == 127
    assert (np.abs(codes * scale[:, None] - rows) <= scale[:, None] * 0.5001).all()


def test_exclusions_hold_for_documents_and_windows(tiny_lm, corpus, tmp_path):
    _, table = run(tiny_lm, corpus, tmp_path / "all")
    rows = table.to_pylist()
    text_hash = hashing.content_hash(TEXTS[2].encode()).hex()
    gone = ["d0", rows[-1]["sample_id"], rows[-2]["content_hash"].hex(), text_hash, "# a comment", ""]
    (tmp_path / "gone.txt").write_text("\n".join(gone))
    summary, rest = run(tiny_lm, corpus, tmp_path / "rest", exclude=str(tmp_path / "gone.txt"))
    kept = [r["sample_id"] for r in rows if r["row_index"] not in (0, 2)]
    same = [r["sample_id"] for r in rows if r["content_hash"] == rows[-2]["content_hash"]]
    assert rest["sample_id"].to_pylist() == [s for s in kept if s not in {rows[-1]["sample_id"], *same}]
    assert summary.totals["rows excluded"] == 2


def test_text_that_spells_a_special_token_is_counted_and_can_stay_text(tiny_lm, corpus, tmp_path):
    texts = ["a <|endoftext|> b", "nothing special", "<|endoftext|>" * 3 + " end", "<|endoftext"]
    (corpus / "s.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    summary, rows = run(tiny_lm, corpus, tmp_path / "special", "s.jsonl")
    assert summary.totals["rows with special tokens"] == 2
    assert summary.warnings[0].startswith("the text of 2 rows spells a special token of the model")
    assert json.loads((tmp_path / "special" / "run.json").read_text())["totals"]["rows_special"] == 2
    split_summary, split = run(tiny_lm, corpus, tmp_path / "split", "s.jsonl", split_special_tokens=True)
    assert "rows with special tokens" not in split_summary.totals
    assert json.loads((tmp_path / "split" / "run.json").read_text())["options"]["split_special_tokens"] is True
    counts = [table["token_count"].to_pylist() for table in (rows, split)]
    assert [more > few for few, more in zip(*counts, strict=True)] == [True, False, True, False]
    for table in (rows, split):  # offsets hold in both
        assert table["char_end"].to_pylist() == [len(text) for text in texts]
    with pytest.raises(UsageError, match="was begun with --split-special-tokens False, now True"):
        run(tiny_lm, corpus, tmp_path / "special", "s.jsonl", split_special_tokens=True)


def test_files_without_a_suffix_have_the_format_that_is_named(tiny_lm, corpus, tmp_path):
    spark = corpus / "spark.jsonl"
    spark.mkdir()
    (spark / "part-00000").write_bytes((corpus / "a.jsonl").read_bytes())
    (spark / "_SUCCESS").write_bytes(b"")
    with pytest.raises(UsageError, match=r"spark\.jsonl: is a directory"):
        run(tiny_lm, corpus, tmp_path / "run", "*.jsonl")
    _, rows = run(tiny_lm, corpus, tmp_path / "run", "spark.jsonl/*", format="jsonl")
    _, expected = run(tiny_lm, corpus, tmp_path / "plain", "a.jsonl")
    assert rows["content_hash"].to_pylist() == expected["content_hash"].to_pylist()
    assert io.read_parquet(str(tmp_path / "run" / "shards.parquet"))["format"].to_pylist() == ["jsonl"]
    with pytest.raises(UsageError, match="was begun with --format jsonl, now parquet"):
        run(tiny_lm, corpus, tmp_path / "run", "spark.jsonl/*", format="parquet")
    with pytest.raises(UsageError, match="--format csv: must be one of jsonl, parquet"):
        run(tiny_lm, corpus, tmp_path / "run", "spark.jsonl/*", format="csv")


@pytest.mark.parametrize("pattern", ["**/*.parquet", "**", "*"])
def test_an_output_that_a_rerun_would_read_is_refused(tiny_lm, corpus, tmp_path, pattern):
    pq.write_table(pa.table({"text": TEXTS}), corpus / "c.parquet")
    with pytest.raises(UsageError, match="lies among the inputs"):
        run(tiny_lm, corpus, corpus / "run", pattern)
    assert not (corpus / "run").exists()


def test_limit_reads_the_first_rows_of_every_shard(tiny_lm, corpus, tmp_path):
    summary, table = run(tiny_lm, corpus, tmp_path / "run", "*", limit=2)
    assert summary.totals["rows read"] == 4
    assert set(table["row_index"].to_pylist()) <= {0, 1}


def test_dry_run_writes_nothing_and_estimates(tiny_lm, corpus, tmp_path):
    config = EmbedConfig(inputs=(f"{corpus}/*",), model=str(tiny_lm), out=str(tmp_path / "run"), dry_run=True)
    summary = embed(config)
    assert summary.status == "dry-run"
    assert summary.totals["shards"] == 2
    assert summary.totals["tokens (estimate)"] > 100
    assert 0 < summary.totals["hours (estimate)"] < 0.1  # of seconds, which are not told as 0 hours
    assert not (tmp_path / "run").exists()


def test_windows_without_a_prediction_or_a_cut_are_rejected_by_name(tiny_lm):
    tokenizer = load_tokenizer(str(tiny_lm))
    documents = [Document(i, None, text, (), None, None) for i, text in enumerate(["x", "𓀀 fine"])]
    block = DocumentBlock(0, 0, 2, documents, [], True)
    cut = cut_block("a", block, tokenizer, Prefix("none", ()), max_tokens=2)
    reasons = {(r.row_index, r.window): r.reason for r in cut.rejects}
    assert reasons[0, 0] == "no_predicted_tokens"
    assert reasons[1, 0] == "unsplittable_window"
    assert cut.rows_kept == 2
    assert cut.windows == len(cut.samples) + len(cut.rejects)


class PanicException(BaseException):
    """As the tokenizer's Rust raises it."""


class FailingTokenizer:
    """A tokenizer that fails on texts that hold a word, alone or among others."""

    def __init__(self, whole, word: str) -> None:
        self._whole, self._word = whole, word

    def __getattr__(self, name: str):
        return getattr(self._whole, name)

    def __len__(self) -> int:
        return len(self._whole)

    def __call__(self, texts, **options):
        if any(self._word in text for text in texts):
            raise PanicException("slice index\nin Rust")
        return self._whole(texts, **options)


def test_a_text_on_which_the_tokenizer_fails_is_a_reject(tiny_lm):
    whole = load_tokenizer(str(tiny_lm))
    documents = [Document(i, None, text, (), 10 * i, 9) for i, text in enumerate(["x y", "fine", "bad", "more"])]
    block = DocumentBlock(0, 0, 4, documents, [], True)
    cut = cut_block("a", block, FailingTokenizer(whole, "bad"), Prefix("none", ()), max_tokens=8)
    assert cut.rejects == [Reject(2, None, 20, "tokenizer_failed", "slice index", b"bad")]
    assert cut.rows_kept == 3
    without = replace(block, documents=[*documents[:2], documents[3]])
    expected = cut_block("a", without, whole, Prefix("none", ()), max_tokens=8)
    assert [(s.sample_id, s.ids.tolist()) for s in cut.samples] == [
        (s.sample_id, s.ids.tolist()) for s in expected.samples
    ]


def test_a_tokenizer_that_fails_on_everything_rejects_nothing(tiny_lm):
    broken = FailingTokenizer(load_tokenizer(str(tiny_lm)), "")
    block = DocumentBlock(0, 0, 1, [Document(0, None, "x y", (), None, None)], [], True)
    with pytest.raises(RuntimeError, match=r"^the tokenizer fails on every text: slice index$"):
        cut_block("a", block, broken, Prefix("none", ()), max_tokens=8)


def _word_level(folder: Path, tiny_lm: Path, vocabulary: dict[str, int]) -> Path:
    """The small model with a tokenizer of whole words, without one for others."""
    shutil.copytree(tiny_lm, folder)
    tokenizer = Tokenizer(WordLevel(vocabulary))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


def test_rows_that_no_tokenizer_takes_are_counted_and_named(tiny_lm, tmp_path):
    words = {word: number for number, word in enumerate(["one", "two", "three"])}
    model = _word_level(tmp_path / "model", tiny_lm, words)
    lines = [{"text": text} for text in ("one two three", "one four", "two two one")]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = EmbedConfig(
        inputs=(str(tmp_path / "c.jsonl"),),
        model=str(model),
        out=str(tmp_path / "run"),
        max_bad_fraction=0.5,
    )
    summary = embed(config)
    assert (summary.rows_read, summary.rows_kept, summary.rows_rejected) == (3, 2, 1)
    (reject,) = pq.read_table(tmp_path / "run" / "rejects").to_pylist()
    assert (reject["shard_id"], reject["row_index"], reject["reason"]) == (0, 1, "tokenizer_failed")
    assert "[UNK]" in reject["detail"]
    with pytest.raises(BadInputError, match=r"1 of 3 rows were rejected \(1 tokenizer_failed\).* row 1 of .*c\.jsonl"):
        embed(replace(config, max_bad_fraction=0.1, out=str(tmp_path / "strict")))


def test_a_tokenizer_that_takes_none_of_its_own_tokens_is_refused(tiny_lm, tmp_path):
    model = _word_level(tmp_path / "model", tiny_lm, {"o-n-e": 0, "t-w-o": 1})
    with pytest.raises(UsageError, match=r"--model .*: its tokenizer fails on every text \(.*\); point at a folder"):
        load_tokenizer(str(model))


def test_batches_hold_every_window_once_longest_first():
    lengths = np.random.default_rng(0).integers(1, 50, 200).tolist()
    made = list(batches(lengths, 120))
    assert sorted(i for batch in made for i in batch) == list(range(200))
    assert all(len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 120 for batch in made)
    flat = [lengths[i] for batch in made for i in batch]
    assert flat == sorted(flat, reverse=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_tokens": 5000}, "--max-tokens 5000: the model has 1024 positions"),
        ({"max_tokens": 0}, "--max-tokens 0: must be at least 1"),
        ({"sketch_dim": 0}, "--sketch-dim 0: must be between 1 and 1048576"),
        ({"max_bad_fraction": 2.0}, "--max-bad-fraction 2.0: must be a finite number between 0 and 1"),
        ({"group_by": ("loss_sum",)}, "writes a column of that name itself"),
        ({"storage": "int4"}, "must be one of float16, int8"),
        ({"exclude": "nowhere.txt"}, "nowhere.txt"),
        ({"model": "no/where/at-all"}, "no/where/at-all"),
    ],
)
def test_options_that_can_not_be_used_are_named(tiny_lm, corpus, tmp_path, options, words):
    settings = {"inputs": (f"{corpus}/a.jsonl",), "model": str(tiny_lm), "out": str(tmp_path / "run")} | options
    with pytest.raises(UsageError, match=words):
        embed(EmbedConfig(**settings))
    assert not (tmp_path / "run" / "_SUCCESS").exists()


def test_a_shard_of_which_nothing_is_left_is_an_error(tiny_lm, corpus, tmp_path):
    (corpus / "c.jsonl.gz").write_bytes(b"this is no gzip" * 400)
    with pytest.raises(BadInputError, match=r"c\.jsonl\.gz: 6,000 of its 6,000 bytes are lost"):
        run(tiny_lm, corpus, tmp_path / "run", "[ac].*")
    (corpus / "d.jsonl").write_text("\n\n")
    with pytest.raises(BadInputError, match="no sample was embedded"):
        run(tiny_lm, corpus, tmp_path / "empty", "d.jsonl", max_bad_fraction=1.0)


def test_a_finished_run_that_lost_a_file_makes_it_again(tiny_lm, corpus, tmp_path):
    _, before = run(tiny_lm, corpus, tmp_path / "run", block_bytes=600)
    lost = tmp_path / "run" / "embeddings" / "000000-00001.parquet"
    whole = lost.read_bytes()
    lost.unlink()
    summary, after = run(tiny_lm, corpus, tmp_path / "run", block_bytes=600)
    assert summary.status == "resumed"
    assert lost.read_bytes() == whole
    assert after.equals(before)


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base": "nowhere"}, "--base nowhere: not a local folder"),
        ({"lookahead": ("nowhere/*",)}, "nowhere/.*: no file matches"),
        ({"gradient": "head+body", "mixing": "nowhere"}, "nowhere is not an embedding run"),
    ],
)
def test_what_is_used_later_is_looked_for_before_the_corpus_is_read(
    tiny_lm, corpus, tmp_path, monkeypatch, options, words, dry_run
):
    monkeypatch.setattr("cptsel.pipeline.embed.take_inventory", None)
    monkeypatch.setattr("cptsel.pipeline.embed.estimate", None)
    with pytest.raises(UsageError, match=words):
        run(tiny_lm, corpus, tmp_path / "run", dry_run=dry_run, **options)
    assert not (tmp_path / "run").exists()


def test_another_version_of_torch_is_not_mixed_in(tiny_lm, corpus, tmp_path):
    run(tiny_lm, corpus, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    header = json.loads(path.read_text())
    header["packages"]["torch"] = "1.0"
    path.write_text(json.dumps(header))
    with pytest.raises(UsageError, match=r"was begun with torch 1\.0, now"):
        run(tiny_lm, corpus, tmp_path / "run")


@pytest.mark.parametrize("folder", ["embeddings", "rejects"])
def test_a_finished_run_with_a_rotten_byte_makes_that_unit_again(tiny_lm, corpus, tmp_path, folder):
    _, before = run(tiny_lm, corpus, tmp_path / "run", block_bytes=600)
    victim = tmp_path / "run" / folder / "000000-00001.parquet"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    kept = tmp_path / "run" / "embeddings" / "000000-00000.parquet"
    written = kept.stat().st_mtime_ns
    summary, after = run(tiny_lm, corpus, tmp_path / "run", block_bytes=600)
    assert summary.status == "resumed"
    assert victim.read_bytes() == whole
    assert kept.stat().st_mtime_ns == written
    assert after.equals(before)
    assert run(tiny_lm, corpus, tmp_path / "run", block_bytes=600)[0].status == "already done"
