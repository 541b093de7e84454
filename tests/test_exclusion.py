"""Lists for --exclude."""

import pytest

from cptsel.pipeline.artifacts.exclusion import read_exclusions
from cptsel.pipeline.errors import UsageError


def test_reads_ids_and_hashes(tmp_path):
    hexadecimal = "ABCDEF0123456789abcdef0123456789"
    path = tmp_path / "list.txt"
    path.write_bytes(f"\ufeffdoc-1\r\n\n# a comment\n  doc 2 \n{hexadecimal}\nline\u2028separator\ndoc-1".encode())
    assert read_exclusions(str(path)) == {"doc-1", "doc 2", hexadecimal, hexadecimal.lower(), "line\u2028separator"}


def test_an_empty_list_excludes_nothing(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"")
    assert read_exclusions(str(path)) == frozenset()


def test_a_missing_list_is_a_usage_error(tmp_path):
    path = str(tmp_path / "none.txt")
    with pytest.raises(UsageError, match=r"none\.txt: can't be read \(No such file or directory\)"):
        read_exclusions(path)


def test_a_list_in_another_encoding_is_a_usage_error(tmp_path):
    path = tmp_path / "latin1.txt"
    path.write_bytes("größe".encode("latin-1"))
    with pytest.raises(UsageError, match=r"latin1\.txt: line 1 is not UTF-8"):
        read_exclusions(str(path))


def test_what_has_no_end_is_no_list():
    with pytest.raises(UsageError, match=r"/dev/zero: line 1 has more than 65536 bytes"):
        read_exclusions("/dev/zero")
