"""``cptsel embed`` on what fails: full disks, shards, models, workers; and how it goes on from there."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from corpus_builders import every_format
from killing import tree

from cptsel.cli.main import main
from cptsel.pipeline import io
from cptsel.pipeline.artifacts.lock import locked
from cptsel.pipeline.artifacts.run import open_runs
from cptsel.pipeline.embed import embed
from cptsel.pipeline.embedding.block import BlockEmbedder
from cptsel.pipeline.embedding.config import EmbedConfig
from cptsel.pipeline.errors import PartialError, UsageError

TEXTS = ["der Text einer Zeile", "a line of text", "une ligne de texte", "ещё одна строка", "x = [1, 2]", "SELECT 1;"]
ROWS = [{"id": str(row), "text": text * 3, "lang": "de en"[row % 2]} for row, text in enumerate(TEXTS)]
OPTIONS = {"max_tokens": 32, "sketch_dim": 16, "validation_dim": 8, "block_bytes": 150}


@dataclass(frozen=True)
class Place:
    """Four shards, two of them in several blocks, a model, and the run that nothing disturbed."""

    corpus: Path
    model: Path
    reference: Path

    def config(self, out: Path, **options: object) -> EmbedConfig:
        settings = {"inputs": (f"{self.corpus}/*",), "model": str(self.model), "out": str(out)} | OPTIONS | options
        return EmbedConfig(**settings)

    def argv(self, out: Path, *flags: str) -> list[str]:
        options = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
        return ["embed", f"{self.corpus}/*", f"--model={self.model}", f"--out={out}", *options, *flags]


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_lm) -> Place:
    folder = tmp_path_factory.mktemp("faults")
    corpus = folder / "corpus"
    corpus.mkdir()
    files = every_format(ROWS, group_rows=2)
    for name in ("a.jsonl", "a.jsonl.gz", "g.parquet", "t.tar"):
        (corpus / name).write_bytes(files[name])
    made = Place(corpus, tiny_lm, folder / "reference")
    assert embed(made.config(made.reference)).status == "done"
    return made


class _Disk:
    """A disk that is full from the n-th write on, and tells how many writes there were."""

    def __init__(self, room: int | None) -> None:
        self.room, self.writes, self.lock = room, 0, threading.Lock()

    def open(self, path: str, mode: str = "r", **options: object):
        handle = open(path, mode, **options)  # noqa: SIM115
        return _Handle(handle, self) if "w" in mode else handle

    def is_full(self) -> bool:
        with self.lock:
            self.writes += 1
            return self.room is not None and self.writes > self.room


class _Handle:
    """A file of which half is written when the disk is full."""

    def __init__(self, handle, disk: _Disk) -> None:
        self._handle, self._full = handle, disk.is_full()

    def __enter__(self):
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.close()

    def write(self, data: bytes) -> int:
        if self._full:
            self._handle.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._handle.write(data)

    def flush(self) -> None:
        if self._full:  # where nothing was to be written, as of _SUCCESS
            raise OSError(errno.ENOSPC, "No space left on device")
        self._handle.flush()

    def fileno(self) -> int:
        return self._handle.fileno()


@pytest.mark.parametrize("stride", [19, pytest.param(1, marks=pytest.mark.long)])
def test_a_disk_that_is_full_at_any_write(place, tmp_path, monkeypatch, stride):
    out = tmp_path / "run"
    whole = tree(place.reference)
    for room in range(0, 1000, stride):
        shutil.rmtree(out, ignore_errors=True)
        with monkeypatch.context() as patch:
            patch.setattr(io, "open", _Disk(room).open, raising=False)
            try:
                embed(place.config(out))
                break
            except PartialError as error:
                sentence = str(error)
        assert f"{out}/" in sentence, room
        assert "can't be written (no space left on device); make room" in sentence, room
        assert "\n" not in sentence
        left = tree(out) if out.exists() else {}
        assert "_SUCCESS" not in left
        assert not [name for name in left if name.endswith(".tmp")]
        embed(place.config(out))
        assert tree(out) == whole, room
    else:
        pytest.fail("the disk was full at every write")
    assert room > 38
    assert tree(out) == whole


def _failing(monkeypatch, fails: Callable[[str, int], BaseException | None]) -> list[tuple[str, int]]:
    """Let embedding fail on some blocks, by path and number; returns those that are embedded."""
    whole, done = BlockEmbedder.embed, []

    def embed_block(self, path, block):
        if (error := fails(path, block.block)) is not None:
            raise error
        done.append((path, block.block))
        return whole(self, path, block)

    monkeypatch.setattr(BlockEmbedder, "embed", embed_block)
    return done


class PanicException(BaseException):
    """As the tokenizer's Rust raises it."""


FAULTS = [RuntimeError("index out of range\nin self"), PanicException("slice index")]


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_a_shard_on_which_the_model_fails_is_passed_over(place, tmp_path, monkeypatch, capfd, error):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        _failing(patch, lambda path, block: error if (path, block) in {("a.jsonl", 1), ("t.tar", 0)} else None)
        code = main(place.argv(out, "--keep-going"))
    said, told = capfd.readouterr()
    assert code == 5
    (line,) = [line for line in told.splitlines() if line.startswith("cptsel: error:")]
    assert line == (
        f"cptsel: error: a.jsonl: block 1 can't be embedded ({str(error).splitlines()[0]}) (2 shards failed: a.jsonl, "
        "t.tar); the others are done: run again to resume with what failed"
    )
    assert "shards failed  2" in said
    assert "t.tar: block 0 can't be embedded" in said
    assert not (out / "_SUCCESS").exists()
    with pytest.raises(UsageError, match="not finished"):
        open_runs([str(out)])
    with monkeypatch.context() as patch:
        done = _failing(patch, lambda path, block: None)
        assert embed(place.config(out)).status == "resumed"
    assert sorted(done) == [("a.jsonl", 1), ("t.tar", 0)]
    assert tree(out) == tree(place.reference)


@pytest.mark.parametrize("error", FAULTS[:1], ids=lambda error: type(error).__name__)
def test_without_keep_going_the_first_failure_ends_the_run_and_names_the_shard(place, tmp_path, monkeypatch, error):
    with monkeypatch.context() as patch:
        _failing(patch, lambda path, block: error if (path, block) == ("a.jsonl", 1) else None)
        with pytest.raises(PartialError) as raised:
            embed(place.config(tmp_path / "run"))
    assert str(raised.value) == (
        "a.jsonl: block 1 can't be embedded (index out of range); run the same command again to resume, with "
        "--keep-going to finish the other shards"
    )
    assert embed(place.config(tmp_path / "run")).status in {"done", "resumed"}
    assert tree(tmp_path / "run") == tree(place.reference)


def test_a_read_that_breaks_off_in_the_middle_of_a_shard(place, tmp_path, monkeypatch):
    """A disk that gives only the first bytes of a file, once the corpus is listed."""
    out, opened = tmp_path / "run", io.open_read
    path = str(place.corpus / "a.jsonl")

    class Broken:
        def __init__(self) -> None:
            self.handle, self.left = opened(path), 200

        def __enter__(self):
            return self

        def __exit__(self, *error: object) -> None:
            self.handle.close()

        def __getattr__(self, name: str):
            return getattr(self.handle, name)

        def read(self, size: int = -1) -> bytes:
            if (out / "run.json").exists() and self.handle.tell() + max(size, 0) > self.left:
                raise OSError(errno.EIO, "Input/output error")
            return self.handle.read(size)

    with monkeypatch.context() as patch:
        patch.setattr(io, "open_read", lambda uri: Broken() if uri == path else opened(uri))
        with pytest.raises(PartialError, match=r"a\.jsonl: .*Input/output error \(1 shard failed: a\.jsonl\)"):
            embed(place.config(out))
    shards = {name[:6] for name in io.list_names(str(out / "embeddings"))}
    assert shards >= {"000001", "000002", "000003"}
    embed(place.config(out))
    assert tree(out) == tree(place.reference)


@pytest.mark.parametrize("options", [{}, {"gradient": "head+body"}, {"pool": "50%"}], ids=str)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", r"run\.json: .*'format' is a required property; restore the file, or .* --overwrite"),
        ("[]", r"run\.json: .*is not of type 'object'; restore the file, or replace the run by --overwrite"),
        ("{", r"run\.json: not valid JSON .*; restore the file"),
    ],
)
def test_a_damaged_header_of_a_run_that_goes_on_is_named(place, tmp_path, text, words, options):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.yaml").write_text("# cptsel embed: as saved\n")
    (out / "run.json").write_text(text)
    before = tree(out)
    with pytest.raises(UsageError, match=words):
        embed(place.config(out, **options))
    assert tree(out) == before


def test_model_files_that_go_or_change_between_two_starts(place, tmp_path, monkeypatch):
    out, model = tmp_path / "run", tmp_path / "model"
    shutil.copytree(place.model, model)
    with monkeypatch.context() as patch:
        _failing(patch, lambda path, block: RuntimeError("stop") if path == "t.tar" else None)
        with pytest.raises(PartialError):
            embed(place.config(out, model=str(model), keep_going=True))
    before = tree(out)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        (model / name).rename(tmp_path / name)
        with pytest.raises(UsageError, match="model"):
            embed(place.config(out, model=str(model)))
        (tmp_path / name).rename(model / name)
        assert tree(out) == before
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    with pytest.raises(UsageError, match="the model's weights changed since this run was begun"):
        embed(place.config(out, model=str(model)))
    assert tree(out) == before
    assert embed(place.config(out)).status == "resumed"  # the same model elsewhere
    assert tree(out) == tree(place.reference)


def test_two_runs_on_one_directory(place, tmp_path):
    out = tmp_path / "run"
    with (
        locked(str(out), "embed"),
        pytest.raises(UsageError, match=rf"is being written by cptsel embed \(process {os.getpid()} on "),
    ):
        embed(place.config(out))
    embed(place.config(out))
    assert tree(out) == tree(place.reference)


def _wait(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not done():
        assert time.monotonic() < end
        time.sleep(0.005)


def _started(place: Place, out: Path, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "cptsel", *place.argv(out, *flags)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, preexec_fn=_hear_interrupts, **pipes)


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _workers(of: int) -> Iterator[int]:
    """Processes below a process that run our worker module."""
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in table.splitlines()]
    below, more = {of}, True
    while more:
        found = {int(row[0]) for row in rows if int(row[1]) in below} - below
        below, more = below | found, bool(found)
    return (int(row[0]) for row in rows if int(row[0]) in below and "cptsel.pipeline.engine.worker" in row[2])


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_and_a_rerun_goes_on(place, tmp_path):
    out = tmp_path / "run"
    with _started(place, out, "--workers=2") as process:
        _wait(lambda: any(_workers(process.pid)) or process.poll() is not None)
        os.kill(max(_workers(process.pid)), signal.SIGKILL)
        _, told = process.communicate(timeout=300)
    assert process.returncode == 5, told
    assert "a worker process ended with code" in told
    embed(place.config(out))
    assert tree(out) == tree(place.reference)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_random_kills_and_interrupts_lead_to_the_same_bytes(place, tmp_path, seed):
    rng, out = random.Random(seed), tmp_path / "run"
    ends = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
    for kill in range(8):
        workers = rng.choice((1, 1, 2))
        with _started(place, out, f"--workers={workers}") as process:
            try:
                process.wait(rng.uniform(3, 14))
            except subprocess.TimeoutExpired:
                number = rng.choice(ends)
                process.send_signal(number)
                _, told = process.communicate(timeout=300)
                assert process.returncode in {0, -number, 130}, (kill, told)
        if process.returncode == 0:
            assert tree(out) == tree(place.reference)
            shutil.rmtree(out)
    embed(place.config(out))
    assert tree(out) == tree(place.reference)
