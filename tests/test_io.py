"""Files on what is not installed are refused in a sentence; tests of stores that are: ``test_stores.py``."""

import pytest

from cptsel.pipeline import io
from cptsel.pipeline.engine.beam import pipeline_options
from cptsel.pipeline.errors import UsageError


@pytest.mark.parametrize("path", ["nothing://bucket/a", "hdfs://a/b"])
def test_a_filesystem_that_is_not_there_is_named_with_the_remedy(path, monkeypatch):
    monkeypatch.delenv("CPTSEL_FILESYSTEM", raising=False)
    for call in (io.exists, io.read_bytes, io.match, io.delete, lambda path: io.write_bytes(path, b"")):
        with pytest.raises(UsageError, match=f"{path}.*install the extra for it .*or give its options in CPTSEL_FILE"):
            call(path)


def test_options_of_filesystems_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("CPTSEL_FILESYSTEM", "--hdfs_host=here --hdfs_user='a b'")
    options = pipeline_options(["--hdfs_port=1"], 1).get_all_options()
    assert (options["hdfs_host"], options["hdfs_port"], options["hdfs_user"]) == ("here", "1", "a b")
