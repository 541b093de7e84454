"""Files of every format, damaged at random: each row is kept, rejected, not drawn or excluded, and nothing crashes."""

import contextlib
import random

import pyarrow.parquet as pq
import pytest
from corpus_builders import every_format, mutated, read_corpus

from cptsel.pipeline.corpus.pool import Pool, Range
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.errors import BadInputError

ROWS = [
    {"id": f"id-{row}", "text": f"row {row} of a text " * (1 + row % 5), "lang": ["de", "en", "fr"][row % 3]}
    for row in range(40)
]
FILES = every_format(ROWS)
POOLS = (
    Pool(),
    Pool(3, Range(0.0, 0.4)),
    Pool(3, Range(0.0, 0.2), "lang", {"de": Range(0.0, 1.0), None: Range(0.0, 0.5)}),
)


def test_the_files_are_the_rows():
    assert len(FILES) == 12


@pytest.mark.parametrize("rounds", [20, pytest.param(400, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", FILES)
def test_every_row_is_accounted_for(tmp_path, name, rounds):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    documents, rejects, _ = read_corpus(path, group_by=("lang",))
    assert ([document.content for document in documents], rejects) == ([row["text"] for row in ROWS], [])
    for seed in range(rounds):
        rng = random.Random(f"{name} {seed}")
        path.write_bytes(mutated(FILES[name], FILES[rng.choice(sorted(FILES))], rng))
        for pool in POOLS:
            options = {"group_by": ("lang",), "pool": pool, "block_bytes": rng.choice((1, 300, 1 << 20))}
            documents, rejects, not_drawn = read_corpus(path, **options)  # which counts and judges every block
            rows = [row.row_index for row in (*documents, *rejects)]
            assert len(set(rows)) == len(rows), seed
            if pool.is_all:
                assert sorted(rows) == list(range(len(rows))), seed
                assert not_drawn == 0


@pytest.mark.parametrize("rounds", [range(2), pytest.param(range(2, 60), marks=pytest.mark.long)])
def test_the_command_counts_all_rows_of_a_damaged_corpus(tmp_path, tiny_lm, rounds):
    excluded = tmp_path / "excluded"
    excluded.write_text("id-3\nid-20\n")
    for seed in rounds:
        rng = random.Random(seed)
        corpus = tmp_path / f"corpus-{seed}"
        corpus.mkdir()
        for name, data in FILES.items():
            (corpus / name).write_bytes(mutated(data, FILES[rng.choice(sorted(FILES))], rng))
        out = tmp_path / f"run-{seed}"
        config = EmbedConfig(
            inputs=(f"{corpus}/*",),
            model=str(tiny_lm),
            out=str(out),
            pool=rng.choice((None, "50%")),
            exclude=str(excluded),
            max_tokens=32,
            sketch_dim=16,
            validation_dim=8,
            max_bad_fraction=1.0,
            block_bytes=500,
        )
        with contextlib.suppress(BadInputError):
            embed(config)
        units = pq.read_table(out / "units.parquet")
        total = {
            name: sum(units[name].to_pylist()) for name in units.column_names if name.startswith(("rows_", "windows"))
        }
        parts = [total[f"rows_{name}"] for name in ("kept", "rejected", "not_drawn", "excluded")]
        assert total["rows_read"] == sum(parts) > 0
        assert total["windows"] == sum(total[f"windows_{name}"] for name in ("embedded", "rejected", "excluded"))
        assert total["rows_rejected"] > 0
