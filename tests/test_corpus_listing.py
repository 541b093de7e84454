"""Which files a corpus consists of, and what the inventory says about each."""

import hashlib
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cptsel.pipeline.corpus.formats.registry import file_format
from cptsel.pipeline.corpus.shards import Block, inventory, list_inputs, would_find
from cptsel.pipeline.errors import UsageError


@pytest.fixture
def corpus(tmp_path):
    for name in ["en/a.jsonl", "en/b.jsonl.gz", "de/a.jsonl.zst", "de/deep/c.parquet", "en/.hidden.jsonl", "notes.md"]:
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))
    return tmp_path / "corpus"


def paths(listed):
    return [path for _, path, _ in listed[1]]


def test_globs_are_sorted_by_path_and_sized(corpus):
    root, files = list_inputs([f"{corpus}/en/*.jsonl*", f"{corpus}/de/*.zst"], None)
    assert root == str(corpus)
    assert files == [
        (f"{corpus}/de/a.jsonl.zst", "de/a.jsonl.zst", 14),
        (f"{corpus}/en/a.jsonl", "en/a.jsonl", 10),
        (f"{corpus}/en/b.jsonl.gz", "en/b.jsonl.gz", 13),
    ]


def test_two_stars_match_any_depth(corpus):
    assert paths(list_inputs([f"{corpus}/de/**/*"], None)) == ["a.jsonl.zst", "deep/c.parquet"]


def test_a_file_named_twice_is_listed_once(corpus):
    assert paths(list_inputs([f"{corpus}/en/a.jsonl", f"{corpus}/en/*.jsonl"], None)) == ["a.jsonl"]


def test_the_root_is_what_all_patterns_share_before_their_globs(corpus):
    assert list_inputs([f"{corpus}/*/a.jsonl"], None)[0] == str(corpus)
    assert list_inputs([f"{corpus}/en/a.jsonl"], None)[0] == f"{corpus}/en"
    assert list_inputs([f"{corpus}/de/deep/*.parquet", f"{corpus}/de/*.zst"], None)[0] == f"{corpus}/de"
    assert list_inputs([f"{corpus}/en/a.jsonl"], str(corpus.parent))[0] == str(corpus.parent)


def test_directories_that_begin_alike_are_not_a_common_root(tmp_path):
    for name in ["old1", "old2"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_bytes(b"")
    root, files = list_inputs([f"{tmp_path}/old1/*.jsonl", f"{tmp_path}/old2/*.jsonl"], None)
    assert (root, [path for _, path, _ in files]) == (str(tmp_path), ["old1/a.jsonl", "old2/a.jsonl"])


def test_relative_paths_are_made_absolute(corpus, monkeypatch):
    monkeypatch.chdir(corpus)
    assert list_inputs(["en/*.jsonl"], None) == list_inputs([f"{corpus}/en/*.jsonl"], None)
    assert list_inputs(["en/*.jsonl"], ".")[0] == str(corpus)


def test_a_path_with_glob_characters_that_is_there_is_taken_literally(tmp_path):
    path = tmp_path / "part[1]" / "a*.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"")
    root, files = list_inputs([str(path)], None)
    assert (root, files) == (str(path.parent), [(str(path), "a*.jsonl", 0)])


def test_hidden_files_only_when_named(corpus):
    assert paths(list_inputs([f"{corpus}/en/.*.jsonl"], None)) == [".hidden.jsonl"]


def test_hidden_directories_only_when_named(tmp_path):
    """What a notebook, a killed job of Spark and Delta leave beside files would be embedded beside them."""
    corpus = tmp_path / ".cache" / "corpus"
    hidden = (".ipynb_checkpoints", "_temporary/0", "_delta_log")
    for folder in ("de", *hidden, "de/.git", "_de"):
        (corpus / folder).mkdir(parents=True)
        (corpus / folder / "a.jsonl").write_bytes(b"")
    (corpus / ".link").symlink_to(corpus / "de")
    assert paths(list_inputs([f"{corpus}/**/*.jsonl"], None)) == ["_de/a.jsonl", "de/a.jsonl"]
    assert paths(list_inputs([f"{corpus}/*/a.jsonl"], None)) == ["_de/a.jsonl", "de/a.jsonl"]
    assert paths(list_inputs([f"{corpus}/_*/**/*.jsonl"], None)) == [
        "_de/a.jsonl",
        "_delta_log/a.jsonl",
        "_temporary/0/a.jsonl",
    ]
    (corpus / "_de" / ".git").mkdir()
    (corpus / "_de" / ".git" / "a.jsonl").write_bytes(b"")
    assert paths(list_inputs([f"{corpus}/_d*/**/*.jsonl"], None)) == ["_de/a.jsonl", "_delta_log/a.jsonl"]
    for folder in hidden:
        assert paths(list_inputs([f"{corpus}/{folder}/*.jsonl"], None)) == ["a.jsonl"]
    with pytest.raises(UsageError, match="no file matches"):
        list_inputs([f"{corpus}/de/**/.git/*.parquet"], None)


def test_a_list_file(corpus, tmp_path):
    list_file = tmp_path / "list.txt"
    list_file.write_text(f"# the English part\n\n{corpus}/en/*.jsonl\r\n {corpus}/de/a.jsonl.zst \n")
    assert paths(list_inputs([f"@{list_file}"], None)) == ["de/a.jsonl.zst", "en/a.jsonl"]


@pytest.mark.parametrize(
    ("pattern", "root", "phrase"),
    [
        ("{corpus}/fr/*.jsonl", None, r"fr/\*\.jsonl: no file matches"),
        ("{corpus}/en/none.jsonl", None, r"none\.jsonl: no file matches"),
        ("{corpus}/n*", None, r"corpus/notes\.md: unknown suffix; known are \.jsonl"),
        ("{corpus}/en", None, r"en: is a directory; to take its files, give .*/en/\*$"),
        ("{corpus}/en/a.jsonl", "{corpus}/de", "not below --root .*/de; give a root"),
        ("{corpus}/en/a.jsonl", "{corpus}/e", "not below --root"),
        ("@{corpus}/none.txt", None, r"none\.txt: the list can't be read"),
        ("@{corpus}/empty.txt", None, "names no file"),
        ("@{corpus}/latin1.txt", None, "not UTF-8"),
    ],
)
def test_refuses(corpus, pattern, root, phrase):
    (corpus / "empty.txt").write_text("# nothing\n")
    (corpus / "latin1.txt").write_bytes(b"\xe4.jsonl\n")
    with pytest.raises(UsageError, match=phrase):
        list_inputs([pattern.format(corpus=corpus)], root and root.format(corpus=corpus))


def test_a_directory_among_the_matches_is_named_with_the_glob_for_its_files(corpus):
    """Spark writes a directory of parts under the name that it was given."""
    spark = corpus / "spark.jsonl"
    spark.mkdir()
    for name in ("part-00000", "part-00001.gz", "_SUCCESS", ".part-00000.crc", "_committed_123"):
        (spark / name).write_bytes(b"")
    with pytest.raises(UsageError, match=r"spark\.jsonl: is a directory; to take its files, give .*/spark\.jsonl/\*$"):
        list_inputs([f"{corpus}/*.jsonl"], None)
    with pytest.raises(UsageError, match=r"part-00000: unknown suffix; .*say what it is by --format"):
        list_inputs([f"{spark}/*"], None)
    assert paths(list_inputs([f"{spark}/*"], None, "jsonl")) == ["part-00000", "part-00001.gz"]
    assert paths(list_inputs([f"{spark}/_S*"], None, "jsonl")) == ["_SUCCESS"]


def test_what_is_no_file_is_named(corpus):
    (corpus / "en" / "gone.jsonl").symlink_to(corpus / "nowhere.jsonl")
    with pytest.raises(UsageError, match=r"gone\.jsonl: is a link to a file that is not there"):
        list_inputs([f"{corpus}/en/*.jsonl"], None)
    (corpus / "en" / "gone.jsonl").unlink()
    os.mkfifo(corpus / "en" / "pipe.jsonl")
    with pytest.raises(UsageError, match=r"pipe\.jsonl: is no regular file"):
        list_inputs([f"{corpus}/en/*.jsonl"], None)


def test_what_is_not_there_is_named_at_once(corpus, tmp_path):
    """A hundred of them would be a hundred runs."""
    en, listed = corpus / "en", tmp_path / "list"
    listed.write_text(f"{en}/*.jsonl\n" + "".join(f"{corpus}/lost{number}.jsonl\n" for number in range(7)))
    named = ", ".join(f"{corpus}/lost{number}.jsonl" for number in range(5))
    with pytest.raises(UsageError, match=rf"^{named} and 2 more: no file matches any of these; check the paths"):
        list_inputs([f"@{listed}"], None)
    for number in range(6):
        (en / f"gone{number}.jsonl").symlink_to(corpus / "nowhere.jsonl")
    named = ", ".join(f"{en}/gone{number}.jsonl" for number in range(5))
    with pytest.raises(UsageError, match=rf"^{named} and 1 more: are links to files that are not there; mend the"):
        list_inputs([f"{en}/*.jsonl", f"{corpus}/en/gone*"], None)
    for number in range(6):
        (en / f"gone{number}.jsonl").unlink()
    (tmp_path / "elsewhere").mkdir()
    for number in range(2):
        (corpus / f"far{number}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=rf"^{corpus}/far0, {corpus}/far1: are links to directories, .* add patterns"):
        list_inputs([f"{corpus}/*/*.jsonl"], None)


def test_what_a_glob_would_find(corpus):
    assert would_find([f"{corpus}/**/*.parquet"], f"{corpus}/run/embeddings/0.parquet")
    assert would_find([f"{corpus}/**/*.parquet"], f"{corpus}/0.parquet")
    assert not would_find([f"{corpus}/*.parquet"], f"{corpus}/run/0.parquet")
    assert not would_find([f"{corpus}/*/*.jsonl"], f"{corpus}/run/0.parquet")
    assert not would_find([f"{corpus}/**/*.parquet"], f"{corpus}/.runs/1/0.parquet")
    assert not would_find([f"{corpus}/**/*.parquet"], f"{corpus}/.0.parquet")
    assert would_find([f"{corpus}/**/*.parquet", f"{corpus}/.runs/**/*.parquet"], f"{corpus}/.runs/1/0.parquet")


def test_links_that_are_hidden_and_named(corpus, tmp_path):
    """Beam passes over links to nothing and to directories without a word."""
    (tmp_path / "elsewhere").mkdir()
    (corpus / ".far").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=rf"^{corpus}/\.far: is a link to a directory"):
        list_inputs([f"{corpus}/.*/*.jsonl"], None)
    (corpus / "en" / ".gone.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(UsageError, match=r"\.gone\.jsonl: is a link to a file that is not there"):
        list_inputs([f"{corpus}/en/.*.jsonl"], None)
    assert ".far" not in str(paths(list_inputs([f"{corpus}/*/*.jsonl"], None)))


def test_one_pattern_without_a_match_is_an_error_beside_others(corpus):
    with pytest.raises(UsageError, match="fr/"):
        list_inputs([f"{corpus}/en/*.jsonl", f"{corpus}/fr/*.jsonl"], None)


def test_no_patterns_at_all():
    with pytest.raises(UsageError, match="no input files"):
        list_inputs([], None)


def test_a_file_name_that_is_not_utf8(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.jsonl"
    try:
        with open(name, "wb"):
            pass
    except OSError:
        pytest.skip("this filesystem has no such names")
    with pytest.raises(UsageError, match="not valid UTF-8; rename it"):
        list_inputs([f"{tmp_path}/*.jsonl"], None)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.jsonl", ("jsonl", "none")),
        ("a.json.gz", ("jsonl", "gzip")),
        ("A.NDJSON.ZST", ("jsonl", "zstd")),
        ("a.parquet", ("parquet", "none")),
    ],
)
def test_formats(path, expected):
    assert file_format(path) == expected


def test_a_format_that_is_named_goes_before_the_suffix():
    assert file_format("part-0000", "parquet") == ("parquet", "none")
    assert file_format("part-0000.gz", "jsonl") == ("jsonl", "gzip")
    assert file_format("a.parquet", "jsonl") == ("jsonl", "none")
    for path, named in (("a.parquet.gz", None), ("part-0000.zst", "parquet")):
        with pytest.raises(UsageError, match="parquet is never read from"):
            file_format(path, named)


@pytest.mark.parametrize("path", ["a.txt", "a", "a.gz", "a.jsonl.bz2", "jsonl"])
def test_unknown_formats(path):
    with pytest.raises(UsageError, match="unknown suffix"):
        file_format(path)


def take(path, block_bytes=1 << 20):
    return inventory(3, str(path), path.name, path.stat().st_size, block_bytes)


def test_inventory_of_plain_jsonl(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1234\n\n78901\n2")
    shard = take(path, block_bytes=5)
    assert (shard.shard_id, shard.path, shard.format, shard.compression) == (3, "a.jsonl", "jsonl", "none")
    assert shard.bytes == 13
    assert shard.sha256 == hashlib.sha256(b"1234\n\n78901\n2").hexdigest()
    assert shard.blocks == (Block(0, 0, 5, 0, 1), Block(1, 5, 12, 1, 2), Block(2, 12, 13, 3, 1))


def test_inventory_of_an_empty_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"")
    assert take(path).blocks == (Block(0, 0, 0, 0, 0),)


def test_inventory_of_a_compressed_file_has_no_blocks(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(b"whatever")
    assert take(path).blocks is None


def test_inventory_joins_small_row_groups(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["x" * 100] * 10}), path, row_group_size=1)
    size = pq.ParquetFile(path).metadata.row_group(0).total_byte_size
    blocks = take(path, block_bytes=4 * size).blocks
    assert blocks == (Block(0, 0, 4, 0, 4), Block(1, 4, 8, 4, 4), Block(2, 8, 10, 8, 2))
    assert len(take(path, block_bytes=1).blocks) == 10


def test_inventory_of_a_file_that_is_no_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b'{"text": "no"}\n')
    assert take(path).blocks == (Block(0, 0, 0, 0, 1),)


def test_inventory_of_a_file_that_has_changed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"12345")
    with pytest.raises(OSError, match=r"changed since it was listed \(5 bytes now, 9 then\)"):
        inventory(0, str(path), "a.jsonl", 9, 1 << 20)
    with pytest.raises(FileNotFoundError):
        inventory(0, str(path) + ".jsonl", "a.jsonl", 9, 1 << 20)


@pytest.mark.parametrize("pattern", ["{corpus}/*/*.jsonl*", "{corpus}/**/*.jsonl*"])
def test_what_a_glob_can_not_see_is_named(corpus, tmp_path, pattern):
    """A disk that is not mounted leaves a link to nothing; a link to a directory is passed over by globs."""
    pattern = pattern.format(corpus=corpus)
    whole = list_inputs([pattern], None)
    assert whole[1]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.jsonl").write_text("{}\n")
    (corpus / "far").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"far: is a link to a directory, which globs do not follow"):
        list_inputs([pattern], None)
    assert list_inputs([f"{corpus}/far/*"], None)[1] == [(f"{corpus}/far/x.jsonl", "x.jsonl", 3)]
    beside = list_inputs([pattern, f"{corpus}/far/*"], None)[1]  # the mends that the sentence names
    assert {uri for uri, _, _ in beside} == {uri for uri, _, _ in whole[1]} | {f"{corpus}/far/x.jsonl"}
    without = pattern.replace("*", "[!f]*", 1) if "**" not in pattern else pattern.replace("**", "[!f]*/**")
    assert list_inputs([without], str(corpus))[1] == list_inputs([f"{corpus}/[!f]*/*.jsonl*"], str(corpus))[1]
    (corpus / "far").unlink()
    (corpus / "en" / "gone.jsonl").symlink_to(corpus / "nowhere.jsonl")
    with pytest.raises(UsageError, match=r"gone\.jsonl: is a link to a file that is not there"):
        list_inputs([pattern], None)
    (corpus / "en" / "gone.jsonl").unlink()
    assert list_inputs([pattern], None) == whole


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_directory_that_can_not_be_listed_is_named(corpus):
    (corpus / "en").chmod(0)
    try:
        for pattern in (f"{corpus}/**", f"{corpus}/*/*.jsonl"):
            with pytest.raises(UsageError, match=r"en: can't be listed \(Permission denied\)"):
                list_inputs([pattern], None)
    finally:
        (corpus / "en").chmod(0o755)


@pytest.mark.parametrize("said", ["s3://b/*.jsonl: can't be listed (no credentials)", "no credentials"])
def test_an_error_of_a_store_names_the_path_once(said, monkeypatch):
    def refuse(_form):
        raise OSError(said)

    monkeypatch.setattr("cptsel.pipeline.io.match", refuse)
    with pytest.raises(UsageError) as raised:
        list_inputs(["s3://b/*.jsonl"], None)
    assert str(raised.value) == (
        "s3://b/*.jsonl: can't be listed (no credentials); check the path and your access to it"
    )


def test_an_error_of_listing_is_told(corpus, monkeypatch):
    """As of a directory without access, for which root has no test."""
    walk = os.walk

    def refuse(top, onerror=None, **options):
        if onerror is not None:
            onerror(PermissionError(13, "Permission denied", f"{corpus}/en"))
        return walk(top, onerror=onerror, **options)

    monkeypatch.setattr("os.walk", refuse)
    with pytest.raises(UsageError, match=r"en: can't be listed \(Permission denied\)"):
        list_inputs([f"{corpus}/**"], None)
