"""Files on what is not installed, and on a full disk, are refused in a sentence, and folders may go while they are
looked at; tests of stores that are installed: ``test_stores.py``."""

import errno
import os
import shutil
import sys
from types import ModuleType

import pyarrow as pa
import pytest

from cptsel.pipeline import io, stores
from cptsel.pipeline.engine.beam import pipeline_options
from cptsel.pipeline.errors import PartialError, UsageError

_CALLS = (io.exists, io.read_bytes, io.match, io.delete, lambda path: io.write_bytes(path, b""))


def _refusing(monkeypatch, error):
    """Beam's filesystems, none of which can be made."""

    def refuse(_path):
        raise error

    monkeypatch.setattr(stores.FileSystems, "get_filesystem", refuse)


@pytest.mark.parametrize(
    ("path", "package", "extra"),
    [("gs://b/a", "google.cloud.storage", "gcs"), ("hdfs://a/b", "hdfs", "hdfs"), ("s3://b/a", "boto3", "s3")],
)
@pytest.mark.parametrize("error", [ValueError("no filesystem"), AssertionError("Missing boto3 requirement")])
def test_packages_that_a_filesystem_lacks_are_named_with_the_extra(path, package, extra, error, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    _refusing(monkeypatch, error)
    for call in _CALLS:
        with pytest.raises(UsageError) as raised:
            call(path)
        assert str(raised.value).startswith(f"{path}: can't be ")
        assert str(raised.value).endswith(f": {package} is not installed; pip install 'cptsel[{extra}]'")


@pytest.mark.parametrize("path", ["nothing://bucket/a", "file:///tmp/a"])
def test_a_filesystem_that_is_not_there_is_named_with_the_remedy(path):
    scheme = path.partition("/")[0]
    for call in _CALLS:
        with pytest.raises(UsageError, match=rf"{path}: can't be .*no filesystem for {scheme}//; give a local path"):
            call(path)


def test_options_that_a_filesystem_lacks_are_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "hdfs", ModuleType("hdfs"))
    _refusing(monkeypatch, ValueError("hdfs_host is not set"))
    for call in _CALLS:
        with pytest.raises(
            UsageError, match=r"hdfs://a/b: can't be \w+ \(hdfs_host is.*options of its filesystem in CPTSEL_F"
        ):
            call("hdfs://a/b")


def test_options_of_filesystems_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("CPTSEL_FILESYSTEM", "--hdfs_host=here --hdfs_user='a b'")
    options = pipeline_options(["--hdfs_port=1"], 1).get_all_options()
    assert (options["hdfs_host"], options["hdfs_port"], options["hdfs_user"]) == ("here", "1", "a b")


def test_a_file_that_can_not_be_made_is_named_and_not_its_temporary_one(tmp_path):
    path = str(tmp_path / ("a" * 250))  # for which the temporary name is too long
    with pytest.raises(OSError, match="too long") as raised:
        io.write_bytes(path, b"")
    assert raised.value.filename == path


def test_folders_that_go_meanwhile_are_no_error(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    scandir = os.scandir

    def vanishing(path):
        if path == str(tmp_path / "a"):
            shutil.rmtree(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    io.delete_files(str(tmp_path), [])
    assert os.listdir(tmp_path) == []


def test_a_file_that_another_process_deletes_meanwhile_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "exists", lambda path: True)  # a moment ago
    io.delete(str(tmp_path / "gone"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_links_on_a_full_disk_ask_for_room_as_files_do(tmp_path, monkeypatch, code):
    for folder in ("from", "to"):
        (tmp_path / folder).mkdir()
    (tmp_path / "from" / "x").write_bytes(b"")

    def full(name, *_, **__):
        raise OSError(code, os.strerror(code), name)

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(PartialError, match=r"/to/x: can't be written \(.*\); make room and run the command again"):
        io.link_files(str(tmp_path / "from"), str(tmp_path / "to"), ["x"])


def test_only_what_a_later_command_reads_waits_for_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    table = pa.table({"a": [1, 2]})
    io.write_scratch(str(tmp_path / "scratch.parquet"), table)
    io.write_scratch(str(tmp_path / "scratch"), b"x")
    assert not synced
    io.write_parquet(str(tmp_path / "kept.parquet"), table)
    assert len(synced) == 1
    assert (tmp_path / "scratch.parquet").read_bytes() == (tmp_path / "kept.parquet").read_bytes()
    assert (tmp_path / "scratch").read_bytes() == b"x"


def test_tables_come_in_order_and_only_a_few_are_read_ahead(tmp_path, monkeypatch):
    paths = [str(tmp_path / f"{number}.parquet") for number in range(40)]
    for number, path in enumerate(paths):
        io.write_parquet(path, pa.table({"a": [number], "b": [0]}))
    asked, read = [], io.read_parquet
    monkeypatch.setattr(io, "read_parquet", lambda path, columns: asked.append(path) or read(path, columns))
    for number, table in enumerate(io.read_tables(paths, ["a"])):
        assert table.to_pydict() == {"a": [number]}
        assert len(asked) <= number + 1 + io._AHEAD
    assert sorted(asked) == sorted(paths)
    assert list(io.read_tables([])) == []
    paths[20] = str(tmp_path / "missing")
    with pytest.raises(UsageError, match="missing is missing"):
        list(io.read_tables(paths))
