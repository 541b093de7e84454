"""Object stores and HDFS, by Beam's own filesystems: the bytes of local files, and a kill at any request.

The stores are stand-ins on loopback: moto for S3, gcp-storage-emulator for Google Cloud Storage, ``engines/webhdfs.py``
for HDFS. They and the stores' clients are in the environment that ``environments.py`` makes; its Python runs these
tests: ``.engines/stores/bin/python -m pytest -m stores``.
"""

import gzip
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from store_servers import store_servers

from cptsel.cli.main import main
from cptsel.pipeline import io
from cptsel.pipeline.artifacts import outputs
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.engine.steps import InlineSteps
from cptsel.pipeline.export import export
from cptsel.pipeline.exports.config import ExportConfig
from cptsel.pipeline.inspect import inspect
from cptsel.pipeline.order import order
from cptsel.pipeline.ordering.config import OrderConfig
from cptsel.pipeline.select import select
from cptsel.pipeline.selection.config import SelectConfig
from cptsel.pipeline.verification.config import VerifyConfig
from cptsel.pipeline.verify import verify

EMBED = {"max_tokens": 64, "sketch_dim": 64, "validation_dim": 32, "block_bytes": 10_000, "group_by": ("source",)}
#: Files that name the place of the corpus or of the run, or have the sums of files that do.
ADDRESSED = {
    *("run.json", "shards.parquet", "manifest.json", "CONSUMING.md", outputs.SUMS),
    *("export.json", "TRAINING.md", "README.md", "croissant.json"),
}


@pytest.fixture(scope="module")
def servers() -> Iterator[None]:
    with store_servers():
        yield


@pytest.fixture(params=["s3", "gs", "hdfs"])
def place(servers, request) -> str:
    """A folder of a store, with nothing in it."""
    return f"{request.param}://bucket/{uuid.uuid4().hex[:8]}"


def _contents(directory: str) -> dict[str, bytes]:
    names = set(outputs.list_tree(directory)) - {outputs.STATS, outputs.CONFIG}
    return {name: io.read_bytes(io.join(directory, name)) for name in names}


pytestmark = pytest.mark.stores


def test_files_are_written_read_listed_and_deleted(place):
    data = os.urandom(6 << 20)  # two parts of an upload
    for name, content in {"run/a": b"a", "run/b/c": data, "run/empty": b"", "run2/d": b"d"}.items():
        io.write_bytes(f"{place}/{name}", content)
        assert io.read_bytes(f"{place}/{name}") == content
        assert io.size(f"{place}/{name}") == len(content)
    assert outputs.tree_sizes(f"{place}/run") == {"a": 1, "b/c": len(data), "empty": 0}
    assert io.list_names(f"{place}/run", "a") == ["a"]
    assert [entry.path for entry in io.match(f"{place}/*/?")] == [f"{place}/run/a", f"{place}/run2/d"]
    assert [entry.path for entry in io.match(f"{place}/run/a")] == [f"{place}/run/a"]
    with io.open_read(f"{place}/run/b/c") as handle:
        handle.seek(-5, os.SEEK_END)
        assert handle.read() == data[-5:]
        assert handle.seek(3 << 20) == 3 << 20 == handle.tell()
        assert handle.read(9) == data[3 << 20 : (3 << 20) + 9]
    io.write_bytes(f"{place}/run/a", b"")
    assert io.read_bytes(f"{place}/run/a") == b""
    io.delete_files(f"{place}/run", ["b/c", "absent"])
    io.delete(f"{place}/run/absent")
    assert outputs.list_tree(f"{place}/run") == ["a", "empty"]
    io.delete_tree(f"{place}/run")
    io.delete_tree(f"{place}/run")
    assert outputs.list_tree(place) == ["run2/d"]
    assert outputs.list_tree(f"{place}/run") == io.list_names(f"{place}/run") == []


def test_a_file_that_is_missing_is_not_found(place):
    assert not io.exists(f"{place}/absent")
    with pytest.raises(FileNotFoundError):
        io.read_bytes(f"{place}/absent")
    with pytest.raises(FileNotFoundError):
        io.size(f"{place}/absent")


def test_a_writer_that_fails_leaves_what_was_there(place):
    io.write_bytes(f"{place}/a", b"old")

    def fail() -> None:
        with io.atomic_writer(f"{place}/a") as handle:
            handle.write(os.urandom(6 << 20))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert outputs.list_tree(place) == ["a"]
    assert io.read_bytes(f"{place}/a") == b"old"


def _corpus(sample_data: Path, tmp_path: Path, place: str) -> Path:
    """Twenty documents, as a plain and a compressed shard of several blocks each: locally, and below ``place``."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for source, name in (("docs_en", "a.jsonl"), ("code_python", "b.jsonl.gz")):
        with gzip.open(sample_data / "old" / source / "shard-00000.jsonl.gz") as handle:
            text = b"".join(next(handle) for _ in range(10))
        data = gzip.compress(text) if name.endswith(".gz") else text
        (folder / name).write_bytes(data)
        io.write_bytes(f"{place}/corpus/{name}", data)
    return folder


def _embed(corpus: object, model: Path, out: object, **options: object) -> None:
    embed(EmbedConfig(inputs=(f"{corpus}/*",), model=str(model), out=str(out), **EMBED, **options))


def test_the_chain_writes_the_bytes_of_local_files(place, sample_data, tiny_lm, tmp_path):
    """But for the files that tell where the corpus and the run lie; those are read, and held against the corpus."""
    corpus = _corpus(sample_data, tmp_path, place)
    _embed(f"{place}/corpus", tiny_lm, f"{place}/run", workers=2 if place.startswith("s3:") else 1)
    _embed(corpus, tiny_lm, tmp_path / "run")
    for base in (place, str(tmp_path)):
        verify(VerifyConfig(directory=f"{base}/run"))
        select(SelectConfig(runs=(f"{base}/run",), out=f"{base}/replay", budget="20%", group_by="source"))
        order(OrderConfig(replay=f"{base}/replay", out=f"{base}/ordered", epochs=2, world_size=2))
        verify(VerifyConfig(directory=f"{base}/ordered", sources=True))
        inspect(f"{base}/ordered")
        export(ExportConfig(replay=f"{base}/ordered", out=f"{base}/export", to="parquet", ids=True))
        verify(VerifyConfig(directory=f"{base}/export", replay=f"{base}/ordered"))
    for name in ("run", "replay", "ordered", "export"):
        found, expected = _contents(f"{place}/{name}"), _contents(str(tmp_path / name))
        assert found.keys() == expected.keys()
        assert {file for file in found if found[file] != expected[file]} <= ADDRESSED
    assert len(found) > 6


def _killed(run: Callable[[], object], step: int) -> bool:
    """Whether a child that runs a command dies right before its request of that number that changes a store."""
    child = os.fork()
    if child == 0:
        code, seen = 1, 0

        def watch(event: str, args: tuple) -> None:
            nonlocal seen
            if event == "http.client.send" and bytes(args[1][:7]).split(b" ")[0] in (b"PUT", b"POST", b"DELETE"):
                if seen == step:
                    os._exit(9)
                seen += 1

        try:
            sys.addaudithook(watch)
            run()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9), f"step {step}: the command failed by itself"
    return code == 9


def _attack(run: Callable[[str], object], place: str, stride: int, expected: dict[str, bytes]) -> int:
    """Kill a command at every stride-th request that changes a store, and run it again; how many kills there were."""
    kills = 0
    while True:
        out = f"{place}/{kills}"
        if not _killed(partial(run, out), kills * stride):
            assert _contents(out) == expected
            return kills
        left = outputs.list_tree(out)
        if outputs.SUCCESS in left:
            assert _contents(out).items() >= expected.items()
        run(out)
        assert _contents(out) == expected, f"step {kills * stride}"
        kills += 1


def test_an_embedding_that_is_killed_at_a_request_goes_on(place, sample_data, tiny_lm, tmp_path):
    corpus = _corpus(sample_data, tmp_path, place)
    _embed(corpus, tiny_lm, tmp_path / "run")

    def run(out: str) -> None:
        _embed(corpus, tiny_lm, out)

    assert _attack(run, place, 97, _contents(str(tmp_path / "run"))) > 0


def test_a_choice_and_an_export_that_are_killed_at_a_request_are_made_anew(place, sample_data, tiny_lm, tmp_path):
    corpus = _corpus(sample_data, tmp_path, place)
    _embed(corpus, tiny_lm, tmp_path / "run")

    def choose(out: str) -> None:
        config = SelectConfig(runs=(str(tmp_path / "run"),), out=out, budget="20%", method="uniform", overwrite=True)
        select(config, make_steps=InlineSteps)

    def write(out: str) -> None:
        config = ExportConfig(replay=str(tmp_path / "replay"), out=out, to="olmo", overwrite=True)
        export(config, make_steps=InlineSteps)

    for command, name, stride in ((choose, "replay", 19), (write, "export", 23)):
        command(str(tmp_path / name))
        assert _attack(command, f"{place}/{name}", stride, _contents(str(tmp_path / name))) > 0


def test_what_a_store_refuses_is_one_sentence(servers, capsys):
    for path in ("s3://absent/run", "gs://absent/run", "hdfs://absent/run"):
        assert main(["inspect", path]) != 0
        assert main(["embed", f"{path}/*.jsonl", "--model", "models/base", "--out", f"{path}-out"]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cptsel:")]
        assert len(lines) == 2
        assert all(line.startswith(f"cptsel: error: {path}") for line in lines), lines
