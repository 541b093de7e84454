"""What a corpus is estimated to hold, against all of it."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cptsel.pipeline.corpus.documents import ReadOptions, read_block, read_stream
from cptsel.pipeline.corpus.listing import list_inputs
from cptsel.pipeline.corpus.shards import inventory
from cptsel.pipeline.embedding.cutting import cut_block
from cptsel.pipeline.embedding.probe import probe
from cptsel.pipeline.model.tokenizer import load_tokenizer, prefix_of

MAX_TOKENS = 256


@pytest.fixture(scope="module", params=["gzip", "plain", "parquet"])
def corpus(request, sample_data, tmp_path_factory):
    """Shards of very different sizes and languages."""
    folder = tmp_path_factory.mktemp("probe")
    for number, path in enumerate(sorted((sample_data / "old").glob("*/*.jsonl.gz"))):
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)[: 40 + 25 * number]
        rows = [{"text": json.loads(line)["text"]} for line in lines]
        if request.param == "gzip":
            (folder / f"{number}.jsonl.gz").write_bytes(gzip.compress(b"".join(lines)))
        elif request.param == "plain":
            (folder / f"{number}.jsonl").write_bytes(b"".join(lines))
        else:
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{number}.parquet", row_group_size=50)
    return list_inputs((str(folder / "*"),), None)[1]


def test_estimates_are_within_a_fifth(corpus, tiny_lm):
    tokenizer = load_tokenizer(str(tiny_lm))
    prefix, read = prefix_of(tokenizer), ReadOptions(id_field=None, block_bytes=100_000)
    found = probe(corpus, read, tokenizer, prefix, MAX_TOKENS, None)
    documents = tokens = samples = 0
    for number, (uri, path, size) in enumerate(corpus):
        shard = inventory(number, uri, path, size, read.block_bytes)
        blocks = (
            read_stream(shard, read) if shard.blocks is None else [read_block(shard, b, read) for b in shard.blocks]
        )
        for block in blocks:
            cut = cut_block(path, block, tokenizer, prefix, MAX_TOKENS)
            documents += cut.rows_kept
            samples += len(cut.samples)
            tokens += sum(len(sample.ids) for sample in cut.samples)
    assert found.documents == pytest.approx(documents, rel=0.2)
    assert found.tokens == pytest.approx(tokens, rel=0.2)
    assert found.samples == pytest.approx(samples, rel=0.2)
