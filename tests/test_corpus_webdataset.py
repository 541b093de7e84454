"""WebDataset archives: whole, compressed, in blocks of any size, of a pool, and in every way they may be damaged."""

import io
import json
import random
import tarfile

import pytest
from corpus_builders import PACK, read_corpus, tar_bytes

from cptsel.cli.main import main
from cptsel.pipeline.corpus.documents import read_texts
from cptsel.pipeline.corpus.formats import webdataset as webdataset_format
from cptsel.pipeline.corpus.pool import Pool, Range
from cptsel.pipeline.errors import BadInputError

ROWS = [{"id": f"d{i}", "meta": {"lang": "ab"[i % 2]}, "text": f"rów {i} " * (i % 97 + 1)} for i in range(120)]
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def members(rows=ROWS, folder="part/"):
    found = []
    for number, row in enumerate(rows):
        facts = json.dumps({"id": row["id"], "meta": row["meta"]}).encode()
        found += [(f"{folder}{number:05d}.txt", row["text"].encode()), (f"{folder}{number:05d}.json", facts)]
    return found


WHOLE = tar_bytes(members())


def write(path, data=WHOLE):
    path.write_bytes(PACK[path.suffix](data))
    return path


def read(path, **options):
    return read_corpus(path, **{"group_by": ("meta.lang",), **options})


def found(documents):
    return [(d.row_index, d.doc_id, d.content, d.groups) for d in documents]


def expected(rows=None):
    rows = range(len(ROWS)) if rows is None else rows
    return [(i, ROWS[i]["id"], ROWS[i]["text"], (ROWS[i]["meta"]["lang"],)) for i in rows]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.zst"])
@pytest.mark.parametrize("block_bytes", [1, 5000, 8 << 20])
def test_what_is_written_is_read(tmp_path, name, block_bytes):
    path = write(tmp_path / name)
    documents, rejects, _ = read(path, block_bytes=block_bytes)
    assert (found(documents), rejects) == (expected(), [])
    assert found(read(path, block_bytes=block_bytes, limit=50)[0]) == expected(range(50))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("folder", ["", "./", "a.b/ü/", "long/" * 60])
def test_names_of_any_tar(tmp_path, format, folder):
    if format == tarfile.USTAR_FORMAT and len(folder) > 255:
        return
    data = tar_bytes(members(ROWS[:9], folder), format)
    documents, rejects, _ = read(write(tmp_path / "a.tar", data), id_field="__key__", block_bytes=3000)
    assert rejects == []
    assert [(d.doc_id, d.content) for d in documents] == [(f"{folder}{i:05d}", ROWS[i]["text"]) for i in range(9)]


def test_members_that_belong_to_no_sample_are_passed_over(tmp_path):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, kind in [("d", tarfile.DIRTYPE), ("link.txt", tarfile.SYMTYPE), ("hard.txt", tarfile.LNKTYPE)]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "elsewhere"
            tar.addfile(member)
        for name in ["README", "__meta__/a.txt", "._0.txt", "0.TXT", "README", "0.jpg", "1.txt"]:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    documents, rejects, _ = read(write(tmp_path / "a.tar", sink.getvalue()), block_bytes=1)
    assert rejects == []
    assert [(d.doc_id, d.content) for d in documents] == [("0", "0.TXT"), ("1", "1.txt")]


@pytest.mark.parametrize(
    ("field", "text"), [("text", "of txt"), ("txt", "of txt"), ("en.txt", "of en"), ("json.body", "in"), ("body", "in")]
)
def test_where_the_text_stands(tmp_path, field, text):
    facts = json.dumps({"text": "of json", "body": "in", "cls": 3, "n": 4}).encode()
    data = tar_bytes([("0.en.txt", b"of en"), ("0.json", facts), ("0.txt", b"of txt"), ("0.cls", b"7")])
    path = write(tmp_path / "a.tar", data)
    (document,), _, _ = read(path, text_field=field, id_field="cls", group_by=("n", "none", "__key__"))
    assert (document.content, document.doc_id, document.groups) == (text, "7", ("4", None, "0"))
    data = tar_bytes([("0.json", facts)])
    assert [d.content for d in read(write(path, data))[0]] == ["of json"]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.zst"])
def test_samples_outside_the_pool_are_not_read(tmp_path, name, monkeypatch):
    path, pool = write(tmp_path / name), Pool(1, Range(0.0, 0.1))
    taken, real = [], webdataset_format._Reader._data
    monkeypatch.setattr(
        webdataset_format._Reader, "_data", lambda *args: taken.append(args[1].name[5:10]) or real(*args)
    )
    documents, _, not_drawn = read(path, pool=pool, block_bytes=2000)
    drawn = [i for i in range(len(ROWS)) if pool.place(name, i, None) is not None]
    assert found(documents) == expected(drawn)
    assert sorted(set(taken)) == [f"{i:05d}" for i in drawn]
    assert not_drawn == len(ROWS) - len(drawn)


@pytest.mark.parametrize(("name", "compression"), [("a.tar", "none"), ("a.tar.zst", "zstd")])
def test_texts_are_read_again(tmp_path, name, compression):
    path = write(tmp_path / name)
    places = {d.row_index: (d.row_index, d.byte_offset, d.byte_length) for d in read(path)[0]}
    wanted = [3, 3, 41, 119]
    for rows in ([places[i] for i in wanted], [(i, None, None) for i in wanted]):
        assert list(read_texts(str(path), "webdataset", compression, "text", rows)) == [
            (i, ROWS[i]["text"]) for i in wanted
        ]
    with pytest.raises(BadInputError, match=r"row 120 can't be read \(the file has only 120 rows\)"):
        list(read_texts(str(path), "webdataset", compression, "text", [(120, None, None)]))
    if compression == "none":
        with pytest.raises(BadInputError, match=r"row 5 can't be read \(there is no sample at its offset\)"):
            list(read_texts(str(path), "webdataset", compression, "text", [(5, 0, 0)]))
        with pytest.raises(BadInputError, match=r"row 5 can't be read \(unreadable_tar: bad checksum"):
            list(read_texts(str(path), "webdataset", compression, "text", [(5, 700, 1000)]))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.zst"])
@pytest.mark.parametrize("cut", [0.3, 0.31, 0.5, 0.77])
def test_an_archive_that_breaks_off_keeps_what_comes_before(tmp_path, name, cut):
    """The sample at hand stands for the rest, as nothing tells whether it had more members."""
    size = int(len(WHOLE) * cut)
    path = write(tmp_path / name, WHOLE[:size])
    documents, (reject,), _ = read(path, block_bytes=5000)
    assert found(documents) == expected(range(len(documents)))
    assert (reject.row_index, reject.reason) == (len(documents), "truncated_stream")
    if name == "a.tar":
        assert reject.bytes_lost == size - documents[-1].byte_offset - documents[-1].byte_length
    _, (reject,), _ = read(path, block_bytes=5000, pool=Pool(0, Range(0.0, 1e-9)))
    assert reject.reason == "truncated_stream"


@pytest.mark.parametrize("after", [0, 1])
def test_an_archive_without_the_mark_of_its_end(tmp_path, after):
    """It ends between members: after a whole sample, or between two members of one."""
    places = [d.byte_offset for d in read(write(tmp_path / "a.tar"))[0]]
    size = places[50] + after * (512 + -(-len(ROWS[50]["text"].encode()) // 512) * 512)
    documents, (reject,), _ = read(write(tmp_path / "a.tar", WHOLE[:size]), block_bytes=2000)
    assert found(documents) == expected(range(49 + after))
    assert (reject.row_index, reject.reason) == (49 + after, "truncated_stream")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize("member", [0, 1])
def test_a_damaged_header_costs_what_follows(tmp_path, name, member):
    places = [d.byte_offset for d in read(write(tmp_path / "a.tar"))[0]]
    data = bytearray(WHOLE)
    data[places[50] + member * (512 + -(-len(ROWS[50]["text"].encode()) // 512) * 512) + 3] ^= 1
    documents, (reject,), _ = read(write(tmp_path / name, bytes(data)), block_bytes=2000)
    assert found(documents) == expected(range(49 + member))  # the header may be that of a member more
    assert (reject.row_index, reject.reason) == (49 + member, "unreadable_tar")
    assert reject.detail.startswith("bad checksum in the header at byte ")
    if name == "a.tar":
        assert reject.bytes_lost == len(WHOLE) - places[49 + member]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.zst"])
def test_what_follows_the_mark_of_the_end_is_told(tmp_path, name):
    documents, (reject,), _ = read(write(tmp_path / name, WHOLE + WHOLE), block_bytes=2000)
    assert found(documents) == expected()
    assert (reject.row_index, reject.reason) == (120, "trailing_garbage")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_damaged_end_of_a_compressed_archive_is_told(tmp_path, suffix):
    path = tmp_path / f"a.tar{suffix}"
    path.write_bytes(PACK[suffix](WHOLE)[:-1])
    documents, (reject,), _ = read(path)
    assert found(documents) == expected()
    assert (reject.row_index, reject.reason) == (120, "truncated_stream")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_piece_of_a_compressed_stream_may_end_inside_the_mark_of_the_end(tmp_path, suffix):
    at = len(WHOLE.rstrip(b"\0")) // 512 * 512 + 512 + 100
    assert not any(WHOLE[at - 100 :])
    path = tmp_path / f"a.tar{suffix}"
    path.write_bytes(PACK[suffix](WHOLE[:at]) + PACK[suffix](WHOLE[at:]))
    documents, rejects, _ = read(path)
    assert (found(documents), rejects) == (expected(), [])


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ([("1.json", b"{}")], "missing_text"),
        ([("1.jpg", b"\xff\xd8")], "missing_text"),
        ([("1.txt", b"")], "empty_text"),
        ([("1.txt", b"b\xffd")], "bad_utf8"),
        ([("1.txt", b"a\0b")], "nul_character"),
        ([("1.txt", b"x"), ("1.json", b"{")], "bad_json"),
        ([("1.txt", b"x"), ("1.json", b"[" * 100_000)], "bad_json"),
        ([("1.txt", b"x"), ("1.json", b'"\xff"')], "bad_utf8"),
        ([("1.txt", b"x"), ("1.json", b'{"id": []}')], "bad_id"),
        ([("1.txt", b"x"), ("1.json", b'{"meta": {"lang": []}}')], "nested_group"),
        ([("1.txt", b"x"), ("1.txt", b"y")], "duplicate_member"),
        ([("1.txt", b"x" * 200_001)], "document_too_long"),
    ],
)
def test_a_bad_sample_costs_itself(tmp_path, sample, reason):
    path = write(tmp_path / "a.tar", tar_bytes([("0.txt", b"good"), *sample, ("2.txt", b"good")]))
    documents, (reject,), _ = read(path, max_line_bytes=200_000)
    assert [d.row_index for d in documents] == [0, 2]
    assert (reject.row_index, reject.reason, reject.bytes_lost) == (1, reason, 0)


@pytest.mark.parametrize("data", [b"", b"{}" * 900, PACK[".gz"](WHOLE), b"PAR1" * 400, tar_bytes([("doc", b"text")])])
def test_what_is_no_archive_is_one_reject(tmp_path, data):
    (tmp_path / "a.tar").write_bytes(data)
    documents, (reject,), _ = read(tmp_path / "a.tar")
    assert (documents, reject.row_index, reject.bytes_lost) == ([], 0, len(data))
    assert reject.reason == ("wrong_format" if data else "truncated_stream")
    assert read(write(tmp_path / "b.tar", tar_bytes([]))) == ([], [], 0)


@pytest.mark.parametrize("format", FORMATS)
def test_flipped_bits_never_lose_a_sample_in_silence(tmp_path, format):
    """And a compressed archive is read like the same archive without compression."""
    rng, few = random.Random(0), tar_bytes(members(ROWS[:20], "ü" * 60 + "/"), format)
    for _ in range(150):
        data = bytearray(few)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        documents, rejects, _ = read(write(tmp_path / "a.tar", bytes(data)), block_bytes=4000)
        indices = sorted([d.row_index for d in documents] + [r.row_index for r in rejects])
        assert indices == list(range(len(indices)))
        assert len(indices) >= 20 or rejects[-1].bytes_lost
        stream = read(write(tmp_path / "a.tar.zst", bytes(data)), block_bytes=4000)
        assert found(stream[0]) == found(documents)
        assert [(r.row_index, r.reason) for r in stream[1]] == [(r.row_index, r.reason) for r in rejects]


def test_archives_go_all_the_way_and_what_export_writes_is_embedded(tiny_lm, tmp_path, capsys):
    rows = [{**ROWS[i], "text": f"Weights and measures of sample {i}. " * 4} for i in range(24)]
    (tmp_path / "old").mkdir()
    write(tmp_path / "old" / "0.tar", tar_bytes(members(rows[:12])))
    write(tmp_path / "old" / "1.tar.gz", tar_bytes(members(rows[12:])))
    run, replay, out = (str(tmp_path / name) for name in ("run", "replay", "out"))
    options = ["--model", str(tiny_lm), "--max-tokens", "64"]
    assert main(["embed", f"{tmp_path}/old/*", "--group-by", "meta.lang", *options, "--out", run]) == 0
    assert main(["select", run, "--method", "uniform", "--budget", "50%", "--out", replay]) == 0
    assert main(["verify", replay, "--sources"]) == 0
    assert main(["export", replay, "--to", "webdataset", "--out", out]) == 0
    capsys.readouterr()
    (path,) = (tmp_path / "out" / "data").glob("*.tar")
    documents, rejects, _ = read_corpus(path, id_field="sample_id", group_by=("group", "repeat"))
    assert (len(documents), rejects) == (12, [])
    assert {d.content for d in documents} <= {row["text"] for row in rows}
    assert {d.groups for d in documents} == {("all", "1")}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["a.txt", "żółć/" + "a" * 90 + ".txt", "f/" * 60 + "a.txt", "a" * 100, "d/"])
def test_headers_are_taken_apart_as_by_tarfile(format, name):
    """Every header is that of tarfile, or none, with one byte changed too."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uid, info.mtime = 0o123456, 0o644, 1000, 1_700_000_000
    info.uname, info.type = "someone", tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
    rng = random.Random(name)
    data = info.tobuf(format, "utf-8", "surrogateescape")
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    regular = [block for block in blocks if webdataset_format._plain(block) is not None]
    assert bool(regular) == (not name.endswith("/"))
    for block in blocks:
        for number in range(600):
            changed = bytearray(block)
            if number:
                changed[rng.randrange(512)] = rng.choice((0, 32, 48, 55, 56, 200, rng.randrange(256)))
                if number % 2:  # the checksum of what is there now
                    changed[148:156] = b" " * 8
                    changed[148:156] = f"{sum(changed):06o}\0 ".encode()
            found = webdataset_format._plain(bytes(changed))
            assert webdataset_format._sum(changed) == sum(changed)
            if found is not None:
                theirs = tarfile.TarInfo.frombuf(bytes(changed), "utf-8", "surrogateescape")
                assert (theirs.name, theirs.size, theirs.isreg()) == (*found, True)


def test_the_sum_of_the_largest_header():
    assert webdataset_format._sum(b"\xff" * 512) == 512 * 255
