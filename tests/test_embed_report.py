"""What embed says of rows and files that it could not use."""

import pytest

from cptsel.pipeline.artifacts.damage import damage_of, run_warnings
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.embedding.report import SHOWN, Reject, Rejects, check_damage
from cptsel.pipeline.errors import BadInputError


def test_a_file_of_which_no_row_could_be_used_is_named_once():
    rejects = Rejects({"missing_text": 5, "truncated_stream": 1}, [Reject("/c/b.gz", 4, "truncated_stream")])
    said = rejects.warnings(["/c/a.parquet", "/c/b.gz"])
    assert said[:2] == [
        "/c/b.gz: truncated_stream at row 4; what comes after it in this file is lost",
        "/c/a.parquet: none of its rows could be used",
    ]
    assert [sentence for sentence in said[2:] if "/c/" in sentence] == []
    many = Rejects({"missing_text": 9}, []).warnings([f"/c/{number}" for number in range(SHOWN + 3)])
    assert [sentence.partition(" more")[0] for sentence in many if "more files" in sentence] == ["and 3"]


def test_errors_say_where_the_rejects_begin():
    see = "see /run/rejects, mend the corpus, or allow more with --max-bad-fraction"
    assert Rejects({"blank_line": 1}, []).remedy("/run") == see
    bad = Reject("/c/a", 7, "bad_json")
    assert Rejects({"bad_json": 2}, [], bad).remedy("/run") == f"the first is row 7 of /c/a (bad_json); {see}"
    broken = Reject("/c/b.gz", 3, "truncated_stream", "it ends early")
    assert Rejects({}, [broken], broken).remedy("/run") == f"/c/b.gz can't be read from row 3 on (it ends early); {see}"


def test_damage_of_pools_of_one_corpus_counts_once():
    def header(corpus, shards, lost):
        totals = {"shards_damaged": shards, "bytes_lost": lost}
        return {"fingerprints": {"corpus": corpus}, "corpus": {"bytes": 1000}, "totals": totals}

    pools = [header("a", 2, 30), header("a", 3, 40)]
    assert damage_of(pools) == {"shards": 3, "bytes_lost": 40, "bytes": 1000}
    assert damage_of([*pools, header("b", 1, 5)]) == {"shards": 4, "bytes_lost": 45, "bytes": 2000}
    assert damage_of([header("a", 0, 0), header("b", 0, 0)]) is None


@pytest.mark.parametrize(
    ("shards", "lost", "words"),
    [
        (1, 250, "1 shard, of which 250 bytes (25.00% of the corpus) are lost; nothing stands for what was in them"),
        (2, 0, "2 shards of 0 bytes; nothing stands for what was lost"),
        (1, 0, "1 shard of 0 bytes; nothing stands for what was lost"),
    ],
)
def test_what_was_lost_of_the_corpus_is_told(shards, lost, words):
    totals = {"shards_damaged": shards, "bytes_lost": lost}
    header = {"fingerprints": {"corpus": "a"}, "corpus": {"bytes": 1000}, "totals": totals}
    assert run_warnings(header) == [f"the corpus was damaged when it was embedded: {words}"]


@pytest.mark.parametrize("allowed", [0.01, 1.0])
def test_a_wrong_text_field_is_named(allowed):
    config = EmbedConfig(inputs=("/c/a",), model="m", out="/run", text_field="body", max_bad_fraction=allowed)
    totals = {"rows_rejected": 4, "rows_read": 4, "rows_not_drawn": 0, "windows_embedded": 0, "windows": 0}
    rejects = Rejects({"missing_text": 4}, [], Reject("/c/a", 0, "missing_text"))
    with pytest.raises(BadInputError, match=r"none of 4 rows has a text in body; .* row 0 of /c/a .* by --text-field"):
        check_damage(config, [], {}, totals | {"windows_rejected": 0}, rejects)
